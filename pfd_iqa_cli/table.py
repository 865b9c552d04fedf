"""Records as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pfd_iqa_cli.messages import printable

__all__ = ["print_table"]

_COLOURS = {"bad": "red", "poor": "yellow", "fair": "", "good": "green", "excellent": "bold green"}
_ROOM_BESIDE_THE_PATH = 64
_ROOM_FOR_THE_OWN_SCALE = 26
_ROOM_FOR_COSTS = 60
_COSTS_TOLD = 3
_UNFAMILIAR = "unlike the photographs that the model was trained on: the score promises nothing"


def print_table(records: Sequence[dict[str, Any]], stream: TextIO) -> None:
    """Print one row a record; a failed picture's row holds its error.

    Away from a terminal the table is as wide as its longest path needs, so that nothing is cut.
    """
    console = Console(file=stream)
    if not console.is_terminal:
        longest = max((len(_path(record)) for record in records), default=0)
        beside = _ROOM_BESIDE_THE_PATH
        if any("own_score" in record for record in records):
            beside += _ROOM_FOR_THE_OWN_SCALE
        if any("costs" in record for record in records):
            beside += _ROOM_FOR_COSTS
        console = Console(file=stream, width=max(80, longest + beside))
    table = Table(caption="score and ± (standard deviation): 0-100, higher is better")
    table.add_column("picture", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("±", justify="right", no_wrap=True)
    table.add_column("label", no_wrap=True)
    own_scale = any("own_score" in record for record in records)
    if own_scale:
        table.add_column("own scale", justify="right", no_wrap=True)
    table.add_column("most likely distortion", overflow="fold")
    explained = any("costs" in record for record in records)
    if explained:
        table.add_column("what costs points", overflow="fold")
    if any(record.get("unfamiliar") for record in records):
        table.caption = f"{table.caption}\n* {_UNFAMILIAR}"
    for record in records:
        if record["error"] is not None:
            own = ["-"] if own_scale else []
            error = Text(record["error"], "red")
            costs = ["-"] if explained else []
            table.add_row(Text(_path(record)), "-", "-", "error", *own, error, *costs)
            continue
        own = []
        if own_scale:
            low, high = record["own_low"], record["own_high"]
            own = [f"{record['own_score']:.3g} ({low:.3g} to {high:.3g})"]
        distortion = record["distortions"][0]
        table.add_row(
            Text(_path(record)),
            f"{record['score']:.1f}{'*' if record['unfamiliar'] else ''}",
            f"{record['uncertainty']:.1f}",
            Text(record["label"], _COLOURS.get(record["label"], "")),
            *own,
            f"{distortion['label']} ({distortion['score']:.0%})",
            *([_costs(record["costs"])] if explained else []),
        )
    console.print(table)


def _costs(costs: Sequence[dict[str, Any]]) -> str:
    """The distortions that cost a point or more: `noise costs 14 points, blur 3`."""
    dear = [(entry["label"], round(entry["points"])) for entry in costs if entry["points"] >= 1]
    if not dear:
        return "nothing costs a point"
    (name, points), *others = dear[:_COSTS_TOLD]
    first = f"{name} costs {points} point{'' if points == 1 else 's'}"
    return ", ".join([first, *(f"{label} {cost}" for label, cost in others)])


def _path(record: dict[str, Any]) -> str:
    # A file name may hold bytes that are no text, or control characters.
    return printable(str(record["path"]))
