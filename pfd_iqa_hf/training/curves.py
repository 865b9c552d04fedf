"""The curves of a run's log as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_curves"]

_NOT_LOSSES = {"stage", "step", "time", "learning_rate", "seconds_per_step"}
_SMOOTHED = 5  # logged rows
_COLUMNS = 3


def draw_curves(rows: Sequence[dict[str, Any]], output: Path) -> None:
    """Write one panel for each part of the student's loss, and one for the validation.

    Args:
        rows: Of `read_log`.
        output: A PNG.
    """
    from matplotlib.figure import Figure

    student = [row for row in rows if row["stage"] == "student"]
    checked = [row for row in rows if row["stage"] == "validation"]
    names = [name for name in (student[0] if student else {}) if name not in _NOT_LOSSES]
    panels = len(names) + bool(checked)
    lines = max(1, -(-panels // _COLUMNS))
    figure = Figure(figsize=(11, 2.5 * lines), layout="constrained")
    axes = [figure.add_subplot(lines, _COLUMNS, number + 1) for number in range(panels)]
    for axis, name in zip(axes, names, strict=False):
        known = [row for row in student if name in row]
        axis.plot([row["step"] for row in known], _smooth([row[name] for row in known]))
        axis.set_title(name, fontsize=10)
    if checked:
        for name in ("srcc", "within"):
            known = [row for row in checked if name in row]
            axes[-1].plot(
                [row["step"] for row in known], [row[name] for row in known], "o-", label=name
            )
        axes[-1].set_title("validation SRCC", fontsize=10)
        axes[-1].legend(fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_xlabel("step", fontsize=8)
    figure.savefig(output, dpi=90, format="png")


def _smooth(values: list[float]) -> list[float]:
    windows = (values[max(0, i - _SMOOTHED) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
