"""Agreement of scores with mean opinion scores, as image quality assessment reports it.

All functions take two sequences of equal length n, predictions and targets. Where a number is not
defined (a constant side, a NaN or infinity, fewer than two pairs; five or six for a logistic) they
return NaN and warn, so that one bad subset does not end a long evaluation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfd_iqa_hf.evaluation.logistic import LOGISTICS, fit_logistic

try:
    from scipy import stats
except ImportError as error:
    raise ImportError("correlations need scipy: pip install pfd-iqa-hf[train]") from error

__all__ = ["bootstrap_interval", "krcc", "logistic4_fit", "logistic5_fit", "plcc", "rmse", "srcc"]

Array = NDArray[np.float64]


def srcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rank-order correlation coefficient, ties at their mean rank.

    Returns:
        −1 to 1, higher is better; NaN with a warning where it is not defined.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> srcc([1.0, 2.0, 3.0], [10.0, 20.0, 90.0])
        1.0
    """
    pair = _correlated_pair("SRCC", prediction, target)
    return float("nan") if pair is None else float(stats.spearmanr(*pair).statistic)


def plcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Pearson's linear correlation coefficient of the raw values.

    For the variant after the usual non-linear mapping, pass `logistic4_fit(prediction, target)` as
    the prediction, and say so where the number is shown.

    Returns:
        −1 to 1, higher is better; NaN with a warning where it is not defined.

    Raises:
        ValueError: the lengths differ.
    """
    pair = _correlated_pair("PLCC", prediction, target)
    return float("nan") if pair is None else float(stats.pearsonr(*pair).statistic)


def krcc(prediction: ArrayLike, target: ArrayLike) -> float:
    """Kendall's rank-order correlation coefficient, τ_b (corrected for ties).

    Returns:
        −1 to 1, higher is better; NaN with a warning where it is not defined.

    Raises:
        ValueError: the lengths differ.
    """
    pair = _correlated_pair("KRCC", prediction, target)
    return float("nan") if pair is None else float(stats.kendalltau(*pair).statistic)


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    """Root of the mean squared error, in the unit of the scores.

    Returns:
        0 or more, lower is better; NaN with a warning for empty or non-finite input.

    Raises:
        ValueError: the lengths differ.
    """
    pair = _finite_pair("RMSE", prediction, target, least=1)
    if pair is None:
        return float("nan")
    return float(np.sqrt(np.mean((pair[0] - pair[1]) ** 2)))


def logistic4_fit(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Maps predictions onto the targets' scale by the least-squares logistic of four parameters.

    f(x) = (β1 − β2) / (1 + exp(−(x − β3) / |β4|)) + β2, as the Video Quality Experts Group reports
    PLCC and RMSE. It is fitted on the very pairs that are evaluated and therefore optimistic.

    Returns:
        (n,) mapped predictions; all NaN with a warning where the fit is not defined or does not
        converge.

    Raises:
        ValueError: the lengths differ.
    """
    return _mapped("logistic4", prediction, target, least=5)


def logistic5_fit(prediction: ArrayLike, target: ArrayLike) -> Array:
    """Maps predictions onto the targets' scale by the logistic of five parameters.

    f(x) = β1 (1/2 − 1 / (1 + exp(β2 (x − β3)))) + β4 x + β5 (Sheikh, Sabir and Bovik, 2006), which
    many papers on full-reference metrics use; its PLCC is a little higher than the one after
    `logistic4_fit`, so say which was taken. Six pairs are the least it is fitted to.

    Returns:
        (n,) mapped predictions; all NaN with a warning where the fit is not defined or does not
        converge.

    Raises:
        ValueError: the lengths differ.
    """
    return _mapped("logistic5", prediction, target, least=6)


def bootstrap_interval(
    statistic: Callable[[Array, Array], float],
    prediction: ArrayLike,
    target: ArrayLike,
    coverage: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over the pictures.

    Args:
        statistic: any function of this module that returns one number.
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        coverage: nominal coverage of the interval, between 0 and 1.
        resamples: how many times n pairs are drawn with replacement; those on which the statistic
            is not defined are left out.
        seed: of the draws.

    Returns:
        The lower and the upper end; NaN, NaN with a warning where the statistic itself is NaN.

    Raises:
        ValueError: the lengths differ, or `coverage` is not between 0 and 1.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    x, y = _pair(prediction, target)
    if np.isnan(statistic(x, y)):
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = []
        for _ in range(resamples):
            drawn = generator.integers(0, x.size, x.size)
            values.append(statistic(x[drawn], y[drawn]))
        lower, upper = np.nanquantile(values, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(lower), float(upper)


def _mapped(kind: str, prediction: ArrayLike, target: ArrayLike, least: int) -> Array:
    pair = _correlated_pair("the logistic fit", prediction, target, least)
    if pair is None:
        return np.full(np.size(prediction), np.nan)
    parameters = fit_logistic(kind, *pair)
    if parameters is None:
        warnings.warn("the logistic fit did not converge: NaN", stacklevel=3)
        return np.full(pair[0].size, np.nan)
    return LOGISTICS[kind](pair[0], *parameters)


def _pair(prediction: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    x, y = (np.asarray(side, dtype=np.float64).ravel() for side in (prediction, target))
    if x.size != y.size:
        raise ValueError(f"{x.size} predictions for {y.size} targets: give one for each")
    return x, y


def _finite_pair(
    what: str, prediction: ArrayLike, target: ArrayLike, least: int
) -> tuple[Array, Array] | None:
    x, y = _pair(prediction, target)
    if x.size < least:
        warnings.warn(f"{what} needs at least {least} pairs, got {x.size}: NaN", stacklevel=4)
        return None
    for side, values in (("predictions", x), ("targets", y)):
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            warnings.warn(f"{what}: {count} of the {side} are not finite: NaN", stacklevel=4)
            return None
    return x, y


def _correlated_pair(
    what: str, prediction: ArrayLike, target: ArrayLike, least: int = 2
) -> tuple[Array, Array] | None:
    pair = _finite_pair(what, prediction, target, least)
    if pair is not None:
        for side, values in zip(("predictions", "targets"), pair, strict=True):
            if np.ptp(values) == 0:
                warnings.warn(f"{what}: all {side} are equal: NaN", stacklevel=3)
                return None
    return pair
