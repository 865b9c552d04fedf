"""What `pfd-iqa score` was given to score: listed at once where that is quick, else as it comes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import typer

from pfd_iqa_cli.messages import say

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.find import FoundPicture
    from pfd_iqa_hf.scoring.inputs import InputOptions

__all__ = ["GivenInputs"]


class GivenInputs:
    """The pictures that some inputs mean.

    Args:
        paths: As on the command line.
        options: How they are read.
        lazily: Whether nothing is listed whole, however many there are.

    Attributes:
        pictures: What to score, in order; iterate once.
        listed: Their number, where they were listed.

    Raises:
        typer.BadParameter: there is no picture.
    """

    def __init__(self, paths: Sequence[str], options: InputOptions, lazily: bool) -> None:
        """List the pictures, or find the first one."""
        from pfd_iqa_cli.light_scoring import find_inputs, find_pictures, is_plain

        self._barren: list[str] = []
        self._hint = "" if options.recursive else " (sub-folders need --recursive)"
        self.pictures: Iterator[FoundPicture]
        self.listed: int | None = None
        self._counted: int | None = None
        if not lazily and all(is_plain(path) for path in paths):
            listed, self._barren = find_pictures(paths, options.recursive)
            self.tell_barren()
            self.pictures, self.listed = iter(listed), len(listed)
            if listed:
                return
        else:
            stdin = getattr(sys.stdin, "buffer", None)
            found = find_inputs(paths, options, self._barren, stdin)
            first = next(found, None)  # before a model is loaded for nothing
            if first is not None:
                self.pictures = chain([first], found)
                if sys.stderr.isatty() and all(is_plain(path) for path in paths):
                    count = partial(self._count, list(paths), options.recursive)
                    threading.Thread(target=count, name="counting", daemon=True).start()
                return
            self.tell_barren()
        raise typer.BadParameter("there is no picture to score", param_hint="PATH")

    def total(self) -> int | None:
        """The number of pictures; None where, or while, it is not known."""
        return self._counted if self.listed is None else self.listed

    def _count(self, paths: list[str], recursive: bool) -> None:
        """Walk once more beside the scoring, for the time left; nothing is kept."""
        from pfd_iqa_cli.light_scoring import expand_path

        self._counted = sum(1 for path in paths for _ in expand_path(path, recursive))

    def tell_barren(self) -> None:
        """Say which inputs held no picture; those that come lazily are known at the end."""
        for path in self._barren:
            say(f"no pictures in {path}{self._hint if os.path.isdir(path) else ''}")
        self._barren.clear()
