"""What may be scored beside files and folders: lists, tables, archives, addresses, videos.

Everything is read lazily and in order. What cannot be read is one `FoundPicture` with an `error`,
and the rest goes on.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ..modeling.picture_reading import may_never_end
from .archives import ARCHIVE_SUFFIXES, archive_pictures
from .datasets_input import DATASETS_PREFIX, dataset_pictures
from .find import FoundPicture, expand_path, place_of
from .input_options import InputOptions
from .path_set import PathSet
from .remote import address_pictures, is_address
from .tables import TABLE_SUFFIXES, listed_picture, table_pictures
from .video import VIDEO_SUFFIXES, video_pictures

__all__ = ["InputOptions", "find_inputs", "is_plain"]

_STDIN = "-"
# What people pack pictures or list them in, and is not read: suffixes, and how the files begin.
_OTHER_CONTAINERS = {
    **dict.fromkeys((".zip", ".xlsx", ".ods"), b"PK"),
    ".7z": b"7z\xbc\xaf",
    ".rar": b"Rar!",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".xls": b"\xd0\xcf\x11\xe0",
}
# Bytes of a line of a list: more than any system's paths, and than addresses have.
_LONGEST_LINE = 1 << 16


def is_plain(given: str) -> bool:
    """Whether an input is a file, a folder or a pattern of pictures, which are quickly listed."""
    return os.path.isdir(given) or (
        given != _STDIN
        and not given.startswith(DATASETS_PREFIX)
        and not (is_address(given) and not os.path.lexists(given))
        and _suffix(given) not in (*TABLE_SUFFIXES, *ARCHIVE_SUFFIXES, *VIDEO_SUFFIXES)
    )


def find_inputs(
    given: Sequence[str],
    options: InputOptions,
    barren: list[str],
    stdin: BinaryIO | None = None,
) -> Iterator[FoundPicture]:
    """Yield every picture that the inputs mean, each once, in the order given.

    Args:
        given: Files, folders, patterns, `-` for a list on the standard input, tables (.csv, .tsv,
            .jsonl, .parquet), tar archives, videos, addresses that fsspec or http knows, and
            `datasets:NAME[:SPLIT]`.
        options: How they are read.
        barren: Is given the inputs that held no picture.
        stdin: The list for `-`.
    """
    seen = PathSet()
    for source in given:
        count = 0
        for picture in _expand(source, options, stdin):
            count += 1
            if seen.add(_identity(picture)):
                yield picture
        if not count:
            barren.append(source)


def _identity(picture: FoundPicture) -> str:
    """A file may be named in several ways; what lies in an archive has this one name."""
    is_file = picture.read is None and (picture.error is None or os.path.lexists(picture.path))
    return place_of(picture.path) if is_file else picture.path


def _expand(given: str, options: InputOptions, stdin: BinaryIO | None) -> Iterator[FoundPicture]:
    if given == _STDIN:
        yield from _listed(stdin, options)
    elif given.startswith(DATASETS_PREFIX):
        yield from dataset_pictures(given, options)
    elif is_address(given) and not os.path.lexists(given):
        yield from address_pictures(given, options)
    elif _is_other_container(given):
        read = ", ".join(sorted({*ARCHIVE_SUFFIXES, *TABLE_SUFFIXES}))
        reason = f"is no picture, and not among the archives and tables that are read ({read})"
        remedy = "unpack or save it as one of them; a list of paths goes to `pfd-iqa score -`"
        yield FoundPicture(given, Path(os.path.basename(given)), f"{reason}; {remedy}")
    elif is_plain(given):
        yield from expand_path(given, options.recursive)
    elif not os.path.lexists(given) and glob.has_magic(given):
        for match in sorted(glob.glob(given, recursive=True)):
            yield from _container(match, options)
    else:
        yield from _container(given, options)


def _is_other_container(given: str) -> bool:
    """By its beginning, too: a file that is named is tried as a picture whatever its suffix."""
    beginning = _OTHER_CONTAINERS.get(_suffix(given))
    if beginning is None or not os.path.isfile(given):
        return False
    try:
        with open(given, "rb") as file:
            return file.read(len(beginning)) == beginning
    except OSError:
        return False


def _container(path: str, options: InputOptions) -> Iterator[FoundPicture]:
    suffix = _suffix(path)
    reason = _unreadable(path)
    if reason is not None:
        yield FoundPicture(path, Path(os.path.basename(path)), reason)
    elif suffix in TABLE_SUFFIXES:
        yield from table_pictures(path, suffix, lambda: open(path, "rb"), options)
    elif suffix in ARCHIVE_SUFFIXES:
        yield from archive_pictures(path, lambda: open(path, "rb"), path)
    else:
        yield from video_pictures(path, options)


def _unreadable(path: str) -> str | None:
    try:
        if may_never_end(os.stat(path).st_mode):
            return "is no ordinary file; save it to one first"
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        return "there is no such file; check the path"
    except OSError as error:
        return f"cannot be opened ({error.strerror}); check its permissions"


def _listed(stdin: BinaryIO | None, options: InputOptions) -> Iterator[FoundPicture]:
    if stdin is None:
        return
    count = 0
    for line in _lines(stdin, b"\0" if options.null else b"\n"):
        if len(line) > _LONGEST_LINE:
            after = f" after {count:,} others" if count else ""
            reason = f"the list has a line of more than {_LONGEST_LINE:,} bytes{after}"
            remedy = "it is read no further; give one path a line, or --null and NUL bytes between"
            yield FoundPicture(_STDIN, Path("list"), f"{reason}; {remedy}")
            return
        count += 1
        name = line if options.null else line.rstrip(b"\r")
        if name:
            yield listed_picture(os.fsdecode(name), "", options)


def _lines(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Yield the lines of a list; the last one may be the beginning of one that is too long."""
    rest = b""
    # As it comes: a list that is still being written must not wait for a full block.
    read = getattr(stream, "read1", stream.read)
    while len(rest) <= _LONGEST_LINE and (block := read(1 << 16)):
        *lines, rest = (rest + block).split(end)
        yield from lines
    yield rest


def _suffix(path: str) -> str:
    name = path.lower()
    for double in (".tar.gz", ".tar.bz2", ".tar.xz"):
        if name.endswith(double):
            return double
    return os.path.splitext(name)[1]
