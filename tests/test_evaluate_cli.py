"""`pfd-iqa evaluate`, `calibrate` and `compare`, as people type them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.splits import make_splits, save_splits

Run = Callable[..., tuple[int, str, str]]
PICTURES = 24


@pytest.fixture(scope="module")
def scores(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 24 pictures of a photograph with noise or blur, scored from 1 to 5."""
    folder = tmp_path_factory.mktemp("mine")
    small = Image.fromarray(photograph).resize((96, 84))
    rows = []
    for number in range(PICTURES):
        strength = number // 2
        picture = np.asarray(small).astype(np.float64)
        if number % 2:
            picture += np.random.default_rng(number).normal(0, 1 + 5 * strength, picture.shape)
            picture = np.clip(picture, 0, 255)
        else:
            shrunk = small.resize((96 // (1 + strength), 84 // (1 + strength)))
            picture = np.asarray(shrunk.resize((96, 84))).astype(np.float64)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number}.png")
        split = "test" if number % 3 == 0 else "train"
        kind = ("blur", "noise")[number % 2]
        rows.append([f"{number}.png", 5 - 4 * strength / 12, kind, 1 + strength // 4, split])
    with open(folder / "scores.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["image", "mos", "distortion", "level", "split"], *rows])
    return folder / "scores.csv"


@pytest.fixture
def pfd_iqa(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with the tiny model: exit code, output and messages without line breaks."""

    def _run(command: str, *arguments: object, model: bool = True) -> tuple[int, str, str]:
        options = ["--model", str(tiny_checkpoint), "--device", "cpu"] if model else []
        code = run([command, *map(str, arguments), *options])
        captured = capsys.readouterr()
        # Errors come in a frame as wide as the terminal.
        return code, captured.out, " ".join(captured.err.replace("│", " ").split())

    return _run


RANGE = ("--score-range", "1", "5")


def test_evaluate_writes_everything_and_its_predictions_can_be_evaluated_again(
    scores: Path, pfd_iqa: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, _ = pfd_iqa(
        "evaluate",
        "--dataset",
        scores,
        *RANGE,
        "--output-dir",
        out,
        "--own-scale",
        "--group-by",
        "distortion",
        "--bootstrap",
        "20",
        "--batch-size",
        "5",
    )
    assert code == 0
    for part in ("24 pictures", "SRCC", "PLCC after logistic4", "1 to 5, higher is better"):
        assert part in text
    assert "Within each distortion" in text and "distortion blur" in text
    names = {"report.json", "predictions.parquet", "scatter.png", "calibration.png"}
    assert {path.name for path in out.iterdir()} == names
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["run"]["part"] == "all pictures" and report["run"]["model_sha256"]
    columns = pq.read_table(out / "predictions.parquet").to_pydict()
    assert len(columns["own_score"]) == PICTURES and max(columns["own_score"]) <= 5

    code, again, _ = pfd_iqa(
        "evaluate", "--predictions", out / "predictions.parquet", "--group-by", "distortion",
        "--bootstrap", "20", "--output-dir", tmp_path / "again", model=False,
    )  # fmt: skip
    assert code == 0 and again == text
    repeated = json.loads((tmp_path / "again" / "report.json").read_text("utf-8"))
    assert repeated == report


def test_evaluate_takes_the_part_it_is_told(scores: Path, pfd_iqa: Run, tmp_path: Path) -> None:
    options = ["--dataset", scores, *RANGE, "--bootstrap", "0", "--logistic", "5"]
    code, text, errors = pfd_iqa("evaluate", *options, "--official-split", "test")
    assert code == 0 and "8 pictures; official split, test" in text and "logistic5" in text
    assert "note" not in errors.replace("notes", "")
    code, text, errors = pfd_iqa("evaluate", *options)
    assert "has an official split (test, train) and all of it is evaluated" in errors

    table = load_ratings(str(scores), score_range=(1, 5))
    splits = make_splits(table, repeats=2, shares=(0.5, 0.0, 0.5), group_by=None)
    save_splits(tmp_path / "splits.json", table, splits)
    with_file = [*options, "--split-file", tmp_path / "splits.json"]
    code, text, _ = pfd_iqa("evaluate", *with_file, "--split-index", "1")
    assert code == 0 and "12 pictures; splits.json, split 1, test" in text
    code, _, errors = pfd_iqa("evaluate", *with_file, "--split-index", "2")
    assert code == 64 and "has 2 splits" in errors
    code, _, errors = pfd_iqa("evaluate", *with_file, "--official-split", "test")
    assert code == 64 and "one kind of split only" in errors


def test_evaluate_names_what_is_wrong(scores: Path, pfd_iqa: Run, tmp_path: Path) -> None:
    for arguments, message in (
        ([], "give either --dataset"),
        (["--dataset", scores, "--predictions", "x.parquet"], "give either --dataset"),
        (["--predictions", tmp_path / "no.parquet"], "there is no such file"),
        (["--dataset", scores], "declare the scale"),
        (["--dataset", scores, *RANGE, "--group-by", "reference_id"], "no picture has a"),
        (["--dataset", scores, *RANGE, "--dtype", "int8"], "not one of fp32"),
        (["--dataset", scores, *RANGE, "--output-dir", scores], "cannot write to"),
    ):
        code, _, errors = pfd_iqa("evaluate", *arguments, model="--predictions" not in arguments)
        assert code == 64 and message in errors, errors
    code, _, errors = pfd_iqa("evaluate", "--predictions", "x.parquet")
    assert code == 64 and "leave out --model" in errors


def test_evaluate_and_a_torn_picture(scores: Path, pfd_iqa: Run, tmp_path: Path) -> None:
    for path in scores.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:300])
    options = ["--dataset", tmp_path / "scores.csv", *RANGE, "--bootstrap", "0"]
    code, _, errors = pfd_iqa("evaluate", *options)
    assert code == 64 and "7.png" in errors and "--skip-bad" in errors
    code, text, errors = pfd_iqa("evaluate", *options, "--skip-bad")
    assert code == 0 and "23 pictures" in text
    assert "1 pictures could not be read" in errors and "7.png" in errors


def test_calibrate_then_score_on_the_own_scale(
    scores: Path, pfd_iqa: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    file = tmp_path / "calibration.json"
    code, text, errors = pfd_iqa("calibrate", scores, *RANGE, "--output", file)
    assert code == 0 and "24 pictures, SRCC" in text and "your scale of 1 to 5" in text
    assert "24 rated pictures are few" in errors and f"--calibration {file}" in errors

    picture = scores.parent / "0.png"
    (tmp_path / "torn.jpg").write_bytes(b"")
    code, text, _ = pfd_iqa(
        "score", picture, tmp_path / "torn.jpg", "--calibration", file, "--format", "jsonl"
    )
    first, second = (json.loads(line) for line in text.splitlines())
    assert 1 <= first["own_low"] <= first["own_score"] <= first["own_high"] <= 5
    assert second["own_score"] is None and second["error"]
    for kind in ("csv", "parquet"):
        out = tmp_path / f"records.{kind}"
        code, _, _ = pfd_iqa("score", picture, "--calibration", file, "--output", out)
        assert code == 0
    header = (tmp_path / "records.csv").read_text().splitlines()[0]
    assert header.endswith("version,own_score,own_low,own_high")
    assert pq.read_table(tmp_path / "records.parquet").column_names[-1] == "own_high"
    code, text, _ = pfd_iqa("score", picture, "--calibration", file)
    assert "own scale" in text
    code, text, _ = pfd_iqa("score", picture, "--format", "jsonl")
    assert "own_score" not in text

    code, _, errors = pfd_iqa("score", picture, "--calibration", file, "--views", "fast")
    assert code == 64 and "was made for the views standard" in errors and "--views" in errors
    fast = tmp_path / "fast.json"
    code, _, _ = pfd_iqa("calibrate", scores, *RANGE, "--output", fast, "--views", "fast")
    assert code == 0
    code, _, _ = pfd_iqa("score", picture, "--calibration", fast, "--views", "fast")
    assert code == 0
    code, _, errors = pfd_iqa("evaluate", "--dataset", scores, "--views", "none")
    assert code == 64 and "'none' is not one of fast, standard" in errors
    code, _, errors = pfd_iqa("score", picture, "--calibration", scores)
    assert code == 64 and "not a calibration" in errors


def test_calibrate_needs_enough_pictures_and_lies_beside_the_model(
    scores: Path, pfd_iqa: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    lines = scores.read_text().splitlines()
    few = scores.parent / "few.csv"
    few.write_text("\n".join(lines[:11]))
    code, _, errors = pfd_iqa("calibrate", few, *RANGE)
    assert code == 64 and "10 rated pictures are too few" in errors and "at least 20" in errors
    code, _, errors = pfd_iqa("calibrate", scores, *RANGE, "--coverage", "0.97")
    assert code == 64 and "97% intervals need at least 33" in errors
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_checkpoint.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    code = run(["calibrate", str(scores), *RANGE, "--model", str(model), "--device", "cpu"])
    assert code == 0 and (model / "calibration.json").is_file()
    code, _, errors = pfd_iqa("calibrate", scores, *RANGE, "--output", tmp_path)
    assert code == 64 and "is a folder; name a file in it" in errors


def test_compare_two_and_rank_more(scores: Path, pfd_iqa: Run, tmp_path: Path) -> None:
    a, b = scores.parent / "0.png", scores.parent / "23.png"
    code, text, _ = pfd_iqa("compare", a, b)
    assert code == 0 and "looks better, probability 0." in text and "±" in text
    code, forth, _ = pfd_iqa("compare", a, b, "--json")
    _, back, _ = pfd_iqa("compare", b, a, "--json")
    first, second = json.loads(forth), json.loads(back)
    assert [e["path"] for e in first["ranking"]] == [e["path"] for e in second["ranking"]]
    best = first["ranking"][0]
    assert 0.5 <= best["better_than_next"] < 1 and first["model_sha256"]
    code, text, _ = pfd_iqa("compare", scores.parent)
    assert code == 0 and "beats next" in text and text.count(".png") == PICTURES
    (tmp_path / "torn.jpg").write_bytes(b"")
    code, _, errors = pfd_iqa("compare", a, tmp_path / "torn.jpg")
    assert code == 1 and "torn.jpg" in errors
    code, _, errors = pfd_iqa("compare", a, a)
    assert code == 64 and "a comparison needs two" in errors
