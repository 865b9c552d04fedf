"""Whether a stated uncertainty is right is measured rightly: on errors of a known law."""

import math

import numpy as np
import pytest
from scipy import stats

from pfd_iqa_hf.evaluation.uncertainty import (
    gaussian_nll,
    interval_coverage,
    interval_factors,
    level_calibration_error,
    report_uncertainty,
    sparsification,
)


def _simulated(count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    mean = generator.uniform(20, 80, count)
    sigma = generator.uniform(2, 12, count)
    return mean, mean + sigma * generator.normal(size=count), sigma


def test_right_uncertainty_is_called_right_overall_in_groups_and_thirds() -> None:
    mean, label, sigma = _simulated()
    groups = ["wide" if value > 7 else "narrow" for value in sigma]
    report = report_uncertainty(mean, label, sigma, groups=groups)
    parts = [report.coverage, *report.groups.values(), *report.terciles.values()]
    assert list(report.groups) == ["narrow", "wide"]
    assert list(report.terciles) == ["lowest", "middle", "highest"]
    for coverage in parts:
        for entry, nominal in zip(coverage, (0.5, 0.8, 0.95), strict=True):
            assert entry.nominal == nominal
            assert entry.observed == pytest.approx(nominal, abs=0.04)
            assert entry.lower < entry.observed < entry.upper
    assert report.error_srcc > 0.3
    assert report.as_dict()["coverage"][1]["nominal"] == 0.8


def test_wrong_uncertainty_is_called_wrong() -> None:
    mean, label, sigma = _simulated()
    bold = interval_coverage(mean, label, sigma / 2, interval_factors())
    assert [entry.observed for entry in bold] == pytest.approx(
        [2 * stats.norm.cdf(z / 2) - 1 for z in (0.6745, 1.2816, 1.96)], abs=0.03
    )
    # In one third only: the overall coverage hides it, the thirds show it.
    tilted = np.where(mean > np.quantile(mean, 2 / 3), sigma / 3, sigma)
    thirds = report_uncertainty(mean, label, tilted).terciles
    assert thirds["highest"][1].observed < 0.4 < 0.75 < thirds["lowest"][1].observed
    assert gaussian_nll(mean, label, sigma) < gaussian_nll(mean, label, sigma / 2)
    assert gaussian_nll(mean, label, sigma) < gaussian_nll(mean, label, 2 * sigma)


def test_nll_and_factors_follow_the_definitions() -> None:
    assert gaussian_nll([50, 60], [52, 55], [2, 5]) == pytest.approx(
        -np.mean(stats.norm.logpdf([52, 55], [50, 60], [2, 5]))
    )
    factors = interval_factors({"0.8": 1.5})
    assert factors[0.8] == 1.5 and factors[0.95] == pytest.approx(1.95996, abs=1e-4)
    inside = interval_coverage([50, 50, 50], [51, 53, 57], [2, 2, 2], {0.8: 1.5})
    assert inside[0].observed == pytest.approx(2 / 3) and inside[0].width == pytest.approx(6)


def test_sparsification_tells_perfect_order_from_chance() -> None:
    generator = np.random.default_rng(3)
    mean, label, _ = _simulated()
    error = np.abs(label - mean)
    perfect = sparsification(mean, label, error + 1e-6)
    assert perfect.area == pytest.approx(0, abs=1e-6)
    assert perfect.rmse == pytest.approx(perfect.oracle)
    assert np.all(np.diff(perfect.rmse) <= 0)
    assert perfect.rmse[0] == pytest.approx(perfect.rmse_all)
    assert sparsification(mean, label, generator.uniform(1, 2, 4000)).area == pytest.approx(
        1, abs=0.1
    )
    assert sparsification(mean, label, 1 / (error + 1)).area > 1.2


def test_level_calibration_error() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    assert level_calibration_error(sure, [0] * 9 + [1]) == pytest.approx(0)
    assert level_calibration_error(sure, [1] * 10) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="shape"):
        level_calibration_error(sure, [0])


def test_bad_input_is_nan_with_a_reason() -> None:
    with pytest.warns(UserWarning, match="not positive"):
        assert math.isnan(gaussian_nll([1], [1], [0]))
    with pytest.warns(UserWarning, match="not finite"):
        assert math.isnan(interval_coverage([math.nan], [1], [1], {0.8: 1.28})[0].observed)
    with pytest.warns(UserWarning, match="at least 2 pictures"):
        assert math.isnan(sparsification([1], [1], [1]).area)
    with pytest.raises(ValueError, match="2 predictions, 1 targets"):
        report_uncertainty([1, 2], [1], [1, 2])
