"""Is the stated uncertainty right: coverage, likelihood, sparsification, level probabilities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pfd_iqa_hf.evaluation.agreement import natural_key, without_nan
from pfd_iqa_hf.evaluation.correlation import srcc

try:
    from scipy import integrate, stats
except ImportError as error:
    raise ImportError('intervals need scipy: pip install "pfd-iqa-hf[train]"') from error

__all__ = [
    "COVERAGES",
    "Coverage",
    "Sparsification",
    "UncertaintyReport",
    "gaussian_nll",
    "interval_coverage",
    "interval_factors",
    "level_calibration_error",
    "report_uncertainty",
    "sparsification",
]

Array = NDArray[np.float64]

COVERAGES = (0.5, 0.8, 0.95)
_TERCILES = ("lowest", "middle", "highest")


@dataclass(frozen=True)
class Coverage:
    """How often intervals of one nominal coverage held the opinion.

    Attributes:
        nominal: what the interval promises.
        observed: share of the pictures whose mean opinion score lies inside; NaN for none.
        lower: lower end of Wilson's 95 % interval of that share.
        upper: upper end.
        width: mean width of the intervals, in score points.
    """

    nominal: float
    observed: float
    lower: float
    upper: float
    width: float


@dataclass(frozen=True)
class Sparsification:
    """Error of what is left when the most uncertain pictures are put aside.

    Attributes:
        removed: shares put aside, from 0 on.
        rmse: of the rest, most uncertain put aside first, in score points.
        oracle: of the rest, largest errors put aside first: no uncertainty can do better.
        rmse_all: of everything, which is also what putting aside at random leaves.
        area: area between `rmse` and `oracle` over that between `rmse_all` and `oracle`: 0 is
            perfect, 1 is no better than chance.
    """

    removed: list[float]
    rmse: list[float]
    oracle: list[float]
    rmse_all: float
    area: float


@dataclass(frozen=True)
class UncertaintyReport:
    """Everything that can be said of the stated uncertainty on rated pictures.

    Attributes:
        pictures: how many.
        coverage: of the 50, 80 and 95 % intervals over all pictures.
        groups: the same in each group, by name.
        terciles: the same in each third of the pictures by score: "lowest", "middle", "highest".
        nll: mean Gaussian negative log-likelihood in nats, lower is better.
        error_srcc: SRCC of the stated deviation with the absolute error.
        sparsification: the curve and its area.
        level_error: expected calibration error of the level probabilities, NaN without them.
    """

    pictures: int
    coverage: list[Coverage]
    groups: dict[str, list[Coverage]]
    terciles: dict[str, list[Coverage]]
    nll: float
    error_srcc: float
    sparsification: Sparsification
    level_error: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nested dictionaries, NaN as None."""
        return without_nan(asdict(self))


def interval_factors(stated: Mapping[str, float] | None = None) -> dict[float, float]:
    """The factors q of the intervals μ ± q σ, by nominal coverage.

    Args:
        stated: `config.interval_factors`, the conformal factors of (16), by coverage as text.

    Returns:
        For each of `COVERAGES` the stated factor, else the normal law's.
    """
    known = {float(coverage): float(factor) for coverage, factor in (stated or {}).items()}
    return {
        coverage: known.get(coverage, float(stats.norm.ppf((1 + coverage) / 2)))
        for coverage in COVERAGES
    }


def interval_coverage(
    prediction: ArrayLike,
    target: ArrayLike,
    deviation: ArrayLike,
    factors: Mapping[float, float],
) -> list[Coverage]:
    """Counts how many opinions lie in μ ± q σ.

    Args:
        prediction: (n,) scores μ.
        target: (n,) mean opinion scores.
        deviation: (n,) stated standard deviations σ, positive.
        factors: q by nominal coverage.

    Returns:
        One entry a factor, in the order given.

    Raises:
        ValueError: the lengths differ.
    """
    mean, label, sigma = _triples(prediction, target, deviation)
    if not _usable("the coverage", mean, label, sigma, least=1):
        return [Coverage(level, *[math.nan] * 4) for level in factors]
    result = []
    for nominal, factor in factors.items():
        inside = int(np.sum(np.abs(label - mean) <= factor * sigma))
        interval = stats.binomtest(inside, mean.size).proportion_ci(0.95, method="wilson")
        width = 2 * factor * float(sigma.mean())
        share = inside / mean.size
        result.append(Coverage(nominal, share, float(interval.low), float(interval.high), width))
    return result


def gaussian_nll(prediction: ArrayLike, target: ArrayLike, deviation: ArrayLike) -> float:
    """Mean of ½ ln(2π σ²) + (y − μ)² / (2 σ²), in nats.

    Returns:
        Lower is better; NaN with a warning for empty or non-finite input or a σ that is not
        positive.

    Raises:
        ValueError: the lengths differ.
    """
    mean, label, sigma = _triples(prediction, target, deviation)
    if not _usable("the likelihood", mean, label, sigma, least=1):
        return math.nan
    return float(-stats.norm.logpdf(label, mean, sigma).mean())


