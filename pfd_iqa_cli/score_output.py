"""Where the records of `pfd-iqa score` go, in which order, and what is said at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pfd_iqa_cli.messages import PIPE_CLOSED, give_up_output, say
from pfd_iqa_cli.score_options import Format, Order

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.records import RecordWriter

__all__ = ["Results", "ordered", "record_sink"]

_SOME_FAILED = 1
_BELOW_THRESHOLD = 2


class Results:
    """What the exit code and the closing line are made of.

    Args:
        fail_under: Score below which the exit code tells, or None.
        tell: Whether each failure is told when it comes.
    """

    def __init__(self, fail_under: float | None, tell: bool) -> None:
        """Start with nothing."""
        self._fail_under = fail_under
        self._tell = tell
        self.count = self.failed = 0
        self._below = self._before = 0

    def add(self, record: dict[str, Any]) -> None:
        """Take one record."""
        self.count += 1
        if record["error"] is not None:
            self.failed += 1
            if self._tell:
                say(f"{record['path']}: {record['error']}")
        elif self._fail_under is not None and record["score"] < self._fail_under:
            self._below += 1

    def begin_anew(self) -> None:
        """What was added so far is of an earlier go: no part of the rate."""
        self._before = self.count

    def report(self, seconds: float) -> None:
        """Say the closing line."""
        count = self.count - self._before
        rate = count / max(seconds, 1e-9)
        parts = [f"{count} pictures in {seconds:.1f} s ({rate:.1f} a second)"]
        if self._before:
            parts.append(f"{self._before} before")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self._fail_under is not None:
            parts.append(f"{self._below} below {self._fail_under:g}")
        say(", ".join(parts))

    @property
    def exit_code(self) -> int:
        """0, 1 or 2, see `score`."""
        if self.failed:
            return _SOME_FAILED
        return _BELOW_THRESHOLD if self._below else 0


@contextlib.contextmanager
def record_sink(
    kind: Format, output: Path | None, extra: Sequence[str] = ()
) -> Iterator[RecordWriter]:
    """Where records, with `extra` fields, go: the file when it is complete, or standard output."""
    from pfd_iqa_onnx.shared import ParquetWriter, replaced_when_complete

    if output is None:
        if kind is not Format.table and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
        try:
            writer = _text_writer(kind, sys.stdout, extra)
            yield writer
            writer.close()
            sys.stdout.flush()
        except OSError as error:
            give_up_output()
            if isinstance(error, BrokenPipeError):  # the reader has seen enough
                raise typer.Exit(PIPE_CLOSED) from None
            raise
        return
    with replaced_when_complete(output) as path:
        if kind is Format.parquet:
            parquet = ParquetWriter(path, extra)
            try:
                yield parquet
            finally:
                parquet.close()
            return
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = _text_writer(kind, stream, extra)
            yield writer
            writer.close()


def _text_writer(kind: Format, stream: TextIO, extra: Sequence[str]) -> RecordWriter:
    from pfd_iqa_onnx.shared import CsvWriter, JsonLinesWriter

    if kind is Format.csv:
        return CsvWriter(stream, extra)
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


def ordered(
    records: list[dict[str, Any]], worst: int | None, sort: Order | None
) -> list[dict[str, Any]]:
    """Records as `--worst` and `--sort` want them."""
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
