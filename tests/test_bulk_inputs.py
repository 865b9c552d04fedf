"""Everything that may be scored beside files and folders, good and bad."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from found_pictures import add_member, content_of, pictures_found, png_bytes
from PIL import Image

from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs, is_plain
from pfd_iqa_hf.scoring.tables import table_pictures


def test_a_list_on_the_standard_input(two_pictures: Path) -> None:
    lines = b"8.png\r\n\n./8.png\ngone.png\n9.png"
    assert [p.path for p in pictures_found("-", stdin=lines)] == ["8.png", "gone.png", "9.png"]
    names = b"8.png\0a\nb.png\0"
    assert [p.path for p in pictures_found("-", stdin=names, null=True)] == ["8.png", "a\nb.png"]


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
    name: str, text: str, two_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two_pictures / name).write_text(text, "utf-8")
    monkeypatch.chdir("/")
    found = pictures_found(two_pictures / name)
    assert [picture.path for picture in found] == [
        str(two_pictures / n) for n in ("8.png", "9.png")
    ]


def test_a_named_column(two_pictures: Path) -> None:
    (two_pictures / "t.csv").write_text("image,mine\nno.png,8.png\n")
    assert [p.path for p in pictures_found("t.csv", column="mine")] == ["8.png"]
    (wrong,) = pictures_found("t.csv", column="other")
    assert wrong.path == "t.csv" and "no column 'other'" in str(wrong.error)
    assert "image, mine" in str(wrong.error)


def test_parquet_of_bytes_and_of_structs(two_pictures: Path) -> None:
    pq.write_table(pa.table({"image": [png_bytes(3), b"junk", None]}), two_pictures / "b.parquet")
    rows = pictures_found("b.parquet")
    assert [row.path for row in rows] == [f"b.parquet::{number}" for number in range(3)]
    assert content_of(rows[0]) == png_bytes(3) and content_of(rows[1]) == b"junk"
    assert "names no picture" in str(rows[2].error)
    struct = [{"bytes": png_bytes(4), "path": "x.png"}, {"bytes": None, "path": "8.png"}]
    pq.write_table(pa.table({"image": struct}), two_pictures / "s.parquet")
    first, second = pictures_found("s.parquet")
    assert content_of(first) == png_bytes(4) and second.path == "8.png"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.parquet", b"PAR1 no"),
        ("t.csv", b"a,b\n1,2\n"),
        ("t.csv", b""),
    ],
)
def test_a_damaged_table_is_named_once(name: str, data: bytes, two_pictures: Path) -> None:
    (two_pictures / name).write_bytes(data)
    bad, good = pictures_found(name, "8.png")
    assert bad.path == name and "cannot be read" in str(bad.error) and good.error is None


def test_any_file_system_of_fsspec(two_pictures: Path) -> None:
    memory = fsspec.filesystem("memory")
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        add_member(archive, "x.png", png_bytes(5))
    files = {
        "a.png": png_bytes(3),
        "sub/b.png": png_bytes(4),
        "c.tar": shard.getvalue(),
        "n.txt": b"no",
    }
    for name, data in files.items():
        memory.pipe(f"/bulk/{name}", data)
    memory.pipe("/bulk/t.csv", b"path\nsub/b.png\n")
    try:
        flat = pictures_found("memory://bulk")
        assert [content_of(p) for p in flat] == [png_bytes(3)]
        assert [content_of(p) for p in pictures_found("memory://bulk", recursive=True)] == [
            png_bytes(3),
            png_bytes(4),
        ]
        assert [content_of(p) for p in pictures_found("memory://bulk/*.tar")] == [png_bytes(5)]
        assert [content_of(p) for p in pictures_found("memory://bulk/t.csv")] == [png_bytes(4)]
        (gone,) = pictures_found("memory://bulk/gone.png")
        assert "no such file" in str(content_of(gone))
    finally:
        memory.rm("/bulk", recursive=True)
    (unknown,) = pictures_found("nosuchprotocol://x")
    assert "cannot be read" in str(unknown.error)


def test_a_file_of_a_strange_name_is_a_file(two_pictures: Path) -> None:
    (two_pictures / "datasets:x").mkdir()
    (two_pictures / "datasets:x" / "a.png").write_bytes(png_bytes())
    assert is_plain("datasets:x") and len(pictures_found("datasets:x")) == 1


def test_a_saved_dataset(two_pictures: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png_bytes(3), "path": None}, {"bytes": png_bytes(4), "path": None}]}
    features = datasets.Features({"image": datasets.Image()})
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(
        two_pictures / "d"
    )
    found = pictures_found("datasets:d")
    assert [p.path for p in found] == [
        *("datasets:d:train::0", "datasets:d:train::1", "datasets:d:test::0")
    ]
    assert [content_of(p) for p in found] == [png_bytes(3), png_bytes(4), png_bytes(4)]
    assert [p.path for p in pictures_found("datasets:d:test")] == ["datasets:d:test::0"]
    (wrong,) = pictures_found("datasets:d:none")
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


def test_frames_of_a_video(two_pictures: Path) -> None:
    _video(two_pictures / "clip.mp4")
    found = pictures_found("clip.mp4", every=1.0)
    assert [p.path for p in found] == [f"clip.mp4::t={t}.0" for t in range(3)]
    reds = []
    for picture in found:
        data = content_of(picture)
        assert isinstance(data, bytes)
        frame = Image.open(io.BytesIO(data))
        assert frame.size == (64, 48)
        reds.append(frame.getpixel((30, 20))[0])  # type: ignore[index]
    assert np.allclose(reds, [0, 80, 160], atol=12)
    (two_pictures / "cut.mp4").write_bytes((two_pictures / "clip.mp4").read_bytes()[:200])
    cut, good = pictures_found("cut.mp4", "8.png")
    assert cut.path == "cut.mp4" and "cannot be decoded" in str(cut.error) and good.error is None


def test_a_missing_extra_names_its_command(
    two_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two_pictures / "clip.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    (video,) = pictures_found("clip.mp4")
    assert 'pip install "pfd-iqa-hf[video]"' in str(video.error)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (dataset,) = pictures_found("datasets:some/name")
    assert 'pip install "pfd-iqa-hf[train]"' in str(dataset.error)


def test_an_unfinished_list_is_scored_as_it_comes(two_pictures: Path) -> None:
    class Slow(io.RawIOBase):
        lines = iter([b"8.png\n9.p"])

        def read1(self, _: int) -> bytes:
            return next(self.lines)

    found = find_inputs(["-"], InputOptions(), [], Slow())  # type: ignore[arg-type]
    assert next(found).path == "8.png"


def test_records_of_rows_are_json(two_pictures: Path) -> None:
    (two_pictures / "t.jsonl").write_text(json.dumps({"path": 3}) + "\n")
    (row,) = pictures_found("t.jsonl")
    assert row.path == "t.jsonl::0" and "neither text nor bytes" in str(row.error)


def test_rows_that_are_no_objects_cost_themselves(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text('{"image": "a.png"}\n5\nnull\n["b"]\n{"image": \n"b.png"\n{"image": "c.png"}\n')
    rows = list(table_pictures(str(file), ".jsonl", lambda: open(file, "rb"), InputOptions()))
    assert [one.error is None for one in rows] == [True, *[False] * 4, True, True]
    assert len({one.path for one in rows}) == 7


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_the_parent_of_a_linked_folder_is_the_targets(two_pictures: Path) -> None:
    (two_pictures / "real" / "sub").mkdir(parents=True)
    (two_pictures / "real" / "8.png").write_bytes(png_bytes(5))
    os.symlink(two_pictures / "real" / "sub", two_pictures / "link")
    for given in (("link/../8.png", "8.png"), ("-",)):
        stdin = b"link/../8.png\n8.png\nreal/../8.png\n" if given == ("-",) else b""
        assert [content_of(picture) for picture in pictures_found(*given, stdin=stdin)] == [
            png_bytes(5),
            png_bytes(8),
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
def test_tables_as_spreadsheets_save_them(text: str, encoding: str, two_pictures: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    name = "café.png" if "é" in text else "8.png"
    (two_pictures / name).write_bytes(png_bytes(8))
    (two_pictures / "t.csv").write_bytes((mark + text).encode(encoding))
    assert [(picture.path, picture.error) for picture in pictures_found("t.csv")] == [(name, None)]


def test_half_a_character_in_a_list_costs_its_row(two_pictures: Path) -> None:
    (two_pictures / "t.jsonl").write_text(
        '{"image": "\\ud800.png"}\n{"image": "8.png"}\n{"image": "9.png"}\n'
    )
    bad, *good = pictures_found("t.jsonl")
    assert "holds half of a character; check the list" in str(bad.error)
    assert bad.path == "\\ud800.png" and [p.path for p in good] == ["8.png", "9.png"]


@pytest.mark.parametrize("name", ["a.zip", "scores.xlsx"])
def test_containers_that_are_not_read_say_what_is(name: str, two_pictures: Path) -> None:
    (two_pictures / name).write_bytes(b"PK")
    bad, good = pictures_found(name, "8.png")
    assert ".tar" in str(bad.error) and ".csv" in str(bad.error) and good.error is None
    (two_pictures / name).write_bytes(png_bytes())
    assert [picture.error for picture in pictures_found(name)] == [None], "named, so it is tried"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,image\n8.png,9.png\n", "2 columns are called 'image'"),
        ("", "it has no columns"),
        ("a;b\n1;2\n", "give --column one of a, b"),
    ],
)
def test_a_header_that_does_not_tell_is_named(text: str, message: str, two_pictures: Path) -> None:
    (two_pictures / "t.csv").write_text(text)
    (found,) = pictures_found("t.csv")
    assert message in str(found.error)
