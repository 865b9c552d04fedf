"""Plots of an evaluation as PNG files; needs matplotlib, opens no window."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pfd_iqa_hf.evaluation.agreement import natural_key
from pfd_iqa_hf.evaluation.logistic import LOGISTICS, fit_logistic
from pfd_iqa_hf.evaluation.uncertainty import UncertaintyReport
from pfd_iqa_hf.scoring.records import MissingExtraError, replaced_when_complete

__all__ = ["calibration_plot", "require_matplotlib", "scatter_plot"]

_MOST_COLOURS = 10  # more cannot be told apart
_DPI = 120
_SETTLED_EVALUATIONS = 20_000


def require_matplotlib() -> None:
    """Checks that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed; the message names the command.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "pfd-iqa-hf[train]"') from error


def scatter_plot(
    path: str | Path,
    prediction: ArrayLike,
    target: ArrayLike,
    *,
    title: str = "",
    fit: str | None = "logistic4",
    groups: Sequence[str] | None = None,
    unit: str = "0 to 100, higher is better",
) -> None:
    """Draws opinions over predictions, with the identity and the fitted curve.

    Args:
        path: of the PNG file, complete or not written at all.
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        title: above the plot.
        fit: "logistic4", "logistic5" or None; a fit that fails is left out.
        groups: (n,) names that give the points their colour; left out beyond ten of them.
        unit: scale of both axes, for their labels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure, (axes,) = _figure(1)
    x, y = (np.asarray(side, np.float64).ravel() for side in (prediction, target))
    names = np.array([] if groups is None else groups, dtype=object)
    distinct = sorted(set(names), key=natural_key)
    dots: dict[str, Any] = {"s": 9, "alpha": 0.5, "linewidths": 0}
    if 1 < len(distinct) <= _MOST_COLOURS:
        for name in distinct:
            axes.scatter(x[names == name], y[names == name], label=name, **dots)
    else:
        axes.scatter(x, y, **dots)
    known = np.isfinite(x) & np.isfinite(y)
    ends = [min(x[known].min(), y[known].min()), max(x[known].max(), y[known].max())]
    axes.plot(ends, ends, color="0.6", linewidth=1, linestyle="--", label="identity")
    if fit is not None and known.sum() > 5 and np.ptp(x[known]) > 0:
        parameters = fit_logistic(fit, x[known], y[known], None, _SETTLED_EVALUATIONS)
        if parameters is not None:
            line = np.linspace(x[known].min(), x[known].max(), 200)
            axes.plot(line, LOGISTICS[fit](line, *parameters), color="black", label=fit)
    axes.set(xlabel=f"predicted score ({unit})", ylabel="mean opinion score", title=title)
    axes.legend(fontsize="small")
    _save(figure, path)


def calibration_plot(
    path: str | Path,
    prediction: ArrayLike,
    target: ArrayLike,
    deviation: ArrayLike,
    report: UncertaintyReport,
) -> None:
    """Draws how often intervals hold the opinion, and the sparsification curve.

    The curve on the left is of normal intervals μ ± z σ; the points are those of the report, which
    take the model's own interval factors.

    Args:
        path: of the PNG file, complete or not written at all.
        prediction: (n,) scores.
        target: (n,) mean opinion scores.
        deviation: (n,) stated standard deviations.
        report: what was measured on them.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from scipy import stats

    figure, (left, right) = _figure(2)
    mean, label, sigma = (np.asarray(v, np.float64) for v in (prediction, target, deviation))
    nominal = np.linspace(0.02, 0.98, 49)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ratios = np.abs(label - mean) / sigma
    observed = [float(np.mean(ratios <= z)) for z in stats.norm.ppf((1 + nominal) / 2)]
    left.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    left.plot(nominal, observed, label="normal intervals")
    shares = np.array([entry.observed for entry in report.coverage])
    bars = np.abs(np.array([[entry.lower, entry.upper] for entry in report.coverage]).T - shares)
    levels = [entry.nominal for entry in report.coverage]
    left.errorbar(levels, shares, bars, fmt="o", color="black", label="the model's intervals")
    left.set(xlabel="nominal coverage", ylabel="observed coverage")
    left.legend(fontsize="small")
    curve = report.sparsification
    right.plot(curve.removed, curve.rmse, label="most uncertain first")
    right.plot(curve.removed, curve.oracle, label="largest error first")
    right.axhline(curve.rmse_all, color="0.6", linewidth=1, linestyle="--", label="at random")
    right.set(
        xlabel="share of pictures put aside", ylabel="RMSE of the rest, points", ylim=(0, None)
    )
    right.legend(fontsize="small")
    _save(figure, path)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    require_matplotlib()
    # The figure's own class: pyplot would look for a display and keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * panels, 5.0), layout="constrained")
    return figure, [figure.add_subplot(1, panels, place + 1) for place in range(panels)]


def _save(figure: Any, path: str | Path) -> None:
    with replaced_when_complete(Path(path)) as beside:
        figure.savefig(beside, dpi=_DPI, format="png")