def sparsification(
    prediction: ArrayLike, target: ArrayLike, deviation: ArrayLike, steps: int = 20
) -> Sparsification:
    """Puts aside the most uncertain pictures, share by share, and measures the rest.

    Args:
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        deviation: (n,) stated standard deviations; only their order counts. Among equal ones the
            order is that of the rows.
        steps: the shares are 0, 1/steps, … (steps − 1)/steps.

    Returns:
        The curve; NaN with a warning where it is not defined. `area` is NaN too where all errors
        are equal: nothing can be sorted out then.

    Raises:
        ValueError: the lengths differ.
    """
    mean, label, sigma = _triples(prediction, target, deviation)
    removed = [step / steps for step in range(steps)]
    if not _usable("the sparsification curve", mean, label, sigma, least=2):
        nothing = [math.nan] * steps
        return Sparsification(removed, nothing, nothing, math.nan, math.nan)
    squared = (mean - label) ** 2
    kept = [max(1, round((1 - share) * mean.size)) for share in removed]
    curves = []
    for key in (sigma, squared):
        sums = np.cumsum(squared[np.argsort(key, kind="stable")])
        curves.append([math.sqrt(float(sums[count - 1]) / count) for count in kept])
    whole = math.sqrt(float(squared.mean()))
    above_oracle = float(integrate.trapezoid(np.subtract(curves[0], curves[1]), removed))
    chance = float(integrate.trapezoid(whole - np.array(curves[1]), removed))
    area = above_oracle / chance if chance > 1e-12 * max(whole, 1.0) else math.nan
    return Sparsification(removed, curves[0], curves[1], whole, area)


def level_calibration_error(
    probabilities: ArrayLike, levels: Sequence[int] | NDArray[np.int64], bins: int = 10
) -> float:
    """Expected calibration error of the most probable level, after Guo et al. (2017).

    Pictures are sorted into bins of equal width by the probability p of their most probable level;
    the error is the mean over the pictures of |share that is of that level − mean p| of their bin.

    Args:
        probabilities: (n, K), rows sum to 1.
        levels: (n,) index of the level in which the opinion lies.
        bins: between 0 and 1.

    Returns:
        0 to 1, lower is better; NaN with a warning for empty or non-finite input.

    Raises:
        ValueError: the lengths differ.
    """
    shares = np.asarray(probabilities, np.float64)
    truth = np.asarray(levels)
    if shares.ndim != 2 or len(shares) != truth.size:
        raise ValueError(
            f"{truth.size} levels need probabilities of shape ({truth.size}, K), got {shares.shape}"
        )
    if not truth.size or not np.isfinite(shares).all():
        warnings.warn("the levels' calibration error is not defined: NaN", stacklevel=2)
        return math.nan
    confidence = shares.max(axis=1)
    right = shares.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    # A bin's count times the gap of its means is the gap of its sums.
    gaps = [
        abs(right[place == index].sum() - confidence[place == index].sum())
        for index in np.unique(place)
    ]
    return float(np.sum(gaps) / truth.size)


def report_uncertainty(
    prediction: ArrayLike,
    target: ArrayLike,
    deviation: ArrayLike,
    *,
    factors: Mapping[float, float] | None = None,
    groups: Sequence[Hashable] | None = None,
    level_probabilities: ArrayLike | None = None,
    levels: Sequence[int] | None = None,
) -> UncertaintyReport:
    """Measures everything of `UncertaintyReport`.

    Args:
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        deviation: (n,) stated standard deviations in the same points.
        factors: of the intervals, by nominal coverage; default: the normal law's.
        groups: (n,) name of each picture's group, None for no groups.
        level_probabilities: (n, K), None where there are none.
        levels: (n,) index of the level in which the opinion lies, wanted with the probabilities.

    Returns:
        The measurements; NaN with a warning where one is not defined.

    Raises:
        ValueError: the lengths differ.
    """
    mean, label, sigma = _triples(prediction, target, deviation)
    factors = interval_factors() if factors is None else factors

    def of(rows: NDArray[Any]) -> list[Coverage]:
        return interval_coverage(mean[rows], label[rows], sigma[rows], factors)

    by_group: dict[str, list[Coverage]] = {}
    if groups is not None:
        names = np.array([str(name) for name in groups], dtype=object)
        if names.size != mean.size:
            raise ValueError(f"{mean.size} predictions for {names.size} group names")
        by_group = {name: of(names == name) for name in sorted(set(names), key=natural_key)}
    thirds = np.array_split(np.argsort(mean, kind="stable"), 3)
    level_error = math.nan
    if level_probabilities is not None and levels is not None:
        level_error = level_calibration_error(level_probabilities, levels)
    return UncertaintyReport(
        pictures=mean.size,
        coverage=of(np.arange(mean.size)),
        groups=by_group,
        terciles={
            name: of(rows) for name, rows in zip(_TERCILES, thirds, strict=True) if rows.size
        },
        nll=gaussian_nll(mean, label, sigma),
        error_srcc=_error_srcc(sigma, np.abs(mean - label)),
        sparsification=sparsification(mean, label, sigma),
        level_error=level_error,
    )


def _error_srcc(sigma: Array, error: Array) -> float:
    if sigma.size and np.ptp(sigma) == 0:
        warnings.warn(
            "all stated deviations are equal: their SRCC with the error is NaN", stacklevel=3
        )
        return math.nan
    return srcc(sigma, error)


def _triples(
    prediction: ArrayLike, target: ArrayLike, deviation: ArrayLike
) -> tuple[Array, Array, Array]:
    mean, label, sigma = (
        np.asarray(side, dtype=np.float64).ravel() for side in (prediction, target, deviation)
    )
    if not mean.size == label.size == sigma.size:
        raise ValueError(
            f"{mean.size} predictions, {label.size} targets and {sigma.size} deviations: "
            "give one of each for each picture"
        )
    return mean, label, sigma


def _usable(what: str, mean: Array, label: Array, sigma: Array, least: int) -> bool:
    if mean.size < least:
        warnings.warn(f"{what} needs at least {least} pictures: NaN", stacklevel=3)
        return False
    if not all(np.isfinite(values).all() for values in (mean, label, sigma)):
        warnings.warn(f"{what}: some values are not finite: NaN", stacklevel=3)
        return False
    if not (sigma > 0).all():
        warnings.warn(f"{what}: some deviations are not positive: NaN", stacklevel=3)
        return False
    return True
