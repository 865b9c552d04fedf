"""How inputs are read, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LARGEST_FILE", "InputOptions"]

# Of a picture that is read into memory: from an archive, an address.
LARGEST_FILE = 256 << 20


@dataclass(frozen=True)
class InputOptions:
    """What the user said about the inputs.

    Attributes:
        recursive: Folders are walked through all their sub-folders.
        column: Of a table, the column of paths or bytes; None looks for a usual name.
        null: Paths on the standard input end in a NUL byte, not in a new line.
        fetch: Addresses inside lists and tables are fetched.
        allow_private: Addresses may lie in a private network, or on this machine.
        every: Seconds between the frames of a video.
        seconds: Time limit of fetching one picture, and of decoding one frame.
    """

    recursive: bool = False
    column: str | None = None
    null: bool = False
    fetch: bool = False
    allow_private: bool = False
    every: float = 1.0
    seconds: float = 60.0
