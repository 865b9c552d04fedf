"""From some fifty own scores: a monotone map to the user's scale, and conformal intervals.

The map is a non-decreasing, piecewise linear curve over the model's scores with knots at 0, 10, …,
100; the change of its slope is penalised, by a strength that cross-validation chooses. With few
opinions that is nearly a straight line, and beyond the scores seen it goes straight on.

The intervals are those of CV+ (Barber, Candès, Ramdas and Tibshirani, 2021) with residuals in units
of the model's uncertainty: whatever the model does, a new picture of the same kind lies inside with
the stated probability on average over such pictures (guaranteed is a little less, 1 − 2α; in
practice it is 1 − α).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..scoring.records import OWN_SCALE_FIELDS, replaced_when_complete

__all__ = [
    "LEAST_PICTURES",
    "Calibration",
    "fit_calibration",
    "fit_monotone_curve",
    "load_calibration",
    "save_calibration",
]

Array = NDArray[np.float64]

LEAST_PICTURES = 20
_ADVISED_PICTURES = 50
KNOTS = np.linspace(0.0, 100.0, 11)
# Squared points per picture that a change of the slope by 1 at a knot costs.
_STIFFNESSES = (1e6, 1e4, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_FOLDS = 20
_INNER_FOLDS = 10
_FORMAT = "pfd-iqa calibration 1"
_SMALLEST_UNCERTAINTY = 1e-3


@dataclass(frozen=True)
class Calibration:
    """A fitted map and its intervals; apply it with numpy alone.

    Attributes:
        score_range: lowest and highest score of the user's scale.
        higher_is_better: direction of that scale.
        values: the map at the scores 0, 10, …, 100, on 0 to 100 and higher is better.
        fold_values: the maps fitted without each fold, as `values`.
        folds: each picture's fold.
        residuals: each picture's distance from the map fitted without it, over its uncertainty.
        coverage: nominal coverage of the intervals.
        pictures: how many opinions it was fitted to.
        facts: the model, weights and views whose scores it maps, and the quality of the fit.
    """

    score_range: tuple[float, float]
    higher_is_better: bool
    values: list[float]
    fold_values: list[list[float]]
    folds: list[int]
    residuals: list[float]
    coverage: float
    pictures: int
    facts: dict[str, Any] = field(default_factory=dict)

    def apply(self, score: ArrayLike, uncertainty: ArrayLike) -> tuple[Array, Array, Array]:
        """Scores on the user's own scale, with intervals.

        Args:
            score: (n,) or a number, the model's, 0 to 100.
            uncertainty: the model's, of the same shape, in the same points.

        Returns:
            The own score, the lower and the upper end of its interval (numerically, whatever the
            direction), each of that shape and within the own range.
        """
        scores = np.asarray(score, np.float64)
        sigma = np.maximum(np.asarray(uncertainty, np.float64), _SMALLEST_UNCERTAINTY)
        shape = scores.shape
        scores, sigma = scores.reshape(-1), np.broadcast_to(sigma, shape).reshape(-1)
        by_fold = np.stack([np.interp(scores, KNOTS, values) for values in self.fold_values])
        centres = by_fold[self.folds]  # pictures of the calibration, n
        reach = np.asarray(self.residuals)[:, None] * sigma
        count = len(self.residuals)
        place = math.ceil(self.coverage * (count + 1))
        low = np.full(scores.size, -np.inf)
        high = np.full(scores.size, np.inf)
        if place <= count:
            low = np.sort(centres - reach, axis=0)[count - place]
            high = np.sort(centres + reach, axis=0)[place - 1]
        middle = np.interp(scores, KNOTS, self.values)
        # The folds' maps are not the whole one: where residuals are tiny it could lie outside.
        low, high = np.minimum(low, middle), np.maximum(high, middle)
        ends = [self._own(np.clip(side, 0.0, 100.0)) for side in (low, high)]
        own_low, own_high = ends if self.higher_is_better else ends[::-1]
        own = self._own(np.clip(middle, 0.0, 100.0))
        return own.reshape(shape), own_low.reshape(shape), own_high.reshape(shape)

    def add_to(self, record: dict[str, Any]) -> None:
        """Adds `own_score`, `own_low` and `own_high` to a record; None for one that failed."""
        if record["score"] is None:
            record.update(dict.fromkeys(OWN_SCALE_FIELDS))
            return
        own = self.apply(record["score"], record["uncertainty"])
        record.update(zip(OWN_SCALE_FIELDS, map(float, own), strict=True))

    def check_model(self, model_sha256: str, view_strategy: str) -> None:
        """Refuses scores of another model, or of other views, than it was fitted to.

        Raises:
            ValueError: says which differs.
        """
        for what, fitted, given in (
            ("weights", self.facts.get("model_sha256"), model_sha256),
            ("views", self.facts.get("view_strategy"), view_strategy),
        ):
            if fitted is not None and fitted != given:
                raise ValueError(
                    f"was made for the {what} {fitted}, these are {given}; run `pfd-iqa calibrate` "
                    "again with this --model and these --views, or score with those it was made for"
                )

    def _own(self, common: Array) -> Array:
        low, high = self.score_range
        share = common / 100.0
        result: Array = low + (high - low) * (share if self.higher_is_better else 1.0 - share)
        return result


def fit_calibration(
    score: ArrayLike,
    uncertainty: ArrayLike,
    opinion: ArrayLike,
    *,
    score_range: tuple[float, float] = (0.0, 100.0),
    higher_is_better: bool = True,
    coverage: float = 0.8,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Calibration:
    """Fits the map and the intervals to a user's own opinions.

    Args:
        score: (n,) the model's scores, 0 to 100.
        uncertainty: (n,) the model's, in the same points.
        opinion: (n,) own scores mapped to 0 to 100, higher is better.
        score_range: of the user's scale.
        higher_is_better: direction of the user's scale.
        coverage: nominal coverage of the intervals, between 0 and 1.
        facts: kept in the calibration.
        seed: of the folds.

    Returns:
        The calibration. With fewer than 50 pictures, or opinions that do not rise with the scores,
        there is a warning that says what that means.

    Raises:
        ValueError: fewer than 20 pictures, or too few for this coverage, or an input that is
            constant, not finite or of another length.
        ImportError: scipy is not installed.
    """
    x, sigma, y = (np.asarray(v, np.float64).ravel() for v in (score, uncertainty, opinion))
    _check(x, sigma, y, coverage)
    rank = _rank_correlation(x, y)
    if rank <= 0:
        warnings.warn(
            f"own scores do not rise with the model's (SRCC {rank:.2f}): the map is flat and says "
            "nothing; if low scores are the good ones, say that lower is better",
            stacklevel=2,
        )
    sigma = np.maximum(sigma, _SMALLEST_UNCERTAINTY)
    folds = _folds(x.size, min(_FOLDS, x.size), seed)
    stiffness = _choose_stiffness(x, y, seed)
    fold_values, predicted = [], np.empty_like(y)
    for fold in range(folds.max() + 1):
        inside = folds != fold
        # Chosen anew without the fold, or its pictures would have a say in their own map.
        chosen = _choose_stiffness(x[inside], y[inside], seed)
        values = fit_monotone_curve(x[inside], y[inside], chosen)
        fold_values.append(values)
        predicted[~inside] = np.interp(x[~inside], KNOTS, values)
    quality = {
        "rmse_cross_validated": round(float(np.sqrt(np.mean((y - predicted) ** 2))), 3),
        "rmse_of_the_mean": round(float(y.std()), 3),
        "srcc": round(rank, 4),
        "stiffness": stiffness,
    }
    return Calibration(
        (float(score_range[0]), float(score_range[1])),
        higher_is_better,
        [round(v, 4) for v in fit_monotone_curve(x, y, stiffness).tolist()],
        [[round(v, 4) for v in values.tolist()] for values in fold_values],
        folds.tolist(),
        [round(v, 5) for v in (np.abs(y - predicted) / sigma).tolist()],
        coverage,
        int(x.size),
        {**(facts or {}), "fit": quality},
    )


def fit_monotone_curve(score: Array, opinion: Array, stiffness: float) -> Array:
    """Least-squares non-decreasing curve through `KNOTS` with penalised changes of slope.

    Args:
        score: (n,) 0 to 100.
        opinion: (n,) any unit.
        stiffness: squared units per picture that a change of the slope by 1 costs; at a million
            the curve is a straight line.

    Returns:
        (11,) its values at `KNOTS`.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.optimize import nnls
    except ImportError as error:
        raise ImportError('fitting needs scipy: pip install "pfd-iqa-hf[train]"') from error
    step = np.diff(KNOTS)
    # Column k is how far a score has come through segment k: the weights are slopes, at least 0.
    ramps = np.clip(score[:, None] - KNOTS[:-1], 0.0, step)
    centre = ramps.mean(axis=0)
    bending = np.diff(np.eye(step.size), axis=0) * math.sqrt(stiffness * score.size)
    matrix = np.concatenate([ramps - centre, bending])
    target = np.concatenate([opinion - opinion.mean(), np.zeros(len(bending))])
    slopes, _ = nnls(matrix, target)
    start = float(opinion.mean() - centre @ slopes)
    values: Array = start + np.concatenate([[0.0], np.cumsum(slopes * step)])
    return values


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Writes it as JSON, complete or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps({"format": _FORMAT, **asdict(calibration)}, allow_nan=False)
    with replaced_when_complete(Path(path)) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def load_calibration(path: str | Path) -> Calibration:
    """Reads a file of `save_calibration`.

    Raises:
        ValueError: the file is missing or is none of `save_calibration`.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        if content.pop("format") != _FORMAT:
            raise ValueError("another format")
        calibration = Calibration(**{**content, "score_range": tuple(content["score_range"])})
        shapes = {len(values) for values in [calibration.values, *calibration.fold_values]}
        if shapes != {KNOTS.size} or len(calibration.folds) != len(calibration.residuals):
            raise ValueError("its parts do not fit together")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give the file that `pfd-iqa calibrate` "
            "wrote"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a calibration ({error}); make one with `pfd-iqa calibrate`"
        ) from error
    return calibration


def _check(x: Array, sigma: Array, y: Array, coverage: float) -> None:
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}")
    if not x.size == sigma.size == y.size:
        raise ValueError(f"{x.size} scores, {sigma.size} uncertainties and {y.size} opinions")
    needed = max(LEAST_PICTURES, math.ceil(coverage / (1.0 - coverage) - 1e-9))
    if x.size < needed:
        raise ValueError(
            f"{x.size} rated pictures are too few: {coverage:.0%} intervals need at least "
            f"{needed}, and a map is of use from about {_ADVISED_PICTURES} on; rate more pictures"
        )
    if not all(np.isfinite(values).all() for values in (x, sigma, y)):
        raise ValueError("some scores are not finite numbers; score in float32")
    for name, values in (("model's scores", x), ("own scores", y)):
        if np.ptp(values) == 0:
            raise ValueError(f"all {name} are equal; rate pictures of unlike quality")
    if x.size < _ADVISED_PICTURES:
        warnings.warn(
            f"{x.size} rated pictures are few: with {_ADVISED_PICTURES} the intervals would be "
            "narrower, and their coverage nearer to what is stated",
            stacklevel=3,
        )


def _choose_stiffness(x: Array, y: Array, seed: int) -> float:
    """The stiffest curve whose cross-validated error is the least."""
    folds = _folds(x.size, _INNER_FOLDS, seed + 1)
    errors = []
    for stiffness in _STIFFNESSES:
        squared = 0.0
        for fold in range(_INNER_FOLDS):
            inside = folds != fold
            values = fit_monotone_curve(x[inside], y[inside], stiffness)
            squared += float(np.sum((np.interp(x[~inside], KNOTS, values) - y[~inside]) ** 2))
        errors.append(squared)
    return _STIFFNESSES[int(np.argmin(errors))]


def _folds(count: int, folds: int, seed: int) -> NDArray[np.int64]:
    order = np.random.default_rng(seed).permutation(count)
    result = np.empty(count, np.int64)
    result[order] = np.arange(count) % folds
    return result


def _rank_correlation(x: Array, y: Array) -> float:
    from pfd_iqa_hf.evaluation.correlation import srcc

    return srcc(x, y)
