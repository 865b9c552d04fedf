"""`pfd-iqa compare`: which picture looks better, and how surely."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from pfd_iqa_cli.messages import printable, say, write_errors_told
from pfd_iqa_cli.model_options import (
    BatchSize,
    Device,
    Dtype,
    Model,
    check_dtype,
    checked_dtype,
    loading_errors_told,
    prepare_libraries,
)

__all__ = ["compare"]

_FAILED = 1


def compare(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Two pictures, or more to rank; a folder is all of its.",
            show_default=False,
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text.")
    ] = False,
    model: Model = None,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = "fp32",
) -> int:
    """Say which picture looks better, with the probability that people would agree.

    Exit code: 0 compared; 1 a picture cannot be scored; 64 wrong usage.
    """
    check_dtype(dtype)

    # From here on torch is imported.
    from pfd_iqa_hf.scoring.find import find_pictures

    found, barren = find_pictures(pictures)
    for path in barren:
        say(f"no pictures in {path}")
    if len(found) < 2:
        raise typer.BadParameter(
            f"different pictures given: {len(found)}; a comparison needs two", param_hint="A B"
        )
    prepare_libraries(device)
    from pfd_iqa_hf.evaluation.comparison import ranking
    from pfd_iqa_hf.scoring.folder import FolderScorer

    if model is not None:
        say("note: the probability was calibrated for the bundled checkpoint, not for this model")
    with loading_errors_told(model):
        scorer = FolderScorer(model, device, checked_dtype(dtype), batch_size)
    records = list(scorer.score(found))
    failed = [record for record in records if record["error"] is not None]
    for record in failed:
        say(f"{record['path']}: {record['error']}")
    if failed:
        return _FAILED
    order = ranking(
        [record["score"] for record in records], [record["uncertainty"] for record in records]
    )
    ranked = [
        {
            "rank": place,
            "path": records[index]["path"],
            "score": records[index]["score"],
            "uncertainty": records[index]["uncertainty"],
            "label": records[index]["label"],
            "better_than_next": probability,
        }
        for place, (index, probability) in enumerate(order, start=1)
    ]
    with write_errors_told():
        if as_json:
            print(json.dumps({"ranking": ranked, **scorer.origin}, ensure_ascii=False, indent=1))
        elif len(ranked) == 2:
            print(_sentence(*ranked))
        else:
            _print_ranking(ranked)
        sys.stdout.flush()
    return 0


def _sentence(first: dict[str, Any], second: dict[str, Any]) -> str:
    scores = " and ".join(
        f"{_shown(entry)} {entry['score']:.1f} ± {entry['uncertainty']:.1f}"
        for entry in (first, second)
    )
    if first["score"] == second["score"]:
        return f"neither looks better: {scores}"
    return f"{_shown(first)} looks better, probability {first['better_than_next']:.2f}: {scores}"


def _print_ranking(ranked: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    if not console.is_terminal:
        longest = max(len(_shown(entry)) for entry in ranked)
        console = Console(file=sys.stdout, width=max(80, longest + 50))
    table = Table(caption="last column: probability that it looks better than the next")
    table.add_column("rank", justify="right")
    table.add_column("picture", overflow="fold")
    for name in ("score", "±", "beats next"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in ranked:
        probability = entry["better_than_next"]
        table.add_row(
            str(entry["rank"]),
            Text(_shown(entry)),
            f"{entry['score']:.1f}",
            f"{entry['uncertainty']:.1f}",
            "" if probability is None else f"{probability:.2f}",
        )
    console.print(table)


def _shown(entry: dict[str, Any]) -> str:
    # A file name may hold bytes that are no text, or control characters.
    return printable(str(entry["path"]))
