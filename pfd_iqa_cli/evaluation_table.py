"""An evaluation as tables for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pfd_iqa_hf.evaluation.agreement import Agreement, Estimate, WithinGroups
    from pfd_iqa_hf.evaluation.report import EvaluationReport
    from pfd_iqa_hf.evaluation.uncertainty import Coverage, UncertaintyReport

__all__ = ["print_report"]

_WIDTH_AWAY_FROM_A_TERMINAL = 100
_MOST_ROWS = 40


def print_report(report: EvaluationReport, stream: TextIO) -> None:
    """Print the agreement, its breakdowns and the calibration of the uncertainty."""
    console = Console(file=stream)
    if not console.is_terminal:
        console = Console(file=stream, width=_WIDTH_AWAY_FROM_A_TERMINAL)
    low, high = report.score_range
    scale = f"{low:g} to {high:g}, {'higher' if report.higher_is_better else 'lower'} is better"
    about = [f"{report.dataset}: {report.overall.pictures:,} pictures"]
    if "part" in report.facts:
        about.append(str(report.facts["part"]))
    if "model" in report.facts:
        about.append(f"model {report.facts['model']} ({report.facts.get('model_sha256')})")
    console.print(Text("; ".join(about)))
    console.print(_agreement_table(report.overall, scale))
    for column, part in report.breakdowns.items():
        console.print(_breakdown_table(column, part, is_main=column == report.group_by))
    if report.uncertainty is not None:
        console.print(_coverage_table(report.uncertainty, report.group_by))
        console.print(Text(_uncertainty_lines(report.uncertainty)))


def _agreement_table(agreement: Agreement, scale: str) -> Table:
    table = Table(title="Agreement", title_justify="left", caption=f"RMSE: {scale}")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column(f"{agreement.coverage:.0%} interval", justify="right")
    rows: list[tuple[str, Estimate | None, int]] = [
        ("SRCC", agreement.srcc, 4),
        ("PLCC", agreement.plcc, 4),
        (f"PLCC after {agreement.fit}", agreement.plcc_fitted, 4),
        ("KRCC", agreement.krcc, 4),
        ("RMSE", agreement.rmse, 3),
        (f"RMSE after {agreement.fit}", agreement.rmse_fitted, 3),
    ]
    for name, estimate, digits in rows:
        if estimate is not None:
            interval = "-"
            if not math.isnan(estimate.lower):
                interval = f"{estimate.lower:.{digits}f} to {estimate.upper:.{digits}f}"
            table.add_row(name, _number(estimate.value, digits), interval)
    return table


def _breakdown_table(column: str, part: WithinGroups, is_main: bool) -> Table:
    table = Table(title=f"Within each {column}", title_justify="left")
    table.add_column(column, overflow="fold")
    for name in ("pictures", "SRCC", "interval", "PLCC", "KRCC", "RMSE"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, group in list(part.groups.items())[:_MOST_ROWS]:
        table.add_row(Text(name), f"{group.pictures:,}", *_cells(group))
    if len(part.groups) > _MOST_ROWS:
        table.add_row(f"… and {len(part.groups) - _MOST_ROWS} more", *[""] * 6)
    table.add_section()
    style = "bold" if is_main else ""
    table.add_row("mean", str(len(part.groups) - len(part.left_out)), *_cells(part), style=style)
    if part.left_out:
        table.caption = f"{len(part.left_out)} without SRCC are left out of its mean"
    return table


def _cells(part: Agreement | WithinGroups) -> list[str]:
    interval = "-"
    if not math.isnan(part.srcc.lower):
        interval = f"{part.srcc.lower:.3f} to {part.srcc.upper:.3f}"
    return [
        _number(part.srcc.value, 4),
        interval,
        _number(part.plcc.value, 4),
        _number(part.krcc.value, 4),
        _number(part.rmse.value, 3),
    ]


def _coverage_table(report: UncertaintyReport, group_by: str | None) -> Table:
    table = Table(
        title="Share of opinions inside the intervals",
        title_justify="left",
        caption="± in points of 0 to 100: mean half width",
    )
    table.add_column("pictures with", overflow="fold")
    for entry in report.coverage:
        table.add_column(f"{entry.nominal:.0%}", justify="right", no_wrap=True)
        table.add_column("±", justify="right", no_wrap=True)
    table.add_row("all", *_coverage_cells(report.coverage))
    table.add_section()
    for name, coverage in report.terciles.items():
        table.add_row(f"{name} third of scores", *_coverage_cells(coverage))
    table.add_section()
    for name, coverage in list(report.groups.items())[:_MOST_ROWS]:
        table.add_row(Text(f"{group_by} {name}"), *_coverage_cells(coverage))
    return table


def _coverage_cells(coverage: list[Coverage]) -> list[str]:
    cells = []
    for entry in coverage:
        share = "-" if math.isnan(entry.observed) else f"{entry.observed:.1%}"
        cells += [share, _number(entry.width / 2, 1)]
    return cells


def _uncertainty_lines(report: UncertaintyReport) -> str:
    curve = report.sparsification
    places = [0, len(curve.removed) // 4, len(curve.removed) // 2]
    steps = ", ".join(f"{curve.removed[i]:.0%}: {_number(curve.rmse[i], 2)}" for i in places)
    return (
        f"NLL {_number(report.nll, 3)} nats; SRCC of stated deviation and error "
        f"{_number(report.error_srcc, 3)}; level calibration error "
        f"{_number(report.level_error, 3)}\n"
        f"RMSE (points) with the most uncertain put aside: {steps}; area to the oracle "
        f"{_number(curve.area, 3)} (0 perfect, 1 chance)"
    )


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
