"""What tests of inputs share: small pictures, what is found, and what that holds."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs

__all__ = ["add_member", "content_of", "pictures_found", "png_bytes"]


def png_bytes(side: int = 8) -> bytes:
    """A square whose grey is its side's length."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), side, np.uint8)).save(file, "PNG")
    return file.getvalue()


def pictures_found(*given: object, stdin: bytes = b"", **options: Any) -> list[FoundPicture]:
    """What `find_inputs` gives for what a user names; `options` are those of `InputOptions`."""
    barren: list[str] = []
    names = [str(entry) for entry in given]
    return list(find_inputs(names, InputOptions(**options), barren, io.BytesIO(stdin)))


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


def add_member(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    """Add a member of this content; `fields` are those of `TarInfo`."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))
