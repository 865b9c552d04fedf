"""Stored predictions give the same report again, and wrong files are named."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pfd_iqa_hf.data.table import Rating, RatingTable
from pfd_iqa_hf.evaluation.predictions import (
    RatedPredictions,
    read_predictions,
    write_predictions,
)
from pfd_iqa_hf.evaluation.report import evaluate_predictions, write_report


@pytest.fixture
def rated(tmp_path: Path) -> RatedPredictions:
    """A set with DMOS-like labels from 1 (best) to 5, of two distortions at three levels."""
    generator = np.random.default_rng(0)
    ratings = tuple(
        Rating(
            tmp_path / "set" / f"picture {number}.png",
            float(generator.uniform(0, 100)),
            mos_std=10.0 if number % 2 else None,
            reference_id=f"r{number % 6}",
            distortion=("blur", "noise")[number % 2],
            level=1 + number % 3,
        )
        for number in range(60)
    )
    table = RatingTable("sixty", ratings, (1.0, 5.0), False, root=tmp_path / "set")
    score = np.clip(np.array([r.mos for r in ratings]) + generator.normal(0, 10, 60), 0, 100)
    levels = generator.dirichlet(np.ones(5), 60)
    distortions = generator.dirichlet(np.ones(12), 60)
    facts = {"model": "tiny", "model_sha256": "0123", "interval_factors": {"0.8": 1.3}}
    return RatedPredictions(table, score, np.full(60, 10.0), levels, distortions, facts)


def test_round_trip_gives_the_same_report(rated: RatedPredictions, tmp_path: Path) -> None:
    write_predictions(tmp_path / "predictions.parquet", rated, own_scale=True)
    again = read_predictions(tmp_path / "predictions.parquet")
    assert again.table.keys == rated.table.keys
    first, second = (
        evaluate_predictions(each, group_by="distortion", resamples=20) for each in (rated, again)
    )
    assert json.dumps(first.as_dict()) == json.dumps(second.as_dict())
    columns = pq.read_table(tmp_path / "predictions.parquet").to_pydict()
    np.testing.assert_allclose(columns["own_mos"], 5 - 4 * rated.mos / 100)
    np.testing.assert_allclose(columns["own_uncertainty"], 0.4)
    assert columns["image"][0] == "picture 0.png"


def test_report_says_everything(rated: RatedPredictions, tmp_path: Path) -> None:
    report = evaluate_predictions(rated, resamples=20)
    # RMSE is in the set's own scale: 4 units are 100 points.
    points = np.sqrt(np.mean((rated.score - rated.mos) ** 2))
    assert report.overall.rmse.value == pytest.approx(points / 25)
    assert report.overall.srcc.value > 0.8
    assert list(report.breakdowns) == ["distortion", "level"] and report.group_by is None
    assert list(report.breakdowns["level"].groups) == ["1", "2", "3"]
    assert report.uncertainty is not None and not report.uncertainty.groups
    assert report.uncertainty.coverage[1].width == pytest.approx(2 * 1.3 * 10)
    by_distortion = evaluate_predictions(rated, group_by="distortion", resamples=0)
    assert by_distortion.uncertainty is not None
    assert list(by_distortion.uncertainty.groups) == ["blur", "noise"]
    by_reference = evaluate_predictions(rated, group_by="reference_id", resamples=0)
    assert len(by_reference.breakdowns["reference_id"].groups) == 6
    files = write_report(tmp_path / "out", rated, report, own_scale=True)
    names = ["predictions.parquet", "report.json", "scatter.png", "calibration.png"]
    assert [file.name for file in files] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    content = json.loads(files[1].read_text("utf-8"))
    assert content["agreement"]["srcc"]["value"] == report.overall.srcc.value
    assert content["run"]["model_sha256"] == "0123"
    for file in files[2:]:
        with Image.open(file) as picture:
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 10


def test_groups_that_are_not_there(rated: RatedPredictions) -> None:
    with pytest.raises(ValueError, match="no picture has a group; group by distortion, level"):
        evaluate_predictions(rated, group_by="group")
    with pytest.raises(ValueError, match="no picture has a colour"):
        evaluate_predictions(rated, group_by="colour")


def test_predictions_of_other_models_need_three_columns_only(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    mos = generator.uniform(0, 100, 30)
    table = pa.table({"image": [f"{i}.jpg" for i in range(30)], "mos": mos, "score": mos / 2 + 9})
    pq.write_table(table, tmp_path / "other.parquet")
    rated = read_predictions(tmp_path / "other.parquet")
    report = evaluate_predictions(rated, resamples=0)
    assert report.uncertainty is None and report.overall.srcc.value == pytest.approx(1)
    files = write_report(tmp_path / "out", rated, report)
    assert [file.name for file in files][-1] == "scatter.png"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["a"], "mos": [1.0]}, "no column score"),
        ({"image": ["a"], "mos": ["x"], "score": [1.0]}, "row 1: mos is 'x'"),
        ({"image": ["a", None], "mos": [1.0, 2.0], "score": [1.0, 2.0]}, "row 2: no image"),
        ({"image": ["a"], "mos": [1.0], "score": [None]}, "row 1: score is None"),
        ({"image": [], "mos": [], "score": []}, "has no rows"),
    ],
)
def test_wrong_files_are_named(columns: dict, message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match=f"wrong.parquet.*{message}"):
        read_predictions(tmp_path / "wrong.parquet")
    (tmp_path / "text.parquet").write_text("image,mos,score")
    with pytest.raises(ValueError, match="not a parquet file"):
        read_predictions(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="there is no such file"):
        read_predictions(tmp_path / "none.parquet")
