"""What is published must come back as it was, and the commands must say what they did."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pfd_iqa_cli.main import WRONG_USAGE, run
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.publish import write_parquet_dataset
from pfd_iqa_hf.data.splits import load_splits
from pfd_iqa_hf.data.table import DatasetError

datasets: Any = pytest.importorskip("datasets")


@pytest.fixture
def table_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    lines = ["image,mos,mos_std,reference,distortion,level,split,group"]
    for number in range(9):
        name = f"pictures/{number % 3}/{number}.png"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number, 50, 0)).save(tmp_path / name)
        split = ("train", "validation", "test")[number % 3]
        lines.append(f"{name},{1 + number / 4},0.5,r{number},jpeg,2,{split},g")
    # One picture under two names is one file in the cache, and two rows.
    (tmp_path / "pictures" / "0" / "9.png").write_bytes(
        (tmp_path / "pictures" / "0" / "0.png").read_bytes()
    )
    lines.append("pictures/0/9.png,5,0.5,r0,jpeg,2,train,g")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    return tmp_path / "scores.csv"


def _facts(table: Any) -> list[tuple[Any, ...]]:
    rows = zip(table.keys, table, strict=True)
    return sorted(
        (key, r.mos, r.mos_std, r.reference_id, r.distortion, r.level, r.split, r.group)
        for key, r in rows
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_published_set_comes_back_as_it_was(
    table_file: Path, tmp_path: Path, streaming: bool
) -> None:
    table = load_ratings(str(table_file), score_range=(1, 5))
    folder = write_parquet_dataset(table, tmp_path / "set", license="cc0-1.0", shard_bytes=200)
    assert len(list((folder / "data").glob("train-*.parquet"))) > 1
    loaded = datasets.load_dataset(str(folder))
    assert {name: len(part) for name, part in loaded.items()} == {
        "train": 4,
        "validation": 3,
        "test": 3,
    }
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    assert loaded["test"][0]["image"].size == (20, 10)
    again = load_ratings(str(folder), streaming=streaming)
    assert _facts(again) == _facts(table)
    assert again.fingerprint == table.fingerprint
    pixels = {key: r.image.read_bytes() for key, r in zip(again.keys, again, strict=True)}
    for key, rating in zip(table.keys, table, strict=True):
        assert pixels[key] == rating.image.read_bytes()
    assert len({rating.image for rating in again}) == 9
    assert len(load_ratings(str(folder), dataset_split="test")) == 3
    with pytest.raises(DatasetError, match=r"no split 'dev' \(splits: train"):
        load_ratings(str(folder), dataset_split="dev")


def test_card_states_scale_splits_and_licence(table_file: Path, tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    table = load_ratings(str(table_file), score_range=(1, 5), higher_is_better=False)
    folder = write_parquet_dataset(table, tmp_path / "set", license="cc-by-4.0")
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "image-quality-assessment" in card.data.tags
    assert "| train | 4 |" in card.text
    assert "from 1 to 5, lower is better: own score = 1 + 4 × (1 - mos / 100)" in card.text
    names = [feature["name"] for feature in card.data.to_dict()["dataset_info"]["features"]]
    assert names[:2] == ["image", "mos"]


def test_saved_datasets_folder_and_unnamed_pictures(table_file: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (12, 12), "red")
    features = datasets.Features({"photo": datasets.Image(), "score": datasets.Value("float32")})
    content = {"photo": [picture, picture], "score": [10.0, 90.0]}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "saved")
    table = load_ratings(str(tmp_path / "saved"), cache_dir=tmp_path / "cache")
    assert [rating.mos for rating in table] == [10.0, 90.0]
    assert len(set(table.keys)) == 2
    assert table[0].image.is_relative_to(tmp_path / "cache")
    assert table[0].split is None


def test_a_folder_that_is_not_empty_is_left_alone(table_file: Path, tmp_path: Path) -> None:
    table = load_ratings(str(table_file), score_range=(1, 5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(DatasetError, match="not empty"):
        write_parquet_dataset(table, tmp_path / "full")
    table[0].image.unlink()
    with pytest.raises((DatasetError, OSError)):
        write_parquet_dataset(table, tmp_path / "new")
    assert not list(tmp_path.glob("*new*")) and not list(tmp_path.glob(".new*"))


def test_data_command(table_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data", "--dataset", str(table_file), "--score-range", "1", "5"]
    splits, folder = tmp_path / "splits.json", tmp_path / "set"
    more = ["--splits", str(splits), "--repeats", "2", "--to", "parquet"]
    assert run([*given, *more, "--output-dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "10 pictures" in out and "scores 1 to 5 on 1 to 5" in out
    assert json.loads(splits.read_text())["facts"]["group_by"] == "reference_id"
    assert len(load_splits(splits, load_ratings(str(folder)))) == 2
    assert run([*given, "--to", "parquet"]) == WRONG_USAGE
    assert "--output-dir" in capsys.readouterr().err
    plain = table_file.with_name("plain.csv")
    rows = [line.split(",")[:2] for line in table_file.read_text().splitlines()]
    plain.write_text("\n".join(",".join(row) for row in rows))
    of_plain = ["data", "--dataset", str(plain), "--score-range", "1", "5"]
    assert run([*of_plain, "--splits", str(splits), "--group-by", "group"]) == 0
    assert "has a group" in capsys.readouterr().err
    (table_file.parent / "file").write_text("in the way")
    assert run([*given, "--splits", str(table_file.parent / "file" / "x.json")]) == WRONG_USAGE
    assert "--splits" in capsys.readouterr().err


def test_data_command_names_bad_rows_and_lists_skips(
    table_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data", "--dataset", str(table_file), "--score-range", "1", "5"]
    (table_file.parent / "pictures" / "1" / "4.png").write_bytes(b"\x89PNG broken")
    (table_file.parent / "pictures" / "1" / "7.png").unlink()
    assert run(given) == WRONG_USAGE
    assert "row 9" in " ".join(capsys.readouterr().err.split())
    assert run([*given, "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert "2 pictures skipped" in captured.err
    assert "4.png" in captured.err and "7.png" in captured.err
    assert "8 pictures" in captured.out


def test_distort_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (32, 24), "teal").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    given = ["distort", str(tmp_path / "a.png"), "--type", "jpeg", "--output-dir", str(out)]
    assert run([*given, "--level", "2", "--level", "5"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a_jpeg_2.png", "a_jpeg_5.png"]
    assert run([*given, str(tmp_path / "b.png"), "--level", "1"]) == 1
    assert "b.png" in capsys.readouterr().err
    assert run(["distort", str(tmp_path / "a.png"), "--type", "blurr"]) == WRONG_USAGE
    Image.new("RGB", (32, 24), "red").save(tmp_path / "a.jpg")
    assert run([*given, str(tmp_path / "a.jpg")]) == WRONG_USAGE
    assert "copies of one name" in " ".join(capsys.readouterr().err.split())


def test_contact_sheet_shows_every_type_and_level(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    from pfd_iqa_hf.data.contact_sheet import contact_sheet

    sheet = contact_sheet(Image.linear_gradient("L").resize((40, 30)), cell=(24, 16))
    assert sheet.width > 10 * 24
    assert sheet.height > 13 * 16
