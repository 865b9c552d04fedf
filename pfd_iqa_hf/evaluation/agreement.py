"""All correlations at once, with confidence intervals, over a whole set and within its groups."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfd_iqa_hf.evaluation.correlation import krcc, plcc, rmse, srcc
from pfd_iqa_hf.evaluation.logistic import LOGISTICS, fit_logistic

try:
    from scipy import stats
except ImportError as error:
    raise ImportError('correlations need scipy: pip install "pfd-iqa-hf[train]"') from error

__all__ = [
    "Agreement",
    "Estimate",
    "WithinGroups",
    "agreement_within_groups",
    "measure_agreement",
    "natural_key",
    "quick_srcc",
    "without_nan",
]

Array = NDArray[np.float64]

# A curve that does not settle after this many evaluations on a resample is left out of it.
_REFIT_EVALUATIONS = 400
_LEAST_PAIRS = {"logistic4": 5, "logistic5": 6}
_PLAIN = ("srcc", "plcc", "krcc", "rmse")


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval.

    Attributes:
        value: NaN where it is not defined.
        lower: lower end of the interval, NaN where none was asked for or it is not defined.
        upper: upper end.
    """

    value: float
    lower: float = math.nan
    upper: float = math.nan


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with opinions.

    Attributes:
        pictures: how many pairs.
        srcc: Spearman's rank correlation.
        plcc: Pearson's correlation of the raw scores.
        krcc: Kendall's τ_b.
        rmse: root of the mean squared error of the raw scores, in the unit of the opinions.
        plcc_fitted: Pearson's correlation after the logistic `fit`, None without one.
        rmse_fitted: root of the mean squared error after it, None without one.
        fit: "logistic4", "logistic5" or None.
        coverage: nominal coverage of the intervals.
    """

    pictures: int
    srcc: Estimate
    plcc: Estimate
    krcc: Estimate
    rmse: Estimate
    plcc_fitted: Estimate | None
    rmse_fitted: Estimate | None
    fit: str | None
    coverage: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nested dictionaries, NaN as None."""
        return without_nan(asdict(self))


@dataclass(frozen=True)
class WithinGroups:
    """Agreement within each group, and its unweighted mean over the groups.

    Between subsets of unlike mean quality a metric earns a high correlation over the whole set by
    telling the subsets apart; the mean within them shows what is left beyond that.

    Attributes:
        groups: by name, in the order of the names.
        srcc: mean over the groups in which it is defined; `plcc`, `krcc` and `rmse` likewise.
        left_out: names of the groups in which SRCC is not defined.
    """

    groups: dict[str, Agreement]
    srcc: Estimate
    plcc: Estimate
    krcc: Estimate
    rmse: Estimate
    left_out: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nested dictionaries, NaN as None."""
        return without_nan(asdict(self))


def measure_agreement(
    prediction: ArrayLike,
    target: ArrayLike,
    *,
    fit: str | None = "logistic4",
    coverage: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Measures SRCC, PLCC, KRCC and RMSE with percentile bootstrap intervals over the pictures.

    Args:
        prediction: (n,) scores; in the unit of the opinions, if RMSE is to mean anything.
        target: (n,) mean opinion scores.
        fit: curve through which PLCC and RMSE are measured a second time: "logistic4",
            "logistic5", or None. It is fitted anew to each resample.
        coverage: nominal coverage of the intervals.
        resamples: how many times n pairs are drawn with replacement; 0 for no intervals.
        seed: of the draws.

    Returns:
        The measurements. What is not defined (constants, NaN, too few pairs) is NaN, with a
        warning that says why.

    Raises:
        ValueError: the lengths differ, or an argument is impossible.
    """
    _check(fit, coverage, resamples)
    x, y = _arrays(prediction, target)
    agreement, _ = _measure(x, y, fit, coverage, resamples, np.random.default_rng(seed))
    return agreement


