"""Datasets, lists, tables, archives and addresses from strangers keep within their limits."""

import functools
import gzip
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from found_pictures import content_of
from PIL import Image

from pfd_iqa_hf.scoring import tables
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs
from pfd_iqa_hf.scoring.tables import table_pictures


def _png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def _found(*given: object, stdin: Any = None, **options: Any) -> list[FoundPicture]:
    return list(find_inputs([str(one) for one in given], InputOptions(**options), [], stdin))


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves `tmp_path`; what was asked for is in `_Handler.asked`."""
    _Handler.asked.clear()
    handler = functools.partial(_Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class _Endless(io.RawIOBase):
    """A beginning, then the same few bytes for ever."""

    def __init__(self, beginning: bytes, again: bytes) -> None:
        self._rest, self._again = beginning, again * 4096

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or self._again
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


# Rows of datasets


def _dataset(folder: Path, **columns: list[str]) -> str:
    """A dataset whose rows name pictures and hold none, as anybody may publish one."""
    pytest.importorskip("datasets")
    cells = {
        name: [{"bytes": None, "path": path} for path in paths] for name, paths in columns.items()
    }
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema([(name, kind) for name in columns])
    features = {name: {"_type": "Image"} for name in columns}
    told = json.dumps({"info": {"features": features}})
    table = pa.table(cells, schema=schema.with_metadata({"huggingface": told}))
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "train.parquet")
    return f"datasets:{folder}"


@pytest.mark.parametrize(
    "address",
    [
        "simplecache::http://127.0.0.1:1/x.jpg",
        "zip://x.jpg::http://127.0.0.1:1/x.zip",
        "zip://x.jpg::simplecache::ftp://127.0.0.1/x.zip",
        "file:///etc/hostname",
        "/etc/hostname",
        "zip://x.jpg::/etc/hostname",
        "ftp://127.0.0.1/x.jpg",
        "webhdfs://127.0.0.1:1/x.jpg",
        "simplecache::ftp://127.0.0.1/x.jpg",
        "github://a:b@main/x.jpg",
        "memory",
        "hf://datasets/a/b/x.zip::ftp://127.0.0.1/x",
    ],
)
def test_a_dataset_reaches_nothing_but_its_own_files(address: str, tmp_path: Path) -> None:
    (bad,) = _found(_dataset(tmp_path / "d", image=[address]), fetch=True)
    assert bad.path.endswith("d:train::0") and bad.read is None
    reason = str(bad.error).partition(f"names {address}, which ")[2]
    assert "refused" in reason or "may not hold" in reason


def test_a_dataset_leaves_its_folder_by_no_way(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(_png(3))
    given = _dataset(tmp_path / "d", image=[f"{tmp_path}/d/../secret.png"])
    assert "lies outside of the dataset" in str(_found(given)[0].error)


def test_own_files_of_a_dataset_are_read(tmp_path: Path) -> None:
    given = _dataset(
        tmp_path / "d",
        image=[f"{tmp_path}/d/3.png", f"zip://4.png::{tmp_path}/d/a.zip", "http://[/x.png"],
    )
    (tmp_path / "d" / "3.png").write_bytes(_png(3))
    with zipfile.ZipFile(tmp_path / "d" / "a.zip", "w") as archive:
        archive.writestr("4.png", _png(4))
    own, packed, web = _found(given)
    assert content_of(own) == _png(3) and content_of(packed) == _png(4)
    assert "--fetch" in str(web.error)
    assert "cannot be downloaded" in str(content_of(_found(given, fetch=True)[2]))


def test_other_columns_of_a_dataset_are_not_fetched(server: str, tmp_path: Path) -> None:
    given = _dataset(tmp_path / "d", image=[f"{tmp_path}/d/3.png"], thumb=[f"{server}/x.png"])
    (tmp_path / "d" / "3.png").write_bytes(_png(3))
    (row,) = _found(given)
    assert content_of(row) == _png(3)
    assert _Handler.asked == []


# Long lines


@pytest.mark.parametrize("beginning", [b"", b"a.png\nb.png\n"])
def test_a_list_without_an_end_of_line_ends(beginning: bytes) -> None:
    *good, end = _found("-", stdin=io.BufferedReader(_Endless(beginning, b"\0")))
    assert [one.path for one in good] == beginning.decode().split()
    assert "a line of more than 65,536 bytes" in str(end.error) and "--null" in str(end.error)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_long_row_costs_itself(suffix: str, tmp_path: Path) -> None:
    def row(path: str, note: str) -> str:
        if suffix == ".jsonl":
            return json.dumps({"image": path, "note": note}) + "\n"
        return f"{path},{note}\n"

    text = "" if suffix == ".jsonl" else "image,note\n"
    text += row("a.png", "x") + row("b.png", "y" * (1 << 20)) + row("c.png", "z")
    # One cell over a limit of Python's own reader, and a path that no system has.
    text += row("d.png", "y" * 200_000) + row("e" * 70_000, "x") + row("f.png", "x")
    (tmp_path / f"t{suffix}").write_text(text)
    rows = _found(tmp_path / f"t{suffix}")
    names = [None if one.error else Path(one.path).name for one in rows]
    fourth = "d.png" if suffix == ".jsonl" else None
    assert names == ["a.png", None, "c.png", fourth, None, "f.png"]
    assert "limit of 1,048,576 characters" in str(rows[1].error)
    assert "70,000 characters of a path" in str(rows[4].error)


@pytest.mark.parametrize("again", [b"x", b'"\n",'], ids=["line", "lines between quotes"])
def test_a_row_without_an_end_ends_the_table(again: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_LONGEST_PASSED_OVER", 1 << 22)
    stream = io.BufferedReader(_Endless(b"image,note\na.png,\nb.png,", again))
    first, end = table_pictures("t.csv", ".csv", lambda: stream, InputOptions())
    assert first.path == "a.png" and "cannot be read after row 0" in str(end.error)


# Large cells and members


def test_large_cells_of_parquet_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_FILE", 1000)
    cells = [b"a" * 10, b"b" * 3000, *[b"c" * 10] * 20]
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet", use_dictionary=False)
    rows = _found(tmp_path / "t.parquet")
    assert [one.error is None for one in rows] == [True, False, *[True] * 20]
    assert "3,000 bytes, over the limit of 1,000" in str(rows[1].error)
    assert [one.path.rpartition("::")[2] for one in rows] == [str(n) for n in range(22)]


def test_a_row_group_of_enormous_rows_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LARGEST_FILE", 1000)
    table = pa.table({"image": [b"a" * 10, b"b" * 10, b"c" * 4000, b"d" * 4000]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2, use_dictionary=False)
    first, second, end = _found(tmp_path / "t.parquet")
    assert first.error is None and second.error is None
    assert "row group 1" in str(end.error) and "after row 1" in str(end.error)


def _archive_with_a_hole(file: Path, size: int) -> None:
    """Two pictures with a member of zeros between them, which takes no room on the disk."""
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        stream: Any = archive.fileobj
        for name in ("a.png", "hole.bin", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = size if name == "hole.bin" else 4
            stream.write(member.tobuf(tarfile.GNU_FORMAT))
            if name == "hole.bin":
                stream.seek(size, os.SEEK_CUR)
            else:
                stream.write(b"abcd" + bytes(508))


def test_members_that_are_passed_over_are_smaller_in_packed_archives(tmp_path: Path) -> None:
    size = 3 << 30
    _archive_with_a_hole(tmp_path / "a.tar", size)
    assert [content_of(one) for one in _found(tmp_path / "a.tar")] == [b"abcd", b"abcd"]
    with open(tmp_path / "a.tar", "rb") as stream:
        start = stream.read(1 << 16)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(start))
    good, end = _found(tmp_path / "a.tgz")
    assert content_of(good) == b"abcd"
    assert "after 1 pictures (a member of 3,221,225,472 bytes" in str(end.error)
    assert "unpack it" in str(end.error)


# Addresses


def test_archives_and_tables_on_the_web(server: str, tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "3.png").write_bytes(_png(3))
    (tmp_path / "4.png").write_bytes(_png(4))
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "4.png", "x.png")
    (tmp_path / "sub dir" / "t.csv").write_text("path\n3.png\n/4.png\n")
    (tmp_path / "t.csv").write_text(f"path\nsub dir/3.png\n{server}/4.png\na::b.png\n//h/x.png\n")
    pq.write_table(pa.table({"image": [_png(5)]}), tmp_path / "t.parquet")
    private = {"allow_private": True}
    (member,) = _found(f"{server}/a.tgz?key=1/2", **private)
    assert member.path == f"{server}/a.tgz?key=1/2::x.png" and content_of(member) == _png(4)
    (row,) = _found(f"{server}/t.parquet", **private)
    assert row.path == f"{server}/t.parquet::0" and content_of(row) == _png(5)
    rows = _found(f"{server}/sub%20dir/t.csv?key=1/2", **private)
    assert [content_of(one) for one in rows] == [_png(3), _png(4)]
    relative, listed, chain, elsewhere = _found(f"{server}/t.csv", **private)
    assert content_of(relative) == _png(3)
    assert "--fetch" in str(listed.error) and "refused" in str(chain.error)
    assert elsewhere.path == f"{server}/h/x.png"


def test_what_is_not_fetched_is_no_broken_picture(server: str, tmp_path: Path) -> None:
    (refused,) = _found(f"{server}/a.tar")
    assert "private address 127.0.0.1" in str(refused.error)
    (gone,) = _found(f"{server}/gone.csv", allow_private=True)
    assert "404" in str(gone.error)
    for address in (f"{server}/clip.mp4?x=1", "memory://clip.mp4"):
        (video,) = _found(address, allow_private=True)
        assert video.path.startswith(address) and "videos must be local" in str(video.error)
    assert _Handler.asked == ["/gone.csv"]


# Pipes


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.tar", "a.csv", "a.mp4"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (pipe,) = _found(tmp_path / name)
    assert pipe.error == "is no ordinary file; save it to one first"
