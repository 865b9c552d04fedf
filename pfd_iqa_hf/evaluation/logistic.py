"""The monotone curves that take a metric's scores onto the scale of the opinions.

Evaluating them needs numpy alone; fitting needs scipy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LOGISTICS", "fit_logistic", "logistic4", "logistic5"]

Array = NDArray[np.float64]

# Beyond this the exponential says nothing more, and overflows.
_LARGEST_EXPONENT = 500.0


def logistic4(x: ArrayLike, upper: float, lower: float, centre: float, width: float) -> Array:
    """f(x) = (β1 − β2) / (1 + exp(−(x − β3) / |β4|)) + β2.

    As the Video Quality Experts Group has it.

    Args:
        x: scores, any shape.
        upper: β1, reached at +∞; below `lower` for a falling curve.
        lower: β2, reached at −∞.
        centre: β3, in the unit of x.
        width: β4, in the unit of x.
    """
    # A width of exactly 0 would divide by it; the limit is a step.
    argument = (np.asarray(x, np.float64) - centre) / max(abs(width), 1e-12)
    return (upper - lower) * _sigmoid(argument) + lower


def logistic5(
    x: ArrayLike, height: float, steepness: float, centre: float, slope: float, offset: float
) -> Array:
    """f(x) = β1 (1/2 − 1 / (1 + exp(β2 (x − β3)))) + β4 x + β5.

    After Sheikh, Sabir and Bovik (2006). The linear term follows scores that do not saturate; the
    curve need not be monotone.

    Args:
        x: scores, any shape.
        height: β1, between the two ends of the logistic part.
        steepness: β2, per unit of x.
        centre: β3, in the unit of x.
        slope: β4, per unit of x.
        offset: β5.
    """
    x = np.asarray(x, np.float64)
    return height * (_sigmoid(steepness * (x - centre)) - 0.5) + slope * x + offset


LOGISTICS: dict[str, Callable[..., Array]] = {"logistic4": logistic4, "logistic5": logistic5}


def fit_logistic(
    kind: str,
    x: Array,
    y: Array,
    start: Sequence[float] | None = None,
    max_evaluations: int = 20_000,
) -> tuple[float, ...] | None:
    """Least-squares parameters of a curve of `LOGISTICS`.

    Args:
        kind: "logistic4" or "logistic5".
        x: (n,) finite scores, not all equal, n at least the number of parameters.
        y: (n,) finite targets.
        start: parameters to start from, such as those of a similar sample.
        max_evaluations: of the curve, before the fit is given up.

    Returns:
        The parameters of the function of that name, in the units of x and y; None where the fit
        does not converge.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError('fitting needs scipy: pip install "pfd-iqa-hf[train]"') from error
    # In units of its own spread the curve's centre is near 0 and its width near 1 on any scale.
    middle, spread = float(x.mean()), float(x.std())
    scaled = (x - middle) / spread
    if start is None:
        first = _first_guess(kind, scaled, y)
    else:
        first = _standardised(kind, start, middle, spread)
    try:
        with warnings.catch_warnings():
            # A perfect fit has no covariance; only the parameters are wanted.
            warnings.simplefilter("ignore")
            found, _ = optimize.curve_fit(
                LOGISTICS[kind], scaled, y, p0=first, maxfev=max_evaluations
            )
    except RuntimeError:
        return None
    return _standardised(kind, found, -middle / spread, 1 / spread)


def _first_guess(kind: str, scaled: Array, y: Array) -> tuple[float, ...]:
    rising = float(np.dot(scaled, y - y.mean())) >= 0
    low, high = float(y.min()), float(y.max())
    if kind == "logistic4":
        return (high, low, 0.0, 1.0) if rising else (low, high, 0.0, 1.0)
    return ((high - low) * (1 if rising else -1), 1.0, 0.0, 0.0, float(y.mean()))


def _standardised(
    kind: str, parameters: Sequence[float], middle: float, spread: float
) -> tuple[float, ...]:
    """The same curve as a function of (x − middle) / spread."""
    if kind == "logistic4":
        upper, lower, centre, width = map(float, parameters)
        return upper, lower, (centre - middle) / spread, abs(width) / spread
    height, steepness, centre, slope, offset = map(float, parameters)
    return (
        height,
        steepness * spread,
        (centre - middle) / spread,
        slope * spread,
        offset + slope * middle,
    )


def _sigmoid(argument: Array) -> Array:
    limited = np.clip(argument, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    result: Array = 1.0 / (1.0 + np.exp(-limited))
    return result
