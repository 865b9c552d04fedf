"""A dataset that is misread, or refused without saying why, costs its owner a day."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.rows import check_pictures
from pfd_iqa_hf.data.table import DatasetError, RatingTable

Write = Callable[[str, str], str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png", "c.png", "Größe.png")):
        Image.new("RGB", (16, 12), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def write(pictures: Path) -> Write:
    def make(name: str, text: str) -> str:
        (pictures / name).write_bytes(text.encode())
        return str(pictures / name)

    return make


def _scores(table: RatingTable) -> list[float]:
    return [round(rating.mos, 6) for rating in table]


def _problem(dataset: str, **arguments: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        load_ratings(dataset, **arguments)
    return str(caught.value)


ROWS = [("a.png", 70.0), ("b.png", 12.5), ("c.png", 99.0)]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_every_kind_of_table_gives_the_same_ratings(kind: str, pictures: Path) -> None:
    path = pictures / f"scores.{kind}"
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        lines = [f"Image{mark}MOS", *(f"{name}{mark}{score}" for name, score in ROWS)]
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    elif kind == "jsonl":
        lines = [json.dumps({"image": name, "mos": score}) for name, score in ROWS]
        path.write_text("\n".join([*lines, ""]))
    elif kind == "parquet":
        pyarrow: Any = pytest.importorskip("pyarrow")
        parquet: Any = pytest.importorskip("pyarrow.parquet")
        names, scores = zip(*ROWS, strict=True)
        parquet.write_table(pyarrow.table({"image": names, "mos": scores}), path)
    else:
        openpyxl: Any = pytest.importorskip("openpyxl")
        workbook = openpyxl.Workbook()
        for row in [("image", "mos"), *ROWS]:
            workbook.active.append(row)
        workbook.save(path)
    table = load_ratings(str(path))
    assert [rating.image for rating in table] == [pictures / name for name, _ in ROWS]
    assert _scores(table) == [score for _, score in ROWS]
    assert table.keys == ("a.png", "b.png", "c.png")


def test_all_columns_range_and_direction(write: Write) -> None:
    path = write(
        "scores.csv",
        "datei,dmos,sd,ref,kind,strength,part,set\n"
        "a.png,1,0.5,house,jpeg,3,TRAIN,x\n"
        "b.png,5,,,,,val,\n",
    )
    columns = {
        "image": "Datei",
        "mos": "dmos",
        "mos_std": "sd",
        "reference_id": "ref",
        "distortion": "kind",
        "level": "strength",
        "split": "part",
        "group": "set",
    }
    table = load_ratings(path, columns=columns, score_range=(1, 5), higher_is_better=False)
    first, second = table
    assert (first.mos, first.mos_std) == (100.0, 12.5)
    assert (first.reference_id, first.distortion, first.level) == ("house", "jpeg", 3)
    assert (first.split, first.group) == ("train", "x")
    assert (second.mos, second.mos_std, second.split, second.group) == (0, None, "validation", None)
    assert table.to_own_scale([100.0, 0.0]).tolist() == [1.0, 5.0]
    assert len(load_ratings(path, columns=columns, score_range=(1, 5), dataset_split="train")) == 1


def test_latin_1_with_semicolons_and_decimal_commas(pictures: Path) -> None:
    path = pictures / "scores.csv"
    path.write_bytes("image;mos\r\nGröße.png;72,5\r\na.png;3\r\n".encode("latin-1"))
    with pytest.warns(UserWarning, match=r"row 2 is not UTF-8.*Windows-1252"):
        table = load_ratings(str(path))
    assert _scores(table) == [72.5, 3.0]
    assert table[0].image.name == "Größe.png"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,mos\na.png,good\nb.png,3", ["row 2", "'good' is not a number", "remove the row"]),
        ("image,mos\na.png,20\nb.png,nan", ["row 3", "'nan' is not a number"]),
        ("image,mos\na.png,20\nb.png,", ["row 3", "no score for b.png"]),
        ("image,mos\na.png,120\nb.png,3", ["row 2", "120", "outside", "declare the range"]),
        ("image,mos\na.png,1\nb.png,4.5", ["between 1 and 4.5", "score range 1 to 5"]),
        ("image,mos\na.png,20\nz.png,30", ["row 3", "z.png is missing", "skip bad"]),
        ("image,mos\na.png,20\na.png,30", ["row 3", "second time", "row 2", "keep one"]),
        ("image,mos\na.png,20\n./a.png,30", ["row 3", "second time"]),
        ("image,note\na.png,20", ["'mos' or 'score' is missing", "'note'", "--mos-column"]),
        ("mos\n20", ["'image'", "is missing", "--image-column"]),
        ("image,mos,level\na.png,20,high", ["row 2", "'high'", "no whole number"]),
        ("image,mos,split\na.png,20,maybe", ["row 2", "'maybe'", "train, validation or test"]),
        ("image,mos,std\na.png,20,-1", ["row 2", "standard deviation"]),
        ("image,mos\na.png,20,3", ["row 2", "3 cells under a header of 2", "quote"]),
        ("image,mos\n,20", ["row 2", "no picture is named"]),
        ("image,mos\n", ["there are none", "at least one picture"]),
        ("", ["empty", "header"]),
        ("\n \n", ["empty"]),
        ("a\0b", ["no text file"]),
    ],
)
def test_bad_tables_name_row_and_remedy(text: str, expected: list[str], write: Write) -> None:
    message = _problem(write("scores.csv", text))
    assert "scores.csv" in message
    for part in expected:
        assert part in message


def test_every_bad_row_is_found_at_once(write: Write) -> None:
    text = "image,mos\n" + "".join(f"z{n}.png,20\n" for n in range(9)) + "a.png,x\n"
    with pytest.raises(DatasetError, match=r"10 problems(.|\n)*and 5 more") as caught:
        load_ratings(write("scores.csv", text))
    assert len(caught.value.problems) == 10


def test_skip_bad_counts_and_lists(pictures: Path, write: Write) -> None:
    (pictures / "empty.png").touch()
    whole = (pictures / "a.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "whole.jpg")
    (pictures / "cut.jpg").write_bytes((pictures / "whole.jpg").read_bytes()[:2000])
    assert whole
    path = write("s.csv", "image,mos\na.png,20\nz.png,30\nempty.png,40\ncut.jpg,50\n")
    table = load_ratings(path, skip_bad=True)
    assert _scores(table) == [20.0, 50.0]
    assert [problem.where for problem in table.skipped] == ["s.csv, row 3", "s.csv, row 4"]
    with pytest.raises(DatasetError, match=r"cut\.jpg.*skip bad"):
        check_pictures(table)
    decoded = check_pictures(table, skip_bad=True)
    assert _scores(decoded) == [20.0]
    assert len(decoded.skipped) == 3
    # What a user must not miss is no matter of one picture.
    assert "not a number" in _problem(write("t.csv", "image,mos\na.png,x\n"), skip_bad=True)
    assert "missing" in _problem(write("u.csv", "image,mos\nz.png,5\n"), skip_bad=True)


def test_two_files_with_one_name(pictures: Path, write: Write) -> None:
    for folder in ("one", "two"):
        (pictures / "all" / folder).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(pictures / "all" / folder / "x.png")
    path = write("scores.csv", "image,mos\nx.png,20\n")
    assert "two files with one name" in _problem(path, data_dir=pictures / "all")
    (pictures / "all" / "two" / "x.png").unlink()
    found = load_ratings(path, data_dir=pictures / "all")
    assert found[0].image == pictures / "all" / "one" / "x.png"
    Image.new("RGB", (9, 9)).save(pictures / "A.png")
    both = write("both.csv", "image,mos\na.png,20\nA.png,30\n")
    assert "one name but for upper case" in _problem(both)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("s.xlsx", b"PK not a zip", "no readable workbook"),
        ("s.parquet", b"PAR1", "no readable parquet"),
        ("s.jsonl", b"{]", "row 1 is no JSON"),
        ("s.jsonl", b"[1]", "no JSON object"),
        ("s.jsonl", b"", "empty"),
        ("s.ods", b"x", "not read"),
    ],
)
def test_unreadable_tables(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    assert expected in _problem(str(tmp_path / name))


def test_image_folder(pictures: Path) -> None:
    root = pictures / "folder"
    for split, names in (("train", "ab"), ("test", "c")):
        (root / split).mkdir(parents=True)
        for name in names:
            (pictures / f"{name}.png").rename(root / split / f"{name}.png")
        rows = "".join(f"{name}.png,{50 + n}\n" for n, name in enumerate(names))
        (root / split / "metadata.csv").write_text(f"file_name,mos\n{rows}")
    Image.new("RGB", (9, 9)).save(root / "test" / "unrated.png")
    table = load_ratings(str(root))
    assert {rating.image.name: rating.split for rating in table} == {
        "a.png": "train",
        "b.png": "train",
        "c.png": "test",
    }
    assert table.extra == (root / "test" / "unrated.png",)
    assert table.keys == ("test/c.png", "train/a.png", "train/b.png")
    assert len(load_ratings(str(root), dataset_split="test")) == 1
    assert "no rows in the official split 'validation'" in _problem(
        str(root), dataset_split="validation"
    )


def test_useless_names_and_folders(pictures: Path, tmp_path_factory: Any) -> None:
    empty = tmp_path_factory.mktemp("nothing")
    assert "the folder is empty" in _problem(str(empty))
    (empty / "notes.txt").write_text("x")
    assert "no pictures" in _problem(str(empty))
    assert "no metadata.csv" in _problem(str(pictures))
    assert "no such file" in _problem(str(pictures / "none.csv"))
    assert "no such file, folder, known set" in _problem("./nowhere/at all")
    with pytest.raises(ValueError, match="choose from image, mos"):
        load_ratings(str(pictures), columns={"score": "x"})


def test_hub_dataset_without_a_connection() -> None:
    pytest.importorskip("datasets")
    message = _problem("somebody/no-such-dataset")
    assert "cannot load it" in message
    assert "check the name, the connection" in message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused_where_they_are_read(kind: str, pictures: Path) -> None:
    names = ["image", "mos", "MOS", "note", "note"]
    row = ["a.png", "70", "50", "1", "2"]
    path = pictures / f"twice.{kind}"
    if kind == "csv":
        path.write_text("\n".join(",".join(cells) for cells in (names, row)))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [pa.array([cell]) for cell in row]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    found = _problem(str(path))
    assert "2 columns are named 'mos'" in found and "rename" in found
    assert "note" not in found


def test_nan_and_infinity_in_a_text_column(write: Write) -> None:
    rows = [
        '{"image": "a.png", "mos": 70, "group": NaN}',
        '{"image": "b.png", "mos": 60, "group": 7.0}',
        '{"image": "c.png", "mos": 50, "group": Infinity}',
    ]
    table = load_ratings(write("text.jsonl", "\n".join(rows)))
    assert [rating.group for rating in table] == [None, "7", "inf"]


def test_bytes_in_a_table_are_pictures_and_lists_are_not(pictures: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = [(pictures / name).read_bytes() for name in ("a.png", "b.png")]
    pq.write_table(pa.table({"image": content, "mos": [70.0, 60.0]}), pictures / "bytes.parquet")
    table = load_ratings(str(pictures / "bytes.parquet"), cache_dir=tmp_path / "cache")
    assert [Path(rating.image).read_bytes() for rating in table] == content
    lists = pa.table({"image": [["a.png"]], "mos": [70.0]})
    pq.write_table(lists, pictures / "lists.parquet")
    assert "type list is neither a path nor a picture" in _problem(str(pictures / "lists.parquet"))
