"""How a scoring run tells how far it is, and how it ended; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pfd_iqa_cli.messages import say

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.summary import Summary

__all__ = ["say_summary", "with_progress"]

_SECONDS_BETWEEN_LINES = 60.0
_BAR_WIDTH = 40


_Results = Iterator["ScoredPicture"]
_Total = Callable[[], int | None]


def with_progress(results: _Results, total: _Total, quiet: bool, lines: bool) -> _Results:
    """Pass results on and tell how many there were: a bar on a terminal, else lines or nothing.

    Args:
        results: What is passed on.
        total: Tells how many there will be, None while that is not known.
        quiet: Whether records go to the same terminal, which a bar would disturb.
        lines: Whether to say a line a minute where there is no terminal.
    """
    if quiet:
        return results
    if sys.stderr.isatty():
        return _with_bar(results, total)
    return _with_lines(results, total) if lines else results


def _with_bar(results: _Results, total: _Total) -> _Results:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        "scoring",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
    )
    began, failed = time.monotonic(), 0
    # Redirecting would send records that belong to the standard output to the bar's console.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as progress:
        task = progress.add_task("scoring", total=total(), rate="", failed="")
        for count, result in enumerate(results, 1):
            failed += result.record["error"] is not None
            rate = count / max(time.monotonic() - began, 1e-9)
            told = f"{failed:,} failed" if failed else ""
            progress.update(task, completed=count, total=total(), rate=f"{rate:.1f}/s", failed=told)
            yield result


def _with_lines(results: _Results, total: _Total) -> _Results:
    began = told = time.monotonic()
    failed = 0
    for count, result in enumerate(results, 1):
        failed += result.record["error"] is not None
        now = time.monotonic()
        if now - told >= _SECONDS_BETWEEN_LINES:
            told = now
            rate = count / (now - began)
            parts = [f"{count:,} pictures", f"{rate:.1f} a second", f"{failed:,} failed"]
            if (known := total()) is not None:
                parts.append(f"{max(known - count, 0) / rate / 60:.0f} minutes left")
            say(", ".join(parts))
        yield result


def say_summary(summary: Summary) -> None:
    """The histogram, the worst and best three, and failures by reason."""
    facts: dict[str, Any] = summary.to_json()
    if summary.scored:
        counts = facts["histogram"]["pictures"]
        edges = facts["histogram"]["edges"]
        highest = max(counts)
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            bar = "#" * round(_BAR_WIDTH * count / highest)
            say(f"{low:4}-{high:<4}{count:>10,} {bar}".rstrip())
        say(
            f"mean {facts['mean']:.1f}, median {facts['median']:.1f}, "
            f"standard deviation {facts['standard_deviation']:.1f}"
        )
        for name in ("worst", "best"):
            for picture in facts[name][:3]:
                say(f"{name}: {picture['score']:.1f} {picture['path']}")
    for failure in facts["failures"]:
        say(f"{failure['count']:,} failed: {failure['reason']} (as {failure['examples'][0]})")
