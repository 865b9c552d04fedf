"""Every table of results passes through these; checked against scipy and published examples."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from pfd_iqa_hf.evaluation.agreement import (
    agreement_within_groups,
    measure_agreement,
    natural_key,
    without_nan,
)
from pfd_iqa_hf.evaluation.logistic import LOGISTICS, fit_logistic

# Anscombe (1973), Graphs in Statistical Analysis: r = 0.816 in each of the four.
_X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
ANSCOMBE = [
    (_X, [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]),
    (_X, [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74]),
    (_X, [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73]),
    (
        [8, 8, 8, 8, 8, 8, 8, 19, 8, 8, 8],
        [6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89],
    ),
]


def _pairs(count: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    target = generator.uniform(0, 100, count)
    return 40 + 0.4 * target + generator.normal(0, 9, count), target


@pytest.mark.parametrize(("x", "y"), ANSCOMBE)
def test_published_pearson(x: list[float], y: list[float]) -> None:
    assert measure_agreement(x, y, fit=None, resamples=0).plcc.value == pytest.approx(
        0.816, abs=1e-3
    )


def test_published_rank_correlations() -> None:
    # The textbook example of IQ and hours of television: rho = -29/165.
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    found = measure_agreement(iq, hours, fit=None, resamples=0)
    assert found.srcc.value == pytest.approx(-29 / 165)
    # 20 of its 45 pairs are ordered alike.
    alike = sum((iq[i] - iq[j]) * (hours[i] - hours[j]) > 0 for i in range(10) for j in range(i))
    assert found.krcc.value == pytest.approx((2 * alike - 45) / 45)


def test_agrees_with_scipy_with_ties() -> None:
    x, y = (np.round(side / 10) for side in _pairs())
    found = measure_agreement(x, y, fit=None, resamples=0)
    assert found.srcc.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.plcc.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.krcc.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found.rmse.value == pytest.approx(np.sqrt(np.mean((x - y) ** 2)))


def test_logistic_fits_agree_with_the_definitions_fitted_from_another_start() -> None:
    x, y = _pairs()

    def four(v: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
        return (a - b) / (1 + np.exp(-(v - c) / np.abs(d))) + b

    def five(v: np.ndarray, a: float, b: float, c: float, d: float, e: float) -> np.ndarray:
        return a * (0.5 - 1 / (1 + np.exp(b * (v - c)))) + d * v + e

    starts = {
        "logistic4": (four, [y.max(), y.min(), x.mean(), x.std() / 4]),
        "logistic5": (five, [np.ptp(y), 0.1, x.mean(), 0.1, y.mean()]),
    }
    curve: Any
    for fit, (curve, start) in starts.items():
        parameters, _ = optimize.curve_fit(curve, x, y, p0=start, maxfev=50_000)
        expected = curve(x, *parameters)
        found = measure_agreement(x, y, fit=fit, resamples=0)
        assert found.plcc_fitted is not None and found.rmse_fitted is not None
        assert found.plcc_fitted.value == pytest.approx(np.corrcoef(expected, y)[0, 1], abs=1e-4)
        assert found.rmse_fitted.value <= np.sqrt(np.mean((expected - y) ** 2)) + 1e-3
        assert found.rmse_fitted.value < found.rmse.value


@pytest.mark.parametrize("kind", ["logistic4", "logistic5"])
def test_parameters_of_a_fit_are_in_the_units_of_the_scores(kind: str) -> None:
    truth = {"logistic4": (80.0, 10.0, 55.0, 6.0), "logistic5": (60.0, 0.2, 50.0, 0.3, 20.0)}[kind]
    x = np.linspace(10, 90, 60)
    y = LOGISTICS[kind](x, *truth)
    found = fit_logistic(kind, x, y)
    assert found is not None
    np.testing.assert_allclose(LOGISTICS[kind](x, *found), y, atol=1e-2)
    again = fit_logistic(kind, x, y, start=found)
    assert again is not None
    np.testing.assert_allclose(LOGISTICS[kind](x, *again), y, atol=1e-2)


def test_intervals_are_repeatable_hold_the_value_and_match_theory() -> None:
    generator = np.random.default_rng(1)
    y = generator.normal(size=400)
    x = y + generator.normal(size=400)
    found = measure_agreement(x, y, resamples=300, seed=3)
    short: dict[str, Any] = {"fit": None, "resamples": 5}
    assert measure_agreement(x, y, **short) == measure_agreement(x, y, **short)
    assert measure_agreement(x, y, **short, seed=4) != measure_agreement(x, y, **short)
    fisher = np.tanh(np.arctanh(found.plcc.value) + np.array([-1.96, 1.96]) / np.sqrt(397))
    np.testing.assert_allclose([found.plcc.lower, found.plcc.upper], fisher, atol=0.03)
    for estimate in (found.srcc, found.krcc, found.rmse, found.plcc_fitted, found.rmse_fitted):
        assert estimate is not None
        assert estimate.lower < estimate.value < estimate.upper


def test_what_is_not_defined_is_nan_with_a_warning_and_json_can_hold_it() -> None:
    for prediction, target, reason in (
        ([5.0] * 8, range(8), "all predictions are equal"),
        ([1.0, math.nan] * 4, range(8), "4 of the predictions are not finite"),
        ([], [], "at least 2 pairs"),
    ):
        with pytest.warns(UserWarning) as notes:
            found = measure_agreement(prediction, list(target), resamples=5)
        assert any(reason in str(note.message) for note in notes)
        assert math.isnan(found.srcc.value) and math.isnan(found.srcc.lower)
        assert found.as_dict()["srcc"]["value"] is None
    with pytest.warns(UserWarning, match="logistic5 fit to 5 pairs, it takes 6"):
        few = measure_agreement([1, 2, 3, 4, 6], [1, 3, 2, 5, 6], fit="logistic5", resamples=0)
    assert few.plcc_fitted is not None and math.isnan(few.plcc_fitted.value)
    assert not math.isnan(few.plcc.value)
    assert without_nan({"a": [math.inf, 1.0]}) == {"a": [None, 1.0]}


def test_within_groups_sees_through_groups_of_unlike_quality() -> None:
    # Within each group the scores are upside down; over all they look good.
    x, y, groups = [], [], []
    for number, base in enumerate((0.0, 50.0, 100.0)):
        x += [base + step for step in range(10)]
        y += [base - step for step in range(10)]
        groups += [f"{number}"] * 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = agreement_within_groups(x, y, groups, resamples=20)
        assert measure_agreement(x, y, fit=None, resamples=0).srcc.value > 0.7
    assert found.srcc.value == pytest.approx(-1)
    assert list(found.groups) == ["0", "1", "2"] and not found.left_out


def test_a_group_without_correlation_is_left_out_and_named() -> None:
    x, y = _pairs(20)
    groups = ["10"] * 10 + ["9"] * 9 + ["alone"]
    with pytest.warns(UserWarning, match="at least 2 pairs"):
        found = agreement_within_groups(x, y, groups, resamples=30)
    assert list(found.groups) == ["9", "10", "alone"]
    assert found.left_out == ["alone"]
    expected = np.mean([stats.spearmanr(x[:10], y[:10])[0], stats.spearmanr(x[10:19], y[10:19])[0]])
    assert found.srcc.value == pytest.approx(expected)
    assert found.srcc.lower <= found.srcc.value <= found.srcc.upper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": "cubic"}, "fit must be one of"),
        ({"coverage": 95}, "between 0 and 1"),
        ({"resamples": -1}, "at least 0"),
    ],
)
def test_impossible_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_agreement([1, 2], [1, 2], **arguments)
    with pytest.raises(ValueError, match="3 predictions for 2"):
        measure_agreement([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="2 predictions for 1 group names"):
        agreement_within_groups([1, 2], [1, 2], ["a"])


def test_natural_order() -> None:
    assert sorted(["10", "2", "b", "1", "a"], key=natural_key) == ["1", "2", "10", "a", "b"]


def test_two_pictures_have_a_result() -> None:
    agreement = measure_agreement([1.0, 2.0], [3.0, 4.0], fit=None, resamples=50)
    assert (agreement.srcc.value, agreement.krcc.value) == pytest.approx((1.0, 1.0))
