"""Which of two pictures looks better: from two scores and their uncertainties to a probability.

Errors of two pictures are partly shared: a set of raters, or a model, that is too strict is so with
both, and that cancels in the difference. With ρ the share,

    P(A better than B) = Φ( (μ_A − μ_B) / √(σ_A² + σ_B² − 2 ρ σ_A σ_B) ).

ρ is measured, not assumed: it is the maximum of the likelihood of which picture of a pair people
scored higher. A negative one means that differences are less certain than the stated σ say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SHARED_ERROR",
    "ReliabilityBin",
    "calibration_error",
    "fit_shared_error",
    "log_loss",
    "probability_better",
    "ranking",
    "reliability",
]

Array = NDArray[np.float64]

# Of the bundled checkpoint (364fb735d076, views thorough) it is -.01 on all pairs of BIQ2021's test
# split and .22 on LIVEC, which it never saw; with none, statements are right within .03 on both.
#     python benchmarks/comparison.py --dataset livec --data-dir path/to/ChallengeDB_release
SHARED_ERROR = 0.0

_LARGEST_SHARE = 0.95
_CERTAIN = 1e-6  # no probability is stated beyond it: the law's tails are not known that well


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs with about one stated probability.

    Attributes:
        stated: mean probability of the picture that the model prefers, 0.5 to 1.
        observed: share of these pairs in which people scored that picture higher.
        pairs: how many.
    """

    stated: float
    observed: float
    pairs: int


def probability_better(
    score_a: ArrayLike,
    uncertainty_a: ArrayLike,
    score_b: ArrayLike,
    uncertainty_b: ArrayLike,
    shared_error: float = SHARED_ERROR,
) -> Array:
    """The probability that people score A higher than B.

    Args:
        score_a: scores of the pictures A, 0 to 100, any shape.
        uncertainty_a: their standard deviations in the same points, positive.
        score_b: likewise of B.
        uncertainty_b: likewise of B.
        shared_error: ρ, above −1 and below 1.

    Returns:
        Of the common shape, strictly between 0 and 1; 0.5 for equal scores.

    Raises:
        ValueError: ρ is out of range.

    Example:
        >>> float(probability_better(60.0, 5.0, 60.0, 8.0))
        0.5
    """
    if not -1.0 < shared_error < 1.0:
        raise ValueError(f"shared_error must lie between -1 and 1, got {shared_error}")
    a, sigma_a, b, sigma_b = (
        np.asarray(value, np.float64) for value in (score_a, uncertainty_a, score_b, uncertainty_b)
    )
    variance = sigma_a**2 + sigma_b**2 - 2.0 * shared_error * sigma_a * sigma_b
    ratio = np.asarray((a - b) / np.sqrt(np.maximum(variance, 1e-12)))
    probability: Array = torch.special.ndtr(torch.from_numpy(ratio)).numpy()
    return np.clip(probability, _CERTAIN, 1.0 - _CERTAIN)


def ranking(
    scores: Sequence[float],
    uncertainties: Sequence[float],
    shared_error: float = SHARED_ERROR,
) -> list[tuple[int, float | None]]:
    """The pictures from best to worst.

    Args:
        scores: of the pictures.
        uncertainties: of the pictures.
        shared_error: as in `probability_better`.

    Returns:
        Index of each picture and the probability that it looks better than the next; None for the
        last. Equal scores keep their order.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    result: list[tuple[int, float | None]] = []
    for place, index in enumerate(order):
        if place + 1 == len(order):
            result.append((index, None))
            break
        other = order[place + 1]
        probability = probability_better(
            scores[index], uncertainties[index], scores[other], uncertainties[other], shared_error
        )
        result.append((index, float(probability)))
    return result


def fit_shared_error(
    difference: ArrayLike, uncertainty_a: ArrayLike, uncertainty_b: ArrayLike, a_wins: ArrayLike
) -> float:
    """The ρ under which the outcomes of pairs are the most likely.

    Args:
        difference: (n,) μ_A − μ_B.
        uncertainty_a: (n,) σ_A.
        uncertainty_b: (n,) σ_B.
        a_wins: (n,) whether people scored A higher; leave ties out.

    Returns:
        Between −0.95 and 0.95.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import minimize_scalar
    except ImportError as error:
        raise ImportError('fitting needs scipy: pip install "pfd-iqa-hf[train]"') from error
    gap, wins = np.asarray(difference, np.float64), np.asarray(a_wins, bool)
    zero = np.zeros_like(gap)

    def loss(share: float) -> float:
        return log_loss(probability_better(gap, uncertainty_a, zero, uncertainty_b, share), wins)

    found = minimize_scalar(
        loss, bounds=(-_LARGEST_SHARE, _LARGEST_SHARE), method="bounded", options={"xatol": 1e-3}
    )
    return float(found.x)


def log_loss(probability: ArrayLike, a_wins: ArrayLike) -> float:
    """Mean of −ln of the probability given to what happened, in nats; lower is better."""
    stated, wins = np.asarray(probability, np.float64), np.asarray(a_wins, bool)
    return float(-np.mean(np.log(np.where(wins, stated, 1.0 - stated))))


def reliability(probability: ArrayLike, a_wins: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Stated and observed shares over bins of the preferred picture's probability.

    Args:
        probability: (n,) that A is better.
        a_wins: (n,) whether people scored A higher.
        bins: of equal width between 0.5 and 1; empty ones are left out.
    """
    stated, wins = np.asarray(probability, np.float64), np.asarray(a_wins, bool)
    preferred = np.maximum(stated, 1.0 - stated)
    right = np.where(stated >= 0.5, wins, ~wins)
    place = np.minimum(((preferred - 0.5) * 2 * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            float(preferred[place == index].mean()),
            float(right[place == index].mean()),
            int((place == index).sum()),
        )
        for index in np.unique(place)
    ]


def calibration_error(entries: Sequence[ReliabilityBin]) -> float:
    """Mean over the pairs of |observed − stated| of their bin; 0 is best, NaN for no pairs."""
    total = sum(entry.pairs for entry in entries)
    if not total:
        return math.nan
    return sum(entry.pairs * abs(entry.observed - entry.stated) for entry in entries) / total
