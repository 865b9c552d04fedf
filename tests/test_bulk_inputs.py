"""Everything that may be scored beside files and folders, good and bad."""

import gzip
import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from found_pictures import content_of
from PIL import Image

from pfd_iqa_hf.modeling.http_download import _is_public
from pfd_iqa_hf.scoring.archives import archive_pictures
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.http_fetch import fetch
from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs, is_plain
from pfd_iqa_hf.scoring.tables import listed_picture, table_pictures


def _png(side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), side, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _found(*given: object, stdin: bytes = b"", **options: Any) -> list[FoundPicture]:
    barren: list[str] = []
    names = [str(entry) for entry in given]
    return list(find_inputs(names, InputOptions(**options), barren, io.BytesIO(stdin)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for side in (8, 9):
        (tmp_path / f"{side}.png").write_bytes(_png(side))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def test_a_list_on_the_standard_input(folder: Path) -> None:
    lines = b"8.png\r\n\n./8.png\ngone.png\n9.png"
    assert [p.path for p in _found("-", stdin=lines)] == ["8.png", "gone.png", "9.png"]
    names = b"8.png\0a\nb.png\0"
    assert [p.path for p in _found("-", stdin=names, null=True)] == ["8.png", "a\nb.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "﻿mos,image\n3,8.png\n4,9.png\n"),
        ("t.tsv", "path\tmos\n8.png\t3\n9.png\t4\n"),
        ("t.jsonl", '{"file": "8.png"}\n\n{"file": "9.png"}\n'),
        ("bare.jsonl", '"8.png"\n"9.png"\n'),
    ],
)
def test_tables_of_paths_start_at_their_folder(
    name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_text(text, "utf-8")
    monkeypatch.chdir("/")
    found = _found(folder / name)
    assert [picture.path for picture in found] == [str(folder / n) for n in ("8.png", "9.png")]


def test_a_named_column(folder: Path) -> None:
    (folder / "t.csv").write_text("image,mine\nno.png,8.png\n")
    assert [p.path for p in _found("t.csv", column="mine")] == ["8.png"]
    (wrong,) = _found("t.csv", column="other")
    assert wrong.path == "t.csv" and "no column 'other'" in str(wrong.error)
    assert "image, mine" in str(wrong.error)


def test_parquet_of_bytes_and_of_structs(folder: Path) -> None:
    pq.write_table(pa.table({"image": [_png(3), b"junk", None]}), folder / "b.parquet")
    rows = _found("b.parquet")
    assert [row.path for row in rows] == [f"b.parquet::{number}" for number in range(3)]
    assert content_of(rows[0]) == _png(3) and content_of(rows[1]) == b"junk"
    assert "names no picture" in str(rows[2].error)
    struct = [{"bytes": _png(4), "path": "x.png"}, {"bytes": None, "path": "8.png"}]
    pq.write_table(pa.table({"image": struct}), folder / "s.parquet")
    first, second = _found("s.parquet")
    assert content_of(first) == _png(4) and second.path == "8.png"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.parquet", b"PAR1 no"),
        ("t.csv", b"a,b\n1,2\n"),
        ("t.csv", b""),
    ],
)
def test_a_damaged_table_is_named_once(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    bad, good = _found(name, "8.png")
    assert bad.path == name and "cannot be read" in str(bad.error) and good.error is None


@pytest.mark.parametrize("packed", [False, True])
def test_archives_are_read_in_place_and_tricks_refused(packed: bool, folder: Path) -> None:
    name = "a.tgz" if packed else "a.tar"
    with tarfile.open(folder / name, "w:gz" if packed else "w") as archive:
        _add(archive, "dir/x.png", _png(3))
        _add(archive, "dir/x.json", b"{}")
        _add(archive, "dir/x.png", _png(4))
        for bad in ("/etc/x.png", "../x.png", "a/../../x.png"):
            _add(archive, bad, _png())
        _add(archive, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        _add(archive, "hard.png", type=tarfile.LNKTYPE, linkname="dir/x.png")
        _add(archive, "device.png", type=tarfile.CHRTYPE)
    before = sorted(folder.iterdir())
    found = _found(name)
    good, bad_ones = found[:2], found[2:]
    assert [p.path for p in good] == [f"{name}::dir/x.png", f"{name}::dir/x.png#2"]
    assert [content_of(p) for p in good] == [_png(3), _png(4)]
    assert len(bad_ones) == 6 and all("refused" in str(p.error) for p in bad_ones)
    assert all(".." not in p.place.parts and not p.place.is_absolute() for p in found)
    assert sorted(folder.iterdir()) == before, "nothing is unpacked"


@pytest.mark.parametrize("cut", [100, 700, 1400, 2500])
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_that_ends_early_is_told(cut: int, packed: bool, folder: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            _add(archive, f"{number}.png", np.random.default_rng(number).bytes(900))
    data = gzip.compress(whole.getvalue()) if packed else whole.getvalue()
    name = "cut.tgz" if packed else "cut.tar"
    (folder / name).write_bytes(data[:cut])
    found = _found(name, "8.png")
    assert found[-1].path == "8.png" and found[-1].error is None
    told = [p for p in found if p.path == name]
    assert len(told) == 1 and "damaged or incomplete" in str(told[0].error)


def test_a_broken_header_does_not_end_an_archive_silently(folder: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            _add(archive, f"{number}.png", b"x" * 900)
    data = bytearray(whole.getvalue())
    data[1536 + 148 : 1536 + 156] = b"garbage!"  # the second member's checksum
    (folder / "b.tar").write_bytes(data)
    found = _found("b.tar")
    assert [p.path for p in found] == ["b.tar::0.png", "b.tar"]
    assert "after 1 pictures" in str(found[1].error)


def test_any_file_system_of_fsspec(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        _add(archive, "x.png", _png(5))
    files = {"a.png": _png(3), "sub/b.png": _png(4), "c.tar": shard.getvalue(), "n.txt": b"no"}
    for name, data in files.items():
        memory.pipe(f"/bulk/{name}", data)
    memory.pipe("/bulk/t.csv", b"path\nsub/b.png\n")
    try:
        flat = _found("memory://bulk")
        assert [content_of(p) for p in flat] == [_png(3)]
        assert [content_of(p) for p in _found("memory://bulk", recursive=True)] == [
            _png(3),
            _png(4),
        ]
        assert [content_of(p) for p in _found("memory://bulk/*.tar")] == [_png(5)]
        assert [content_of(p) for p in _found("memory://bulk/t.csv")] == [_png(4)]
        (gone,) = _found("memory://bulk/gone.png")
        assert "no such file" in str(content_of(gone))
    finally:
        memory.rm("/bulk", recursive=True)
    (unknown,) = _found("nosuchprotocol://x")
    assert "cannot be read" in str(unknown.error)


def test_a_file_of_a_strange_name_is_a_file(folder: Path) -> None:
    (folder / "datasets:x").mkdir()
    (folder / "datasets:x" / "a.png").write_bytes(_png())
    assert is_plain("datasets:x") and len(_found("datasets:x")) == 1


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away.png":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if self.path == "/round.png":
            self.send_response(302)
            self.send_header("Location", "/round.png")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/a.png" else 404)
        self.send_header("Content-Length", str(len(_png())))
        self.end_headers()
        self.wfile.write(_png())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_addresses_are_fetched_only_when_asked_for(server: str, folder: Path) -> None:
    address = f"{server}/a.png"
    (given,) = _found(address, allow_private=True)
    assert content_of(given) == _png()
    (refused,) = _found(address)
    assert "private address 127.0.0.1" in str(content_of(refused))
    (folder / "t.csv").write_text(f"path\n{address}\n")
    (listed,) = _found("t.csv", allow_private=True)
    assert "--fetch" in str(listed.error)
    (fetched,) = _found("t.csv", allow_private=True, fetch=True)
    assert content_of(fetched) == _png()


@pytest.mark.parametrize("name", ["away.png", "round.png", "gone.png"])
def test_bad_answers_are_errors(name: str, server: str) -> None:
    with pytest.raises(OSError, match="refused|cannot be downloaded"):
        fetch(f"{server}/{name}", 20, allow_private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.1.2.3", "[::ffff:192.168.1.1]", "0"],
)
def test_private_hosts_are_refused_before_anything_is_sent(host: str) -> None:
    with pytest.raises(OSError, match="private address"):
        fetch(f"http://{host}:9/a.png", 20, allow_private=False)


def test_a_saved_dataset(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": _png(3), "path": None}, {"bytes": _png(4), "path": None}]}
    features = datasets.Features({"image": datasets.Image()})
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(folder / "d")
    found = _found("datasets:d")
    assert [p.path for p in found] == [
        *("datasets:d:train::0", "datasets:d:train::1", "datasets:d:test::0")
    ]
    assert [content_of(p) for p in found] == [_png(3), _png(4), _png(4)]
    assert [p.path for p in _found("datasets:d:test")] == ["datasets:d:test::0"]
    (wrong,) = _found("datasets:d:none")
    assert "no split 'none'" in str(wrong.error)


def _video(path: Path, frames: int = 30) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for number in range(frames):
            picture = Image.new("RGB", (64, 48), (8 * number, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def test_frames_of_a_video(folder: Path) -> None:
    _video(folder / "clip.mp4")
    found = _found("clip.mp4", every=1.0)
    assert [p.path for p in found] == [f"clip.mp4::t={t}.0" for t in range(3)]
    reds = []
    for picture in found:
        data = content_of(picture)
        assert isinstance(data, bytes)
        frame = Image.open(io.BytesIO(data))
        assert frame.size == (64, 48)
        reds.append(frame.getpixel((30, 20))[0])  # type: ignore[index]
    assert np.allclose(reds, [0, 80, 160], atol=12)
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:200])
    cut, good = _found("cut.mp4", "8.png")
    assert cut.path == "cut.mp4" and "cannot be decoded" in str(cut.error) and good.error is None


def test_a_missing_extra_names_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "clip.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    (video,) = _found("clip.mp4")
    assert 'pip install "pfd-iqa-hf[video]"' in str(video.error)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (dataset,) = _found("datasets:some/name")
    assert 'pip install "pfd-iqa-hf[train]"' in str(dataset.error)


def test_an_unfinished_list_is_scored_as_it_comes(folder: Path) -> None:
    class Slow(io.RawIOBase):
        lines = iter([b"8.png\n9.p"])

        def read1(self, _: int) -> bytes:
            return next(self.lines)

    found = find_inputs(["-"], InputOptions(), [], Slow())  # type: ignore[arg-type]
    assert next(found).path == "8.png"


def test_records_of_rows_are_json(folder: Path) -> None:
    (folder / "t.jsonl").write_text(json.dumps({"path": 3}) + "\n")
    (row,) = _found("t.jsonl")
    assert row.path == "t.jsonl::0" and "neither text nor bytes" in str(row.error)


@pytest.mark.parametrize(
    "address",
    [
        "simplecache::http://127.0.0.1:1/x.jpg",
        "zip://x.jpg::http://127.0.0.1:1/x.zip",
        "file:///etc/hostname",
        "ftp://127.0.0.1/x.jpg",
        "http://[/x.jpg",
    ],
)
def test_a_list_cannot_reach_around_the_limits_of_addresses(address: str) -> None:
    found = listed_picture(address, "", InputOptions(fetch=True))
    assert found.error is not None and found.read is None


@pytest.mark.parametrize(
    ("number", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("fec0::1", False),
        ("64:ff9b::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_private_addresses_in_every_spelling(number: str, public: bool) -> None:
    assert _is_public(number) is public


def _with_size(size: int) -> bytes:
    """A tar archive of one good picture and one member that claims a size."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"abcd"))
    data = bytearray(file.getvalue())
    header = data[1024:1536]
    header[124:136] = (size % (1 << 96)).to_bytes(12, "big")
    header[124] = 0xFF if size < 0 else 0x80
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    return bytes(data)


@pytest.mark.parametrize("size", [1 << 60, -512, -5, -1])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_impossible_size_in_an_archive_ends_it(size: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    data = _with_size(size)
    file.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    found = list(archive_pictures(str(file), lambda: open(file, "rb"), str(file)))
    assert [one.error is None for one in found] == [True, False]
    assert "damaged" in str(found[1].error)


def test_rows_that_are_no_objects_cost_themselves(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text('{"image": "a.png"}\n5\nnull\n["b"]\n{"image": \n"b.png"\n{"image": "c.png"}\n')
    rows = list(table_pictures(str(file), ".jsonl", lambda: open(file, "rb"), InputOptions()))
    assert [one.error is None for one in rows] == [True, *[False] * 4, True, True]
    assert len({one.path for one in rows}) == 7


def test_an_archive_cut_between_two_members_is_told(folder: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for number in range(3):
            _add(archive, f"{number}.png", b"x" * 512)
    for name, members in (("two.tar", 2), ("all.tar", 3)):
        (folder / name).write_bytes(whole.getvalue()[: 1024 * members])
        *found, last = _found(name)
        assert len(found) == members and all(picture.error is None for picture in found)
        assert last.path == name and "the blocks of zeros at its end are missing" in str(last.error)


def test_a_refused_member_hides_neither_a_file_nor_another_archives(folder: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with tarfile.open(folder / name, "w") as archive:
            _add(archive, "x/../8.png", _png())
            _add(archive, "../../evil.png", _png())
    found = _found("a.tar", "b.tar", "8.png", "./8.png")
    assert len(found) == 5 and sum(picture.error is not None for picture in found) == 4
    assert found[-1].path == "8.png"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_the_parent_of_a_linked_folder_is_the_targets(folder: Path) -> None:
    (folder / "real" / "sub").mkdir(parents=True)
    (folder / "real" / "8.png").write_bytes(_png(5))
    os.symlink(folder / "real" / "sub", folder / "link")
    for given in (("link/../8.png", "8.png"), ("-",)):
        stdin = b"link/../8.png\n8.png\nreal/../8.png\n" if given == ("-",) else b""
        assert [content_of(picture) for picture in _found(*given, stdin=stdin)] == [
            _png(5),
            _png(8),
        ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image;mos\n8.png;1,5\n", "utf-8"),
        ("image,mos\n8.png,1\n", "utf-16"),
        ("mos\timage\n1\t8.png\n", "utf-16-le"),
        ("image\n8.png\n", "utf-8-sig"),
        ("image;mos\ncafé.png;1,5\n", "cp1252"),
        ("image;mos\ncafé.png;1,5\n", "utf-8"),
    ],
)
def test_tables_as_spreadsheets_save_them(text: str, encoding: str, folder: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    name = "café.png" if "é" in text else "8.png"
    (folder / name).write_bytes(_png(8))
    (folder / "t.csv").write_bytes((mark + text).encode(encoding))
    assert [(picture.path, picture.error) for picture in _found("t.csv")] == [(name, None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,image\n8.png,9.png\n", "2 columns are called 'image'"),
        ("", "it has no columns"),
        ("a;b\n1;2\n", "give --column one of a, b"),
    ],
)
def test_a_header_that_does_not_tell_is_named(text: str, message: str, folder: Path) -> None:
    (folder / "t.csv").write_text(text)
    (found,) = _found("t.csv")
    assert message in str(found.error)
