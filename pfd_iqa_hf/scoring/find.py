"""Which pictures a list of paths, folders and patterns means."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "PICTURE_SUFFIXES",
    "FoundPicture",
    "expand_path",
    "find_pictures",
    "is_picture_name",
    "place_of",
]

# What a walk through a folder takes for a picture; a path that is named is always tried. HEIC is in
# the list although Pillow needs a plug-in for it: left out, a telephone's photographs would vanish.
PICTURE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dds .dib .gif .heic .heif .icns .ico .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf "
    ".jpg .jpx .mpo .pbm .pcx .pfm .pgm .png .pnm .ppm .psd .qoi .ras .sgi .tga .tif .tiff .webp "
    ".xbm .xpm".split()
)


@dataclass(frozen=True)
class FoundPicture:
    """One picture to score.

    Attributes:
        path: As it was given, or the folder as it was given and the way from there.
        place: Where it lies below the folder it was found in; names its heat map.
        error: Why it cannot even be tried, else None.
        read: Gives its bytes where `path` names no file of its own, and raises OSError with the
            reason where it cannot; None for a file.
        byte_count: How many bytes `read` holds, or will read. None where nobody knows before:
            such a `read` takes `largest`, and raises TooLargeError where there are more.
    """

    path: str
    place: Path
    error: str | None = None
    read: Callable[..., bytes] | None = field(default=None, compare=False, repr=False)
    byte_count: int | None = field(default=0, compare=False, repr=False)


def find_pictures(
    paths: Sequence[str | os.PathLike[str]], recursive: bool = False
) -> tuple[list[FoundPicture], list[str]]:
    """List the pictures that `paths` mean, each once, in the order given, folders sorted by name.

    Args:
        paths: Files (always tried, whatever their name), folders (their files with a suffix of
            `PICTURE_SUFFIXES`; names that begin with a dot are passed over) and patterns such as
            `photos/*.jpg`, where no file of that name exists.
        recursive: Whether folders are walked through all their sub-folders; links are not followed.

    Returns:
        The pictures, and the folders and patterns that gave none.
    """
    found: list[FoundPicture] = []
    barren: list[str] = []
    seen: set[str] = set()
    for given in paths:
        count = 0
        for picture in expand_path(os.fspath(given), recursive):
            count += 1
            place = place_of(picture.path)
            if place not in seen:
                seen.add(place)
                found.append(picture)
        if not count:
            barren.append(os.fspath(given))
    return found, barren


def place_of(path: str) -> str:
    """What the names of one file have in common; `..` behind a link is the target's parent."""
    folder, name = os.path.split(path)
    if os.pardir in folder.split(os.sep):
        return os.path.join(os.path.realpath(folder), name)
    return os.path.abspath(path)


def is_picture_name(name: str) -> bool:
    """Whether a walk takes a file of this name for a picture."""
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in PICTURE_SUFFIXES


def expand_path(given: str, recursive: bool) -> Iterator[FoundPicture]:
    """Yield the pictures that one path, folder or pattern means, as `find_pictures` lists them."""
    if os.path.isdir(given):
        yield from _walk(given, recursive)
    elif not os.path.lexists(given) and glob.has_magic(given):
        for match in sorted(glob.glob(given, recursive=True)):
            if os.path.isdir(match):
                if recursive:
                    yield from _walk(match, recursive)
            else:
                yield FoundPicture(match, Path(os.path.basename(match)))
    else:
        yield FoundPicture(given, Path(os.path.basename(given) or "picture"))


def _walk(root: str, recursive: bool) -> Iterator[FoundPicture]:
    unreadable: list[OSError] = []
    for folder, subfolders, files in os.walk(root, onerror=unreadable.append):
        subfolders[:] = sorted(s for s in subfolders if recursive and not s.startswith("."))
        for name in sorted(files):
            if is_picture_name(name):
                path = os.path.join(folder, name)
                yield FoundPicture(path, Path(os.path.relpath(path, root)))
    for error in unreadable:
        path = os.fsdecode(error.filename)
        reason = f"the folder cannot be read ({error.strerror}); check its permissions"
        yield FoundPicture(path, Path(os.path.basename(path)), reason)
