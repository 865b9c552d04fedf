"""`pfd-iqa score --output-dir`: a run that may end at any moment and be continued."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pfd_iqa_cli.messages import (
    CANNOT_WRITE,
    INTERRUPTED,
    interrupts_are_over,
    interrupts_raise,
    say,
)

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.find import FoundPicture
    from pfd_iqa_hf.scoring.parts import OutputFolder
    from pfd_iqa_hf.scoring.path_set import PathSet

__all__ = ["begin_run", "kept_on_interrupt", "without_done"]


def begin_run(
    folder: OutputFolder, resume: bool, facts: dict[str, Any], inputs: dict[str, Any], counted: Any
) -> PathSet:
    """Start or continue the run of a folder.

    Args:
        folder: Where.
        resume: Whether to continue.
        facts: What the scores depend on.
        inputs: What is scored, told but not compared.
        counted: Called with each record that is there already.

    Returns:
        The paths that have a record.

    Raises:
        typer.BadParameter: the folder cannot be used for this run.
    """
    from pfd_iqa_cli.light_scoring import OutputFolderError, PathSet

    began = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {**facts, "inputs": inputs, "began": began}
    try:
        if resume:
            return folder.resume(manifest, counted)
        folder.start(manifest)
        return PathSet()
    except OutputFolderError as error:
        hint = "--resume" if resume else "--output-dir"
        raise typer.BadParameter(str(error), param_hint=hint) from error


def without_done(pictures: Iterable[FoundPicture], done: PathSet) -> Iterator[FoundPicture]:
    """The pictures that have no record yet."""
    for picture in pictures:
        if picture.path not in done:
            yield picture


@contextlib.contextmanager
def kept_on_interrupt(folder: OutputFolder) -> Iterator[None]:
    """Complete the last part when the block ends, in whatever way; say how to go on.

    Raises:
        typer.Exit: with 130 after an interrupt, with 74 if the folder cannot be written.
    """
    interrupts_raise()
    try:
        yield
        folder.close_part()
    except KeyboardInterrupt:
        _complete_part(folder)
        interrupts_are_over()
        say(_told(folder))  # that it was interrupted is told at the end
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:  # the folder has discarded what it could not write
        with contextlib.suppress(OSError):
            _complete_part(folder)  # of an error that was not the folder's
        say(f"cannot write: {error}")
        say(_told(folder))
        raise typer.Exit(CANNOT_WRITE) from error
    except BaseException:
        _complete_part(folder)
        say(_told(folder))
        raise
    finally:
        folder.release()


def _complete_part(folder: OutputFolder) -> None:
    # A second interrupt comes after the part is complete, and has nothing more to end.
    with contextlib.suppress(KeyboardInterrupt):
        folder.close_part()


def _told(folder: OutputFolder) -> str:
    return f"what was scored is in {folder.folder}, go on with: {_resuming()}"


def _resuming() -> str:
    given = sys.argv[1:]
    more = [] if "--resume" in given else ["--resume"]
    return shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "pfd-iqa"), *given, *more])
