"""The README's numbers pass through these functions; they are checked against the definitions."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from pfd_iqa_hf.evaluation.correlation import (
    bootstrap_interval,
    krcc,
    logistic4_fit,
    plcc,
    rmse,
    srcc,
)

CORRELATIONS = [srcc, plcc, krcc]


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = generator.uniform(0, 100, 60)
    return target + generator.normal(0, 20, 60), target


def test_values_follow_the_definitions(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pairs
    n = len(x)
    rank_difference = x.argsort().argsort() - y.argsort().argsort()
    assert srcc(x, y) == pytest.approx(1 - 6 * np.sum(rank_difference**2) / (n * (n**2 - 1)))
    assert plcc(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    signs = [np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in itertools.combinations(range(n), 2)]
    assert krcc(x, y) == pytest.approx(np.mean(signs))
    assert rmse(x, y) == pytest.approx(np.linalg.norm(x - y) / np.sqrt(n))


def test_ties_take_their_mean_rank() -> None:
    # Ranks of the left side: 1.5, 1.5, 3, 4.
    assert srcc([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(
        np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1]
    )
    # tau-b: 5 of 6 pairs are ordered alike, 1 is tied on one side.
    assert krcc([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / np.sqrt(5 * 6))


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_bounds_and_symmetry(
    correlation: Callable[..., float], pairs: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = pairs
    assert correlation(y, 3 * y + 1) == pytest.approx(1)
    assert correlation(y, -y) == pytest.approx(-1)
    assert correlation(x, y) == pytest.approx(correlation(y, x))


@pytest.mark.parametrize("function", [*CORRELATIONS, rmse])
@pytest.mark.parametrize("bad", [[1.0, np.nan, 3.0], [1.0, np.inf, 3.0]])
def test_not_finite_gives_nan_and_says_so(function: Callable[..., float], bad: list) -> None:
    with pytest.warns(UserWarning, match="1 of the predictions are not finite"):
        assert np.isnan(function(bad, [1, 2, 3]))
    with pytest.warns(UserWarning, match="1 of the targets are not finite"):
        assert np.isnan(function([1, 2, 3], bad))


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_constants_and_too_few_give_nan_and_say_so(correlation: Callable[..., float]) -> None:
    with pytest.warns(UserWarning, match="all predictions are equal"):
        assert np.isnan(correlation([2, 2, 2], [1, 2, 3]))
    with pytest.warns(UserWarning, match="all targets are equal"):
        assert np.isnan(correlation([1, 2, 3], [2, 2, 2]))
    with pytest.warns(UserWarning, match="at least 2 pairs, got 1"):
        assert np.isnan(correlation([1], [1]))


@pytest.mark.parametrize("function", [*CORRELATIONS, rmse, logistic4_fit])
def test_unequal_lengths_raise(function: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="3 predictions for 2 targets"):
        function([1, 2, 3], [1, 2])


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_logistic_fit_recovers_a_logistic_relation(direction: float) -> None:
    x = np.linspace(-3, 7, 50)
    y = 15 + 70 / (1 + np.exp(-direction * (x - 2) / 1.5))
    np.testing.assert_allclose(logistic4_fit(x, y), y, atol=1e-3)


def test_logistic_fit_does_not_depend_on_the_scale_of_the_predictions(
    pairs: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = pairs
    mapped = logistic4_fit(x, y)
    np.testing.assert_allclose(logistic4_fit(1e-3 * x - 5, y), mapped, atol=1e-3)
    assert rmse(mapped, y) <= rmse(x, y)
    assert plcc(mapped, y) >= plcc(x, y) - 0.01


def test_logistic_fit_of_a_constant_is_nan() -> None:
    with pytest.warns(UserWarning, match="all predictions are equal"):
        assert np.isnan(logistic4_fit([5] * 6, range(6))).all()


def test_bootstrap_interval_matches_fishers(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    generator = np.random.default_rng(1)
    y = generator.normal(size=400)
    x = y + generator.normal(size=400)
    lower, upper = bootstrap_interval(plcc, x, y, coverage=0.95, resamples=2000)
    fisher = np.tanh(np.arctanh(plcc(x, y)) + np.array([-1.96, 1.96]) / np.sqrt(400 - 3))
    np.testing.assert_allclose([lower, upper], fisher, atol=0.02)
    assert (lower, upper) == bootstrap_interval(plcc, x, y, coverage=0.95, resamples=2000)
    narrow = bootstrap_interval(plcc, x, y, coverage=0.5)
    assert lower < narrow[0] < narrow[1] < upper


def test_bootstrap_interval_of_nan_is_nan() -> None:
    with pytest.warns(UserWarning, match="all targets are equal"):
        assert np.isnan(bootstrap_interval(srcc, [1, 2, 3], [1, 1, 1])).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(srcc, [1, 2, 3], [1, 2, 3], coverage=95)
