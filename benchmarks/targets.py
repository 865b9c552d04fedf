"""Numbers beside those to reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_ROUNDING = 1e-12  # of sums: the mean of five times 0.8 is less than 0.8


@dataclass(frozen=True)
class Target:
    """A measured number and its limits.

    Args:
        name: What was measured.
        value: The number; NaN holds no limit.
        least: What it must at least be, None for no such limit.
        most: What it may at most be, None for no such limit.
        share: Whether it is a share, printed in per cent.
        digits: Digits behind the point.
    """

    name: str
    value: float
    least: float | None = None
    most: float | None = None
    share: bool = False
    digits: int = 3

    @property
    def holds(self) -> bool:
        """Whether the number is within its limits."""
        return bool(
            not math.isnan(self.value)
            and (self.least is None or self.value >= self.least - _ROUNDING)
            and (self.most is None or self.value <= self.most + _ROUNDING)
        )

    @property
    def limits(self) -> str:
        """The limits as text; empty without any."""
        sides = (("at least", self.least), ("at most", self.most))
        return ", ".join(
            f"{word} {self._text(limit)}" for word, limit in sides if limit is not None
        )

    def line(self) -> str:
        """Name, number, limits and whether they hold."""
        verdict = ("holds" if self.holds else "DOES NOT HOLD") if self.limits else ""
        return (
            f"  {self.name:58s} {self._text(self.value):>9s}   {self.limits:24s} {verdict}".rstrip()
        )

    def _text(self, value: float) -> str:
        if self.share:
            return f"{100 * value:.1f} %"
        if 0 < abs(value) < 10.0**-self.digits:
            return f"{value:.1e}"
        return f"{value:.{self.digits}f}"


def percent(
    name: str, value: float, least: float | None = None, most: float | None = None
) -> Target:
    """A share with its limits."""
    return Target(name, value, least, most, share=True)


def print_targets(heading: str, targets: Sequence[Target]) -> None:
    """One line a number, and how many hold."""
    print(heading)
    for target in targets:
        print(target.line())
    limited = [target for target in targets if target.limits]
    print(f"  {sum(target.holds for target in limited)} of {len(limited)} hold")


def as_rows(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "name": target.name,
            "value": None if math.isnan(target.value) else float(target.value),
            "least": target.least,
            "most": target.most,
            "share": target.share,
            "holds": target.holds if target.limits else None,
        }
        for target in targets
    ]


def heading(result: dict[str, Any], count: str) -> str:
    """The model and how much was measured, to stand above numbers."""
    return f"model {result['model_sha256'] or result['model']}, {result['dtype']}, {count}"
