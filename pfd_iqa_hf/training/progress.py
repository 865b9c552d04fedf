"""A progress bar on a terminal, on the main process; silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["step_progress"]


@contextmanager
def step_progress(
    name: str, steps: int, done: int, accelerator: Any
) -> Iterator[Callable[[float], None]]:
    """Yields a function to call with the loss after each step.

    Args:
        name: Of the stage.
        steps: Of the whole stage.
        done: Steps that an earlier run did.
        accelerator: Tells whether this is the main process.
    """
    if not (accelerator.is_main_process and sys.stderr.isatty()):
        yield lambda loss: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=steps, completed=done, loss="")

        def advance(loss: float) -> None:
            bar.update(task, advance=1, loss=f"loss {loss:.4f}")

        yield advance
