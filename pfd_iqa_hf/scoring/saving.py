"""Pictures on disk, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

__all__ = ["save_whole"]


def save_whole(picture: Image.Image, path: Path) -> None:
    """Save a picture; a disk that is full must not leave an empty or broken file.

    Raises:
        OSError: it cannot be written.
        ValueError: the suffix names no format.
    """
    try:
        picture.save(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.filename is None:
            error.filename = str(path)
        raise
