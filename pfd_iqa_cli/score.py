"""`pfd-iqa score`: pictures in, scores out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from pfd_iqa_cli.messages import say, write_errors_told
from pfd_iqa_cli.model_options import (
    Device,
    Dtype,
    Model,
    check_dtype,
    checked_dtype,
    loading_errors_told,
    prepare_libraries,
)
from pfd_iqa_cli.onnx_backend import check_onnx_options, check_views, load_onnx

if TYPE_CHECKING:
    from pfd_iqa_hf.evaluation.calibration import Calibration
    from pfd_iqa_hf.scoring.folder import FolderScorer
    from pfd_iqa_hf.scoring.records import RecordWriter
    from pfd_iqa_onnx.scorer import OnnxScorer

__all__ = ["score"]

_SOME_FAILED = 1
_BELOW_THRESHOLD = 2
_PIPE_CLOSED = 141

_SUFFIX_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


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


class Order(StrEnum):
    """In which order records are written."""

    input = "input"
    worst = "worst"
    best = "best"
    path = "path"


def score(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Files, folders or patterns.", show_default=False),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Walk folders with all their sub-folders.")
    ] = False,
    format: Annotated[
        Format | None,
        typer.Option(
            help="How to write the records; by default what --output's suffix says, else a table.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, complete or not at all."),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(min=1, help="Only the N lowest scores, worst first; failures follow them."),
    ] = None,
    sort: Annotated[
        Order | None,
        typer.Option(
            help="Order of the records, failures last unless by input or path; default: input.",
            show_default=False,
        ),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Exit with 2 if any picture scores below this."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures that go through the model together.")
    ] = 8,
    device: Device = None,
    dtype: Dtype = "fp32",
    model: Model = None,
    backend: Annotated[
        Backend,
        typer.Option(help="onnx runs --model FILE of `pfd-iqa export onnx`, on the CPU, at once."),
    ] = Backend.torch,
    views: Annotated[
        str | None, typer.Option(help="View strategy: standard or fast; else the checkpoint's.")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse pictures with more pixels; default: 100 million."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What `pfd-iqa calibrate` wrote: adds own_score, own_low and own_high.",
        ),
    ] = None,
    map: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save a heat map of local quality over each picture."),
    ] = None,
) -> int:
    """Score photographs from 0 (worst) to 100 (best).

    Folders give their picture files; a file that is named is always tried. A picture that cannot be
    scored gets a record with its error, the others are still scored.

    Exit code: 0 all scored; 1 some picture failed, whatever the others scored; 2 some score below
    --fail-under; 64 wrong usage, or no picture found; 74 the output cannot be written.
    """
    kind = _output_format(format, output)
    check_dtype(dtype)
    if output is not None and not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if map is not None:
        try:
            map.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"no folder {map} ({error})", param_hint="--map") from error

    if backend is Backend.onnx:
        check_onnx_options(model, device, dtype)

    # The same files as in pfd_iqa_hf, without what importing that brings along.
    from pfd_iqa_onnx.shared import MissingExtraError, find_pictures, require_pyarrow

    if kind is Format.parquet:
        try:
            require_pyarrow()
        except MissingExtraError as error:
            raise typer.BadParameter(str(error), param_hint="--format") from error
    pictures, barren = find_pictures(paths, recursive)
    hint = "" if recursive else " (sub-folders need --recursive)"
    for path in barren:
        say(f"no pictures in {path}{hint}")
    if not pictures:
        raise typer.BadParameter("there is no picture to score", param_hint="PATH")
    own_scale = _read_calibration(calibration)
    scorer: FolderScorer | OnnxScorer
    if backend is Backend.onnx:
        scorer = load_onnx(str(model), batch_size, views, max_pixels, map is not None)
    else:  # from here on torch is imported
        scorer = _load(model, device, dtype, batch_size, views, max_pixels)
    if own_scale is not None:
        try:
            own_scale.check_model(scorer.origin["model_sha256"], scorer.view_strategy)
        except ValueError as error:
            raise typer.BadParameter(
                f"{calibration}: {error}", param_hint="--calibration"
            ) from error

    # A table on the standard output shows the errors itself.
    results = _Results(fail_under, tell=kind is not Format.table or output is not None)
    started = time.perf_counter()
    late = kind is Format.table or worst is not None or sort not in (None, Order.input)
    with write_errors_told(), _sink(kind, output, own_scale is not None) as writer:
        held: list[dict[str, Any]] = []
        quiet = output is None and not late and sys.stdout.isatty()
        for record in _with_progress(scorer.score(pictures, map), len(pictures), quiet):
            if own_scale is not None:
                own_scale.add_to(record)
            results.add(record)
            if late:
                held.append(record)
            else:
                writer.write(record)
        for record in _ordered(held, worst, sort):
            writer.write(record)
    results.report(time.perf_counter() - started)
    return results.exit_code


class _Results:
    """What the exit code and the closing line are made of."""

    def __init__(self, fail_under: float | None, tell: bool) -> None:
        self._fail_under = fail_under
        self._tell = tell
        self._count = self._failed = self._below = 0

    def add(self, record: dict[str, Any]) -> None:
        self._count += 1
        if record["error"] is not None:
            self._failed += 1
            if self._tell:
                say(f"{record['path']}: {record['error']}")
        elif self._fail_under is not None and record["score"] < self._fail_under:
            self._below += 1

    def report(self, seconds: float) -> None:
        rate = self._count / max(seconds, 1e-9)
        parts = [f"{self._count} pictures in {seconds:.1f} s ({rate:.1f} a second)"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._fail_under is not None:
            parts.append(f"{self._below} below {self._fail_under:g}")
        say(", ".join(parts))

    @property
    def exit_code(self) -> int:
        if self._failed:
            return _SOME_FAILED
        return _BELOW_THRESHOLD if self._below else 0


def _output_format(format: Format | None, output: Path | None) -> Format:
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


def _read_calibration(path: Path | None) -> Calibration | None:
    if path is None:
        return None
    from pfd_iqa_onnx.shared import load_calibration

    try:
        return load_calibration(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--calibration") from error


def _load(
    model: str | None,
    device: str | None,
    dtype: str,
    batch_size: int,
    views: str | None,
    max_pixels: int | None,
) -> FolderScorer:
    check_views(views)
    prepare_libraries(device)
    from pfd_iqa_hf.scoring.folder import FolderScorer

    with loading_errors_told(model):
        return FolderScorer(model, device, checked_dtype(dtype), batch_size, views, max_pixels)


@contextlib.contextmanager
def _sink(kind: Format, output: Path | None, own_scale: bool) -> Iterator[RecordWriter]:
    """Where records go: the file when it is complete, or the standard output."""
    from pfd_iqa_onnx.shared import ParquetWriter, replaced_when_complete

    if output is None:
        if kind is not Format.table and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
        try:
            writer = _text_writer(kind, sys.stdout, own_scale)
            yield writer
            writer.close()
            sys.stdout.flush()
        except OSError as error:
            # Python must not complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # the reader has seen enough
                raise typer.Exit(_PIPE_CLOSED) from None
            raise
        return
    with replaced_when_complete(output) as path:
        if kind is Format.parquet:
            parquet = ParquetWriter(path, own_scale)
            try:
                yield parquet
            finally:
                parquet.close()
            return
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = _text_writer(kind, stream, own_scale)
            yield writer
            writer.close()


def _text_writer(kind: Format, stream: TextIO, own_scale: bool) -> RecordWriter:
    from pfd_iqa_onnx.shared import CsvWriter, JsonLinesWriter

    if kind is Format.csv:
        return CsvWriter(stream, own_scale)
    return JsonLinesWriter(stream) if kind is Format.jsonl else _TableWriter(stream)


class _TableWriter:
    """Holds the records until all column widths are known."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._records: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self._records.append(record)

    def close(self) -> None:
        from pfd_iqa_cli.table import print_table

        print_table(self._records, self._stream)


def _with_progress(
    records: Iterator[dict[str, Any]], total: int, quiet: bool
) -> Iterator[dict[str, Any]]:
    """Show a bar on the error stream if that is a terminal and no records go to one as well."""
    if quiet or not sys.stderr.isatty():
        yield from records
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("scoring", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirecting would send records that belong to the standard output to the bar's console.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as progress:
        yield from progress.track(records, total=total)


def _ordered(
    records: list[dict[str, Any]], worst: int | None, sort: Order | None
) -> list[dict[str, Any]]:
    scored = [record for record in records if record["error"] is None]
    failed = [record for record in records if record["error"] is not None]
    if worst is not None:
        scored = sorted(scored, key=lambda record: record["score"])[:worst]
        kept = {id(record) for record in (*scored, *failed)}
        records = [record for record in records if id(record) in kept]
        sort = sort or Order.worst
    if sort is Order.path:
        return sorted(records, key=lambda record: record["path"])
    if sort in (Order.worst, Order.best):
        best_first = sort is Order.best
        return sorted(scored, key=lambda record: record["score"], reverse=best_first) + failed
    return records
