"""What tests ask of a picture that was found and not yet read."""

from pathlib import Path

from pfd_iqa_hf.scoring.find import FoundPicture

__all__ = ["content_of"]


def content_of(picture: FoundPicture) -> bytes | str:
    """Its bytes, or why there are none."""
    if picture.error is not None:
        return picture.error
    if picture.read is None:
        return Path(picture.path).read_bytes()
    try:
        return picture.read()
    except OSError as error:
        return str(error)
