"""The course of `pfd-iqa score` once everything is loaded: records out, and what is told."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pfd_iqa_cli.messages import CANNOT_WRITE, say, write_errors_told
from pfd_iqa_cli.score_folder import begin_run, kept_on_interrupt, without_done
from pfd_iqa_cli.score_options import BulkOptions, Format, Order
from pfd_iqa_cli.score_output import Results, ordered, record_sink
from pfd_iqa_cli.score_progress import say_summary, with_progress

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.find import FoundPicture
    from pfd_iqa_hf.scoring.summary import Summary

__all__ = ["Run"]

_SYSTEM_ERROR = 71  # as sysexits.h has it
_WRITING_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


@dataclass
class Run:
    """Everything that was asked for.

    Attributes:
        pictures: What to score.
        total: Tells their number, None while it is not known.
        scored: Scores pictures; a generator.
        facts: What the scores depend on.
        inputs: What was given.
        extra: Fields of the records beside those that all have.
        bulk: Options of large runs.
        fail_under: Score below which the exit code tells.
    """

    pictures: Iterator[FoundPicture]
    total: Callable[[], int | None]
    scored: Callable[[Iterator[FoundPicture]], Generator[ScoredPicture, None, None]]
    facts: dict[str, Any]
    inputs: dict[str, Any]
    extra: tuple[str, ...]
    bulk: BulkOptions
    fail_under: float | None

    def to_stream(
        self, kind: Format, output: Path | None, worst: int | None, sort: Order | None
    ) -> int:
        """Write to a file or the standard output; the exit code."""
        # A table on the standard output shows the errors itself.
        results = Results(self.fail_under, tell=kind is not Format.table or output is not None)
        summary = self._summary() if self.bulk.report is not None else None
        late = kind is Format.table or worst is not None or sort not in (None, Order.input)
        quiet = output is None and not late and sys.stdout.isatty()
        started = time.perf_counter()
        with write_errors_told(), record_sink(kind, output, self.extra) as writer:
            held: list[dict[str, Any]] = []
            with contextlib.closing(_system_errors_told(self.scored(self.pictures))) as scored:
                for result in with_progress(scored, self.total, quiet, lines=False):
                    results.add(result.record)
                    if summary is not None:
                        summary.add(result.record, result.view)
                    if late:
                        held.append(result.record)
                    else:
                        writer.write(result.record)
            for record in ordered(held, worst, sort):
                writer.write(record)
        if summary is not None:
            self._write_report(summary)
        results.report(time.perf_counter() - started)
        return results.exit_code

    def to_folder(self, kind: Format) -> int:
        """Write parts to `--output-dir`, and their summary; the exit code."""
        from pfd_iqa_cli.light_scoring import OutputFolder

        assert self.bulk.output_dir is not None
        folder = OutputFolder(self.bulk.output_dir, kind.value, self.bulk.part_size, self.extra)
        results, summary = Results(self.fail_under, tell=False), self._summary()

        def count(record: dict[str, Any]) -> None:
            results.add(record)
            summary.add(record)

        started = time.perf_counter()
        with write_errors_told():
            facts = {**self.facts, "format": kind.value}
            done = begin_run(folder, self.bulk.resume, facts, self.inputs, count)
            results.begin_anew()
            if len(done):
                say(f"{len(done):,} pictures have a record in {folder.folder}")
            rest = without_done(self.pictures, done) if len(done) else self.pictures

            def left() -> int | None:
                total = self.total()
                return None if total is None else max(total - len(done), 0)

            with (
                kept_on_interrupt(folder),
                contextlib.closing(_system_errors_told(self.scored(rest))) as scored,
            ):
                for result in with_progress(scored, left, quiet=False, lines=True):
                    results.add(result.record)
                    summary.add(result.record, result.view)
                    folder.write(result.record)
            folder.write_summary({**summary.to_json(), **self.facts})
        if self.bulk.report is not None:
            self._write_report(summary)
        say_summary(summary)
        results.report(time.perf_counter() - started)
        return results.exit_code

    @staticmethod
    def _summary() -> Summary:
        from pfd_iqa_cli.light_scoring import Summary

        return Summary()

    def _write_report(self, summary: Summary) -> None:
        from pfd_iqa_cli.light_scoring import report_page, write_complete

        assert self.bulk.report is not None
        shown = {**self.facts, **self.inputs}
        told = {
            name.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, list) else value
            for name, value in shown.items()
            if value not in (None, False)
        }
        try:
            write_complete(self.bulk.report, report_page(summary, told))
        except OSError as error:
            say(f"cannot write: {error}")
            raise typer.Exit(CANNOT_WRITE) from error


def _system_errors_told(
    results: Generator[ScoredPicture, None, None],
) -> Generator[ScoredPicture, None, None]:
    """Tell what ends a run and is neither a picture's fault nor the output's.

    Raises:
        typer.Exit: with 71, or 74 where a heat map cannot be written, after one line.
    """
    from pfd_iqa_cli.light_scoring import DecoderStartError

    with contextlib.closing(results):
        try:
            yield from results
        except (DecoderStartError, OSError) as error:
            if getattr(error, "errno", None) in _WRITING_ERRORS:  # of a heat map
                say(f"cannot write: {error}")
                raise typer.Exit(CANNOT_WRITE) from error
            say(f"cannot go on: {error}")
            raise typer.Exit(_SYSTEM_ERROR) from error
