"""What commands say beside their results: progress and notes, on standard error."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import typer

__all__ = [
    "CANNOT_WRITE",
    "INTERRUPTED",
    "PIPE_CLOSED",
    "TERMINATED",
    "give_up_output",
    "interrupts_are_over",
    "interrupts_end_the_process",
    "interrupts_raise",
    "notes_told",
    "printable",
    "progress_bar",
    "say",
    "terminated",
    "write_errors_told",
]

CANNOT_WRITE = 74  # as sysexits.h has it
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 141  # 128 and SIGPIPE's number, which not every system has
TERMINATED = 128 + signal.SIGTERM

_signals_to_end: list[int] = []


def interrupts_end_the_process() -> None:
    """Until libraries are imported, an interrupt is the end: there is nothing to clean up yet.

    As an exception it could strike inside a destructor or a callback, where Python reports it as
    ignored and goes on.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupts_raise() -> None:
    """From here on an interrupt is KeyboardInterrupt again, so that half-written files go.

    So is SIGTERM, with which containers, schedulers and services end a process.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _signals_to_end.clear()
        signal.signal(signal.SIGTERM, _end_as_interrupted)


def _end_as_interrupted(number: int, frame: object) -> None:
    _signals_to_end.append(number)
    raise KeyboardInterrupt


def terminated() -> bool:
    """Whether it was SIGTERM that interrupted."""
    return bool(_signals_to_end)


def interrupts_are_over() -> None:
    """From here on interrupts are ignored: the process is ending, and waits for its threads.

    SIGTERM ends it at once, as there is nothing left to clean up.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if signal.getsignal(signal.SIGTERM) is _end_as_interrupted:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def give_up_output() -> None:
    """After it could not be written to: Python must not complain once more when it ends."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def printable(text: str) -> str:
    """The text with control characters and halves of characters spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(message: str) -> None:
    """One line on standard error; control characters are spelled out."""
    print(printable(message), file=sys.stderr)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function of the numbers done and of all, or None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show


@contextlib.contextmanager
def notes_told() -> Iterator[list[str]]:
    """Collect the package's warnings of a block, and say each once after it."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield notes
        finally:
            for warning in caught:
                text = str(warning.message)
                if issubclass(warning.category, UserWarning) and text not in notes:
                    notes.append(text)
                    say(f"note: {text}")


@contextlib.contextmanager
def write_errors_told() -> Iterator[None]:
    """One line and exit code 74 for an output that cannot be written.

    Raises:
        typer.Exit: with that code.
    """
    interrupts_raise()
    try:
        yield
    except BrokenPipeError:  # the reader has seen enough, which `run` tells by the exit code
        raise
    except OSError as error:
        say(f"cannot write: {error}")
        raise typer.Exit(CANNOT_WRITE) from error
