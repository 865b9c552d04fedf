"""Agreement of image quality scores with opinions, as a metric of Hugging Face `evaluate`.

One file without imports of its own project, as a Space needs it: numpy and scipy do the work.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import optimize, stats

__all__ = ["IqaCorrelation"]

_DESCRIPTION = """\
Agreement of image quality scores with mean opinion scores: SRCC, PLCC (raw, and after a fitted
logistic), KRCC and RMSE, with bootstrap confidence intervals, and the means within groups.
"""
_INPUTS = """\
Args:
    predictions: scores, a list of floats.
    references: mean opinion scores, a list of floats of the same length.
    fit: "logistic4" (default), "logistic5" or None; adds `plcc_<fit>` and `rmse_<fit>`.
    resamples: of the bootstrap; 0 (default) gives no intervals. Otherwise each number `x` gets
        `x_low` and `x_high`.
    confidence: nominal coverage of the intervals, 0.95 by default.
    groups: name of each picture's group; adds `srcc_within`, `plcc_within` and `krcc_within`, the
        unweighted means over the groups.
    seed: of the bootstrap.

Returns:
    A dictionary of floats; NaN where a number is not defined, such as for constant predictions.
"""
_CITATION = """\
@misc{vqeg2003,
  title = {Final report from the Video Quality Experts Group on the validation of objective models
           of video quality assessment, phase II},
  author = {{Video Quality Experts Group}},
  year = {2003}
}
"""

_LEAST_PAIRS = {"logistic4": 5, "logistic5": 6}


class IqaCorrelation(evaluate.Metric):
    """SRCC, PLCC, KRCC and RMSE of scores and mean opinion scores."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")  # float32 would tie scores that differ
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[float],
        fit: str | None = "logistic4",
        resamples: int = 0,
        confidence: float = 0.95,
        groups: Sequence[Hashable] | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        if fit is not None and fit not in _LEAST_PAIRS:
            raise ValueError(f"fit must be logistic4, logistic5 or None, got {fit!r}")
        x, y = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        result = _values(x, y, fit)
        undefined = sorted(name for name, value in result.items() if math.isnan(value))
        if undefined:
            warnings.warn(
                f"not defined for these values (constant, not finite or too few): "
                f"{', '.join(undefined)}",
                stacklevel=2,
            )
        _add_intervals(
            result,
            lambda rows: _values(x[rows], y[rows], fit),
            [np.arange(x.size)],
            resamples,
            confidence,
            seed,
        )
        if groups is not None:
            names = np.array([str(name) for name in groups], dtype=object)
            if names.size != x.size:
                raise ValueError(f"{x.size} predictions for {names.size} group names")
            members = [np.flatnonzero(names == name) for name in sorted(set(names))]
            within = _within(x, y, members)
            # Pictures are redrawn within their group: the interval is that of these groups.
            _add_intervals(
                within, lambda rows: _within(x, y, rows), members, resamples, confidence, seed
            )
            result |= within
        return result


def _values(x: np.ndarray, y: np.ndarray, fit: str | None) -> dict[str, float]:
    names = ["srcc", "plcc", "krcc", "rmse"]
    names += [f"plcc_{fit}", f"rmse_{fit}"] if fit is not None else []
    result = dict.fromkeys(names, math.nan)
    if not x.size or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return result
    result["rmse"] = float(np.sqrt(np.mean((x - y) ** 2)))
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return result
    result["srcc"] = float(stats.spearmanr(x, y).statistic)
    result["plcc"] = float(stats.pearsonr(x, y).statistic)
    result["krcc"] = float(stats.kendalltau(x, y).statistic)
    if fit is not None and x.size >= _LEAST_PAIRS[fit]:
        mapped = _mapped(x, y, fit)
        if mapped is not None and np.ptp(mapped) > 0:
            result[f"plcc_{fit}"] = float(stats.pearsonr(mapped, y).statistic)
            result[f"rmse_{fit}"] = float(np.sqrt(np.mean((mapped - y) ** 2)))
    return result


def _within(x: np.ndarray, y: np.ndarray, members: Sequence[np.ndarray]) -> dict[str, float]:
    parts = [_values(x[rows], y[rows], None) for rows in members]
    result = {}
    for name in ("srcc", "plcc", "krcc"):
        known = [part[name] for part in parts if not math.isnan(part[name])]
        result[f"{name}_within"] = float(np.mean(known)) if known else math.nan
    return result


def _add_intervals(
    result: dict[str, float],
    measure: Callable[[Any], dict[str, float]],
    members: Sequence[np.ndarray],
    resamples: int,
    confidence: float,
    seed: int,
) -> None:
    """Adds the percentile bootstrap's ends of each number."""
    if not resamples:
        return
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in result}
    single = len(members) == 1 and "srcc" in result
    for _ in range(resamples):
        rows = [part[generator.integers(0, part.size, part.size)] for part in members]
        for name, value in measure(rows[0] if single else rows).items():
            drawn[name].append(value)
    for name, values in drawn.items():
        known = [value for value in values if not math.isnan(value)]
        ends = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2]) if known else None
        result[f"{name}_low"] = math.nan if ends is None else float(ends[0])
        result[f"{name}_high"] = math.nan if ends is None else float(ends[1])


def _mapped(x: np.ndarray, y: np.ndarray, fit: str) -> np.ndarray | None:
    """Scores through the least-squares logistic; None where it does not converge."""
    x = (x - x.mean()) / x.std()
    rising = float(np.dot(x, y - y.mean())) >= 0
    low, high = float(y.min()), float(y.max())
    if fit == "logistic4":
        curve: Callable[..., np.ndarray] = _logistic4
        start = (high, low, 0.0, 1.0) if rising else (low, high, 0.0, 1.0)
    else:
        curve = _logistic5
        start = ((high - low) * (1 if rising else -1), 1.0, 0.0, 0.0, float(y.mean()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parameters, _ = optimize.curve_fit(curve, x, y, p0=start, maxfev=20_000)
    except RuntimeError:
        return None
    return curve(x, *parameters)


def _logistic4(
    x: np.ndarray, upper: float, lower: float, centre: float, width: float
) -> np.ndarray:
    """f(x) = (β1 − β2) / (1 + exp(−(x − β3) / |β4|)) + β2, after the VQEG."""
    return (upper - lower) * _sigmoid((x - centre) / max(abs(width), 1e-12)) + lower


def _logistic5(
    x: np.ndarray, height: float, steepness: float, centre: float, slope: float, offset: float
) -> np.ndarray:
    """f(x) = β1 (1/2 − 1 / (1 + exp(β2 (x − β3)))) + β4 x + β5, after Sheikh et al. (2006)."""
    return height * (_sigmoid(steepness * (x - centre)) - 0.5) + slope * x + offset


def _sigmoid(argument: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(argument, -500.0, 500.0)))
