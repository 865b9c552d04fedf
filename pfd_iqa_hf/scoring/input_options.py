"""How inputs are read, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass

from ..modeling.picture_reading import DEFAULT_MAX_PIXELS

__all__ = ["LARGEST_FILE", "InputOptions", "TooLargeError"]

# Of a picture that is read into memory: from an archive, an address.
LARGEST_FILE = 256 << 20


class TooLargeError(OSError):
    """A file of more bytes than it may have."""

    def __init__(self, largest: int) -> None:
        """Say how many it may have."""
        super().__init__(f"has more than the limit of {largest:,} bytes; fetch it first")


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
        max_pixels: Limit on width x height of a video's frames.
    """

    recursive: bool = False
    column: str | None = None
    null: bool = False
    fetch: bool = False
    allow_private: bool = False
    every: float = 1.0
    seconds: float = 60.0
    max_pixels: int = DEFAULT_MAX_PIXELS
