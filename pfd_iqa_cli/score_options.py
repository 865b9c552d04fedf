"""The options of `pfd-iqa score`: their types, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pfd_iqa_cli.output_paths import refuse_missing_folder

__all__ = [
    "AllowPrivate",
    "Backend",
    "BulkOptions",
    "Column",
    "EngineName",
    "EngineOption",
    "Every",
    "Explain",
    "Fetch",
    "Format",
    "Null",
    "Order",
    "OutputDir",
    "PartSize",
    "Quality",
    "RayAddress",
    "Recursive",
    "Report",
    "Resume",
    "TIME_LIMIT",
    "TimeLimit",
    "Workers",
    "check_bulk_options",
    "output_format",
]

_SUFFIX_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_INPUTS = "Other inputs"
_LARGE = "Large runs"

Recursive = Annotated[
    bool,
    typer.Option(
        "--recursive",
        "-r",
        help="Walk folders with all their sub-folders, but for links to folders.",
    ),
]


class Format(StrEnum):
    """How records are written."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class Backend(StrEnum):
    """What runs the model."""

    torch = "torch"
    onnx = "onnx"


class EngineName(StrEnum):
    """Where the model runs."""

    local = "local"
    ray = "ray"


class Quality(StrEnum):
    """How careful to be."""

    thorough = "thorough"
    standard = "standard"
    fast = "fast"


class Order(StrEnum):
    """In which order records are written."""

    input = "input"
    worst = "worst"
    best = "best"
    path = "path"


OutputDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for records in parts, each complete or absent, with manifest and summary.",
        rich_help_panel=_LARGE,
    ),
]
PartSize = Annotated[
    int,
    typer.Option(
        min=1, help="Records in a part; it also ends after 5 minutes.", rich_help_panel=_LARGE
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --output-dir: score what has no record there.",
        rich_help_panel=_LARGE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that decode; default: one a core, none for a few pictures. With "
        "--engine ray its workers; default: one a core or accelerator of the cluster.",
        show_default=False,
        rich_help_panel=_LARGE,
    ),
]
TIME_LIMIT = 60.0
TimeLimit = Annotated[
    float,
    typer.Option(
        min=0.1,
        help="Seconds that a process may decode, or fetch, one picture. A few plain files are "
        "decoded without processes, and without a limit, unless another one is given.",
        rich_help_panel=_LARGE,
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(help="local, or ray: on the machines of a Ray cluster.", rich_help_panel=_LARGE),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Cluster to join: auto, HOST:PORT or ray://HOST:PORT; else Ray is started here.",
        show_default=False,
        rich_help_panel=_LARGE,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a page with the histogram, the worst and best pictures, and the failures.",
        rich_help_panel=_LARGE,
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Add what each distortion takes from the score, in points; slower."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="Column of paths or bytes in tables and datasets; else image, path, file ...",
        rich_help_panel=_INPUTS,
    ),
]
Null = Annotated[
    bool,
    typer.Option(
        "--null",
        help="Paths on the standard input (-) end in a NUL byte, as of find -print0.",
        rich_help_panel=_INPUTS,
    ),
]
Every = Annotated[
    float,
    typer.Option(min=0.001, help="Seconds between the frames of a video.", rich_help_panel=_INPUTS),
]
Fetch = Annotated[
    bool,
    typer.Option(
        "--fetch", help="Fetch addresses that lists and tables name.", rich_help_panel=_INPUTS
    ),
]
AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private-addresses",
        help="Fetch from private networks and this machine too.",
        rich_help_panel=_INPUTS,
    ),
]


@dataclass(frozen=True)
class BulkOptions:
    """What only large runs have.

    Attributes:
        output_dir: Folder for parts, or None.
        part_size: Records in a part.
        resume: Whether the folder's run is continued.
        workers: Decoding processes; None decides by itself.
        time_limit: Seconds for one picture.
        report: Page to write, or None.
    """

    output_dir: Path | None
    part_size: int
    resume: bool
    workers: int | None
    time_limit: float
    report: Path | None


def output_format(format: Format | None, output: Path | None, folder: Path | None) -> Format:
    """The format that the options mean.

    Raises:
        typer.BadParameter: they mean none.
    """
    if folder is not None:
        if format not in (None, Format.parquet, Format.jsonl):
            raise typer.BadParameter(
                "--output-dir takes parquet or jsonl, not " + str(format), param_hint="--format"
            )
        return format or Format.parquet
    if format is Format.parquet and output is None:
        raise typer.BadParameter("parquet needs --output FILE", param_hint="--format")
    if format is not None:
        return format
    if output is None:
        return Format.table
    suffix = output.suffix.lower()
    if suffix not in _SUFFIX_FORMATS:
        known = ", ".join(_SUFFIX_FORMATS)
        raise typer.BadParameter(
            f"cannot tell the format of {output}: end it in {known}, or give --format",
            param_hint="--output",
        )
    return Format(_SUFFIX_FORMATS[suffix])


def check_bulk_options(
    bulk: BulkOptions, output: Path | None, ordered: bool, map: Path | None
) -> None:
    """Refuse options that contradict each other, before anything is loaded.

    Raises:
        typer.BadParameter: names the option.
    """
    if bulk.output_dir is not None:
        if output is not None:
            raise typer.BadParameter("goes without --output", param_hint="--output-dir")
        if ordered:
            raise typer.BadParameter(
                "records of --output-dir are in the order of the input; sort what it wrote",
                param_hint="--worst, --sort",
            )
    elif bulk.resume:
        raise typer.BadParameter("needs --output-dir", param_hint="--resume")
    if map is not None and (bulk.output_dir or bulk.report or bulk.workers):
        raise typer.BadParameter(
            "goes without --output-dir, --report and --workers", param_hint="--map"
        )
    if bulk.report is not None:
        refuse_missing_folder(bulk.report, "--report")