def agreement_within_groups(
    prediction: ArrayLike,
    target: ArrayLike,
    groups: Sequence[Hashable],
    *,
    coverage: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> WithinGroups:
    """Measures the agreement within each group, and the mean over groups with its interval.

    Pictures are redrawn within their group, so that the interval is that of these groups. No curve
    is fitted: in small groups it would fit the noise.

    Args:
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        groups: (n,) name of each picture's group.
        coverage: nominal coverage of the intervals.
        resamples: how many times; 0 for no intervals.
        seed: of the draws.

    Returns:
        The measurements; a group in which a number is not defined is NaN there, with a warning,
        and is left out of that number's mean.

    Raises:
        ValueError: the lengths differ, or an argument is impossible.
    """
    _check(None, coverage, resamples)
    x, y = _arrays(prediction, target)
    if len(groups) != x.size:
        raise ValueError(f"{x.size} predictions for {len(groups)} group names: give one for each")
    members: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(str(name), []).append(index)
    measured: dict[str, Agreement] = {}
    drawn: list[Array] = []
    for number, name in enumerate(sorted(members, key=natural_key)):
        rows = np.array(members[name])
        generator = np.random.default_rng([seed, number])
        measured[name], values = _measure(x[rows], y[rows], None, coverage, resamples, generator)
        drawn.append(values[:, : len(_PLAIN)])
    stacked = np.stack(drawn) if drawn else np.empty((0, 0, len(_PLAIN)))
    means: dict[str, Estimate] = {}
    for column, key in enumerate(_PLAIN):
        values = np.array([getattr(group, key).value for group in measured.values()])
        defined = np.isfinite(values)
        if not defined.any():
            means[key] = Estimate(math.nan)
            continue
        resampled = _mean_of_defined(stacked[defined, :, column])
        means[key] = Estimate(float(values[defined].mean()), *_interval(resampled, coverage))
    left_out = [name for name, group in measured.items() if math.isnan(group.srcc.value)]
    return WithinGroups(measured, **means, left_out=left_out)


def natural_key(name: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key under which level 2 comes before level 10."""
    try:
        return ((0, float(name), ""),)
    except ValueError:
        return ((1, 0.0, name),)


def without_nan(value: Any) -> Any:
    """The same nested dictionaries and lists with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _measure(
    x: Array,
    y: Array,
    fit: str | None,
    coverage: float,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[Agreement, Array]:
    """The agreement, and the resampled values of `_PLAIN` and the fitted pair, (resamples, 6)."""
    values = [srcc(x, y), plcc(x, y), krcc(x, y), rmse(x, y), math.nan, math.nan]
    start = None
    if fit is not None and not math.isnan(values[1]):
        if x.size >= _LEAST_PAIRS[fit]:
            start = fit_logistic(fit, x, y)
        if start is None:
            few = x.size < _LEAST_PAIRS[fit]
            why = f"it takes {_LEAST_PAIRS[fit]}" if few else "it does not settle"
            other = "; logistic4 may" if fit == "logistic5" and not few else ""
            warnings.warn(f"no {fit} fit to {x.size} pairs, {why}{other}: NaN", stacklevel=3)
        else:
            mapped = LOGISTICS[fit](x, *start)
            values[4:] = plcc(mapped, y), rmse(mapped, y)
    drawn = np.full((resamples, 6), math.nan)
    if np.isfinite(values[3]):  # otherwise some value is NaN or there is none
        for row in range(resamples):
            chosen = generator.integers(0, x.size, x.size)
            drawn[row] = _quick_values(x[chosen], y[chosen], fit, start)
    estimates = [
        Estimate(value, *(_interval(drawn[:, column], coverage) if np.isfinite(value) else ()))
        for column, value in enumerate(values)
    ]
    agreement = Agreement(
        pictures=x.size,
        srcc=estimates[0],
        plcc=estimates[1],
        krcc=estimates[2],
        rmse=estimates[3],
        plcc_fitted=estimates[4] if fit is not None else None,
        rmse_fitted=estimates[5] if fit is not None else None,
        fit=fit,
        coverage=coverage,
    )
    return agreement, drawn


def _quick_values(
    x: Array, y: Array, fit: str | None, start: tuple[float, ...] | None
) -> tuple[float, ...]:
    """What the public functions give, without their checks and messages: 6 values."""
    raw = math.sqrt(float(np.mean((x - y) ** 2)))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan, math.nan, raw, math.nan, math.nan
    rank = quick_srcc(x, y)
    # The asymptotic p-value, which nobody reads, is quick, and divides by zero for two pairs.
    method = "asymptotic" if x.size > 2 else "exact"
    kendall = float(stats.kendalltau(x, y, method=method).statistic)
    plain = (rank, _pearson(x, y), kendall, raw)
    if fit is None or start is None:
        return *plain, math.nan, math.nan
    refitted = fit_logistic(fit, x, y, start, _REFIT_EVALUATIONS)
    if refitted is None:
        return *plain, math.nan, math.nan
    mapped = LOGISTICS[fit](x, *refitted)
    return *plain, _pearson(mapped, y), math.sqrt(float(np.mean((mapped - y) ** 2)))


def quick_srcc(x: Array, y: Array) -> float:
    """`correlation.srcc` without its checks and messages, for resampling; NaN for a constant."""
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def _pearson(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def _interval(values: Array, coverage: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return math.nan, math.nan
    lower, upper = np.quantile(known, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(lower), float(upper)


def _mean_of_defined(values: Array) -> Array:
    """Mean over the first axis of what is no NaN, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: Array = np.where(count > 0, total / np.maximum(count, 1), math.nan)
    return mean


def _check(fit: str | None, coverage: float, resamples: int) -> None:
    if fit is not None and fit not in LOGISTICS:
        raise ValueError(f"fit must be one of {', '.join(LOGISTICS)} or None, got {fit!r}")
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    if resamples < 0:
        raise ValueError(f"resamples must be at least 0, got {resamples}")


def _arrays(prediction: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
    x, y = (np.asarray(side, dtype=np.float64).ravel() for side in (prediction, target))
    if x.size != y.size:
        raise ValueError(f"{x.size} predictions for {y.size} targets: give one for each")
    return x, y
