"""A picture on both sides of a split makes a result worthless, and nobody can see it afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pfd_iqa_hf.data.splits import (
    Split,
    check_leakage,
    load_splits,
    make_splits,
    official_split,
    save_splits,
)
from pfd_iqa_hf.data.table import DatasetError, Rating, RatingTable


def _table(folder: Path, count: int = 40, references: int | None = 10) -> RatingTable:
    folder.mkdir()
    ratings = []
    for number in range(count):
        path = folder / f"{number:02}.png"
        Image.new("RGB", (8, 8), (number, 1, 2)).save(path)
        reference = None if references is None else f"ref{number % references}"
        ratings.append(Rating(path, float(number), reference_id=reference))
    return RatingTable("forty", tuple(ratings))


def test_splits_are_partitions_by_reference(tmp_path: Path) -> None:
    table = _table(tmp_path / "a")
    splits = make_splits(table, 5, (0.6, 0.1, 0.3), seed=3)
    assert len(set(splits)) == 5
    for split in splits:
        assert sorted(split.train + split.validation + split.test) == list(range(40))
        assert [len(rows) for rows in split.parts().values()] == [24, 4, 12]
        sides = [{table[row].reference_id for row in rows} for rows in split.parts().values()]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
        check_leakage(table, split)
    assert make_splits(table, 2, (0.6, 0.1, 0.3), seed=3) == splits[:2]
    assert make_splits(table, 5, (0.6, 0.1, 0.3), seed=4) != splits


def test_splits_depend_neither_on_order_nor_on_place(tmp_path: Path) -> None:
    here = _table(tmp_path / "a", references=None)
    there = _table(tmp_path / "b", references=None)
    backwards = replace(there, ratings=there.ratings[::-1])
    for one, other in zip(make_splits(here, 3), make_splits(backwards, 3), strict=True):
        assert {here.keys[row] for row in one.test} == {backwards.keys[row] for row in other.test}


def test_identical_files_stay_together_and_leak_otherwise(tmp_path: Path) -> None:
    table = _table(tmp_path / "a", 10, references=None)
    shutil.copy(table[3].image, tmp_path / "a" / "copy.png")
    table = replace(table, ratings=(*table.ratings, Rating(tmp_path / "a" / "copy.png", 3.0)))
    for split in make_splits(table, 20, (0.5, 0.0, 0.5)):
        assert (3 in split.test) == (10 in split.test)
    bad = Split((0, 1, 2, 3), (), (9, 10))
    with pytest.raises(DatasetError, match=r"copy\.png \(test\) and 03\.png \(train\).*identical"):
        check_leakage(table, bad)
    with pytest.raises(DatasetError, match=r"00\.png.*in train and in test"):
        check_leakage(table, Split((0, 1), (), (0,)))


def test_a_reference_in_two_parts_is_named(tmp_path: Path) -> None:
    table = _table(tmp_path / "a", 4, references=2)
    with pytest.raises(DatasetError, match=r"02\.png \(test\) and 00\.png.*the same reference"):
        check_leakage(table, Split((0, 1), (), (2,)))


def test_any_column_groups(tmp_path: Path) -> None:
    table = _table(tmp_path / "a", 12, references=None)
    rows = tuple(replace(rating, group=str(n % 3)) for n, rating in enumerate(table))
    table = replace(table, ratings=rows)
    split = make_splits(table, 1, (2 / 3, 0.0, 1 / 3), group_by="group")[0]
    assert len({table[row].group for row in split.test}) == 1
    with pytest.raises(ValueError, match=r"'scene'.*choose one of"):
        make_splits(table, group_by="scene")
    with pytest.raises(ValueError, match="add up to 1"):
        make_splits(table, shares=(0.8, 0.1, 0.2))
    one = table.where(lambda rating: rating.group == "0")
    with pytest.raises(ValueError, match="the train part would be empty"):
        make_splits(one, group_by="group")


def test_saved_splits_serve_another_copy(tmp_path: Path) -> None:
    table, copy = _table(tmp_path / "a"), _table(tmp_path / "b")
    splits = make_splits(table, 3)
    save_splits(tmp_path / "splits.json", table, splits, {"seed": 0})
    assert load_splits(tmp_path / "splits.json", table) == splits
    backwards = replace(copy, ratings=copy.ratings[::-1])
    for one, other in zip(splits, load_splits(tmp_path / "splits.json", backwards), strict=True):
        assert {table.keys[r] for r in one.test} == {backwards.keys[r] for r in other.test}
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_splits_of_another_dataset_are_refused(tmp_path: Path) -> None:
    table = _table(tmp_path / "a")
    save_splits(tmp_path / "splits.json", table, make_splits(table, 1))
    with pytest.raises(DatasetError, match=r"splits\.json.*another dataset.*1 of its.*39\.png"):
        load_splits(tmp_path / "splits.json", table.select(range(39)))
    other = replace(table, ratings=(replace(table[0], mos=77.0), *table[1:]))
    with pytest.raises(DatasetError, match="one name but other scores"):
        load_splits(tmp_path / "splits.json", other)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": 1, "splits": [{}]}'])
def test_files_that_are_no_splits(text: str, tmp_path: Path) -> None:
    table = _table(tmp_path / "a", 4)
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DatasetError, match=r"s\.json.*no file of splits"):
        load_splits(tmp_path / "s.json", table)
    with pytest.raises(DatasetError, match="No such file"):
        load_splits(tmp_path / "none.json", table)
    save_splits(tmp_path / "s.json", table, make_splits(table, 1, (0.5, 0, 0.5)))
    content = json.loads((tmp_path / "s.json").read_text())
    content["splits"][0]["train"] = [99]
    (tmp_path / "s.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="no file of splits"):
        load_splits(tmp_path / "s.json", table)


def test_official_split(tmp_path: Path) -> None:
    table = _table(tmp_path / "a", 4)
    names = ("train", "test", "train", "validation")
    rows = [replace(rating, split=name) for rating, name in zip(table, names, strict=True)]
    assert official_split(replace(table, ratings=tuple(rows))) == Split((0, 2), (3,), (1,))
    rows[0] = replace(rows[0], split=None)
    with pytest.raises(DatasetError, match=r"00\.png: belongs to no part"):
        official_split(replace(table, ratings=tuple(rows)))
    with pytest.raises(DatasetError, match="no official split"):
        official_split(table)
