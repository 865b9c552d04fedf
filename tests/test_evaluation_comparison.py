"""A stated probability that A looks better is right that often."""

import numpy as np
import pytest

from pfd_iqa_hf.evaluation.comparison import (
    calibration_error,
    fit_shared_error,
    log_loss,
    probability_better,
    ranking,
    reliability,
)


def _pairs(shared: float, count: int = 40_000) -> tuple[np.ndarray, ...]:
    """Scores, σ and outcomes of pairs whose errors have a known correlation."""
    generator = np.random.default_rng(0)
    score = generator.uniform(20, 80, (2, count))
    sigma = generator.uniform(4, 14, (2, count))
    noise = generator.multivariate_normal([0, 0], [[1, shared], [shared, 1]], count).T
    truth = score + sigma * noise
    return score, sigma, truth[0] > truth[1]


@pytest.mark.parametrize("shared", [-0.3, 0.0, 0.6])
def test_the_shared_error_is_found_and_makes_the_probability_right(shared: float) -> None:
    score, sigma, wins = _pairs(shared)
    found = fit_shared_error(score[0] - score[1], sigma[0], sigma[1], wins)
    assert found == pytest.approx(shared, abs=0.06)
    right = probability_better(score[0], sigma[0], score[1], sigma[1], found)
    assert calibration_error(reliability(right, wins)) < 0.01
    for wrong in (-0.8, 0.9):
        other = probability_better(score[0], sigma[0], score[1], sigma[1], wrong)
        assert log_loss(other, wins) > log_loss(right, wins)


def test_probability_is_symmetric_monotone_and_never_certain() -> None:
    gaps = np.linspace(-100, 100, 21)
    forth = probability_better(gaps, 8.0, 0.0, 6.0)
    back = probability_better(0.0, 6.0, gaps, 8.0)
    np.testing.assert_allclose(forth + back, 1)
    assert np.all(np.diff(forth) >= 0) and forth[10] == 0.5
    assert 0 < forth.min() and forth.max() < 1
    # With independent errors it is the normal law of the difference.
    assert probability_better(60, 3, 55, 4, shared_error=0) == pytest.approx(0.841345, abs=1e-6)
    with pytest.raises(ValueError, match="between -1 and 1"):
        probability_better(1, 1, 1, 1, 1.0)


def test_ranking_goes_from_best_to_worst() -> None:
    order = ranking([40.0, 70.0, 70.0], [5.0, 5.0, 5.0])
    assert [index for index, _ in order] == [1, 2, 0]
    assert order[0][1] == 0.5 and order[2][1] is None
    assert order[1][1] is not None and order[1][1] > 0.9


def test_reliability_of_the_preferred_picture() -> None:
    entries = reliability([0.9, 0.1, 0.9, 0.9], [True, False, True, False])
    assert len(entries) == 1 and entries[0].pairs == 4
    assert entries[0].stated == pytest.approx(0.9) and entries[0].observed == pytest.approx(0.75)
