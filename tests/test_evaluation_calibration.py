"""Fifty own scores give a map and intervals that hold what they promise."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pfd_iqa_hf.evaluation.calibration import (
    KNOTS,
    Calibration,
    fit_calibration,
    fit_monotone_curve,
    load_calibration,
    save_calibration,
)


def _drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A user who is stricter than the model below 60, with noise that grows with its σ."""
    score = np.clip(generator.normal(55, 15, count), 0, 100)
    sigma = generator.uniform(5, 12, count)
    truth = 100 / (1 + np.exp(-(score - 60) / 9))
    return score, sigma, np.clip(truth + 1.3 * sigma * generator.normal(size=count), 0, 100)


def test_intervals_of_fifty_pictures_cover_what_they_state() -> None:
    generator = np.random.default_rng(0)
    covered: dict[float, list[float]] = {0.8: [], 0.5: []}
    for _ in range(12):
        fitted = fit_calibration(*_drawn(generator, 50))
        score, sigma, opinion = _drawn(generator, 500)
        for coverage, shares in covered.items():
            _, low, high = replace(fitted, coverage=coverage).apply(score, sigma)
            shares.append(float(np.mean((low <= opinion) & (opinion <= high))))
    # One calibration set of 50 moves the coverage by about 5 %; the mean of twelve by 1.5 %.
    assert np.mean(covered[0.8]) == pytest.approx(0.8, abs=0.05)
    assert np.mean(covered[0.5]) == pytest.approx(0.5, abs=0.06)


def test_the_map_never_falls_and_beats_leaving_the_scores_alone() -> None:
    generator = np.random.default_rng(1)
    calibration = fit_calibration(*_drawn(generator, 60))
    assert np.all(np.diff(calibration.values) >= 0)
    score, sigma, opinion = _drawn(generator, 2000)
    own, low, high = calibration.apply(score, sigma)
    assert np.all((low <= own) & (own <= high) & (low >= 0) & (high <= 100))
    assert np.mean((own - opinion) ** 2) < 0.7 * np.mean((score - opinion) ** 2)
    fit = calibration.facts["fit"]
    assert fit["rmse_cross_validated"] < fit["rmse_of_the_mean"]
    # A surer picture has a narrower interval.
    _, narrow_low, narrow_high = calibration.apply(60.0, 5.0)
    _, wide_low, wide_high = calibration.apply(60.0, 12.0)
    assert narrow_high - narrow_low < wide_high - wide_low


def test_own_scale_and_direction() -> None:
    known = _drawn(np.random.default_rng(2), 50)
    plain = fit_calibration(*known)
    grades = fit_calibration(*known, score_range=(1, 6), higher_is_better=False)
    own, low, high = plain.apply([20.0, 80.0], [8.0, 8.0])
    grade, grade_low, grade_high = grades.apply([20.0, 80.0], [8.0, 8.0])
    np.testing.assert_allclose(grade, 6 - own / 20)
    np.testing.assert_allclose(grade_low, 6 - high / 20)
    np.testing.assert_allclose(grade_high, 6 - low / 20)
    assert grade[0] > grade[1] and np.all(grade_low < grade_high)


def test_a_stiff_curve_is_the_regression_line_and_goes_straight_on() -> None:
    x = np.random.default_rng(4).uniform(40, 60, 40)
    y = 3 + 0.8 * x
    np.testing.assert_allclose(fit_monotone_curve(x, y, 1e6), 3 + 0.8 * KNOTS, atol=1e-6)
    falling = fit_monotone_curve(x, -y, 10.0)
    np.testing.assert_allclose(falling, -y.mean(), atol=1e-6)


def test_file_round_trip_and_what_is_none(tmp_path: Path) -> None:
    known = _drawn(np.random.default_rng(5), 50)
    calibration = fit_calibration(*known, facts={"model_sha256": "abc", "view_strategy": "fast"})
    file = tmp_path / "calibration.json"
    save_calibration(file, calibration)
    again = load_calibration(file)
    assert again == calibration
    again.check_model("abc", "fast")
    with pytest.raises(ValueError, match="weights abc, these are def"):
        again.check_model("def", "fast")
    with pytest.raises(ValueError, match="views fast, these are standard"):
        again.check_model("abc", "standard")
    content = json.loads(file.read_text())
    for broken in (
        "",
        "[]",
        "{}",
        json.dumps({**content, "values": [1]}),
        json.dumps({"format": 1}),
    ):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(ValueError, match="broken.json: not a calibration.*pfd-iqa calibrate"):
            load_calibration(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="cannot be read"):
        load_calibration(tmp_path / "missing.json")


def test_records_get_three_fields() -> None:
    calibration = fit_calibration(*_drawn(np.random.default_rng(6), 50), score_range=(1, 5))
    good = {"score": 55.0, "uncertainty": 7.0}
    calibration.add_to(good)
    assert 1 <= good["own_low"] < good["own_score"] < good["own_high"] <= 5
    bad = {"score": None, "uncertainty": None}
    calibration.add_to(bad)
    assert bad["own_score"] is None and bad["own_high"] is None


def test_too_little_to_go_by_is_said() -> None:
    generator = np.random.default_rng(7)
    with pytest.raises(ValueError, match="19 rated pictures are too few.*at least 20"):
        fit_calibration(*_drawn(generator, 19))
    with pytest.raises(ValueError, match="95% intervals need at least 19|at least 20"):
        fit_calibration(*_drawn(generator, 10), coverage=0.95)
    with pytest.raises(ValueError, match="99% intervals need at least 99"):
        fit_calibration(*_drawn(generator, 60), coverage=0.99)
    with pytest.warns(UserWarning, match="30 rated pictures are few"):
        fit_calibration(*_drawn(generator, 30))
    score, sigma, opinion = _drawn(generator, 60)
    with pytest.raises(ValueError, match="all own scores are equal"):
        fit_calibration(score, sigma, np.full(60, 50.0))
    with pytest.raises(ValueError, match="not finite"):
        fit_calibration(score, sigma, np.where(opinion > 50, math.nan, opinion))
    with pytest.raises(ValueError, match="59 opinions"):
        fit_calibration(score, sigma, opinion[1:])


def test_scores_in_the_wrong_direction_are_noticed() -> None:
    score, sigma, opinion = _drawn(np.random.default_rng(8), 60)
    with pytest.warns(UserWarning, match="say that lower is better"):
        fitted = fit_calibration(score, sigma, 100 - opinion)
    assert isinstance(fitted, Calibration)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_calibration(score, sigma, opinion)
