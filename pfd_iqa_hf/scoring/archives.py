"""Pictures inside tar archives, WebDataset shards among them; nothing is ever unpacked."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from .find import FoundPicture, is_picture_name
from .input_options import LARGEST_FILE
from .path_set import PathSet

__all__ = ["ARCHIVE_SUFFIXES", "archive_pictures"]

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What damaged archives raise, through all the layers: ValueError of numbers that are none.
_DAMAGES = (
    *(tarfile.TarError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error),
    *(MemoryError, RecursionError),
)
# Bytes: what claims more only wants the reader to wait. In a packed archive even what is passed
# over must be unpacked, and a few bytes may stand for any number of them.
_LARGEST_MEMBER = 1 << 36
_LARGEST_PACKED_MEMBER = 1 << 30
_LONGEST_HEADER = 1 << 20  # bytes of a name or of extended attributes, which are held in memory
_EXTENSIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class _DamagedError(tarfile.ReadError):
    """A broken header, at which `tarfile` would take the archive for finished."""


class _PackedError(tarfile.ReadError):
    """A member that takes too long to pass over."""


class _Member(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            member = super().fromtarfile(archive)
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            if archive.offset == 0:
                raise
            # Cut off between two members: tarfile would take it for whole.
            raise _DamagedError("the blocks of zeros at its end are missing") from error
        except (
            tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
            tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
        ) as error:
            raise _DamagedError(str(error)) from error
        member._refuse_impossible_size()
        return member

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        # Before tarfile reads what follows the header, however long it claims to be.
        self._refuse_impossible_size()
        if self.type in _EXTENSIONS and self.size > _LONGEST_HEADER:
            raise _DamagedError(f"a header of {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse_impossible_size(self) -> None:
        if not 0 <= self.size <= _LARGEST_MEMBER:
            raise _DamagedError(f"a member of {self.size:,} bytes")


class _PackedMember(_Member):
    def _refuse_impossible_size(self) -> None:
        super()._refuse_impossible_size()
        if self.size > _LARGEST_PACKED_MEMBER:
            raise _PackedError(f"a member of {self.size:,} bytes, over {_LARGEST_PACKED_MEMBER:,}")


def archive_pictures(
    name: str, opened: Callable[[], BinaryIO], file: str | None = None
) -> Iterator[FoundPicture]:
    """Yield the members of one archive that are named like pictures.

    Links, devices, and names that lead out of the archive are refused, each with an error.

    Args:
        name: Path or address of the archive.
        opened: Opens it.
        file: Its path where it is a local file: members of an uncompressed one are then read where
            they lie when their turn comes, by several threads.
    """
    count = 0
    names = PathSet()
    try:
        with opened() as stream:
            packed = _is_packed(stream)
            if packed or not (file or "").lower().endswith(".tar"):
                file = None
            with _opened_archive(stream, file is not None, packed) as archive:
                for member in archive:
                    # Or it remembers every one; tarfile's own documentation leaves no other way.
                    archive.members = []  # type: ignore[attr-defined]
                    base = PureWindowsPath(member.name).name
                    if member.isdir() or not is_picture_name(base):
                        continue
                    count += 1
                    path = f"{name}::{_unique(member.name, names)}"
                    yield _picture(path, archive, member, file)
    except _DAMAGES as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        after = f" after {count} pictures" if count else ""
        reason = f"the archive is damaged or incomplete{after} ({detail}); fetch it again"
        if isinstance(error, _PackedError):
            reason = f"the archive is read no further{after} ({detail}); unpack it"
        yield FoundPicture(name, Path(os.path.basename(name)), reason)


def _opened_archive(stream: BinaryIO, in_place: bool, packed: bool) -> tarfile.TarFile:
    mode: Any = "r:" if in_place else "r|*"
    member = _PackedMember if packed else _Member
    return tarfile.open(fileobj=stream, mode=mode, tarinfo=member)


def _is_packed(stream: BinaryIO) -> bool:
    """Whether it is compressed, or nobody can say."""
    if not stream.seekable():
        return True
    start = stream.read(6)
    stream.seek(0)
    return start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))


def _unique(name: str, names: PathSet) -> str:
    """An archive may hold a name twice, and both are pictures."""
    unique, number = name, 1
    while not names.add(unique):
        number += 1
        unique = f"{name}#{number}"
    return unique


def _picture(
    path: str, archive: tarfile.TarFile, member: tarfile.TarInfo, file: str | None
) -> FoundPicture:
    # Both kinds of slashes, and drives: an archive may be made for any system.
    inside = PureWindowsPath(member.name)
    safe = [part for part in inside.parts if part not in (inside.anchor, "..")]
    place = Path(*safe) if safe else Path("picture")
    reason = None
    if inside.anchor or ".." in inside.parts:
        reason = "its name leads out of the archive, which is refused"
    elif not member.isreg() or member.issparse():
        reason = "is a link, a device or a sparse file in an archive, which are refused"
    elif member.size > LARGEST_FILE:
        reason = f"has {member.size:,} bytes, over the limit of {LARGEST_FILE:,}"
    if reason is not None:
        return FoundPicture(path, place, f"{reason}; unpack it if it can be trusted")
    if file is not None:
        where, size = member.offset_data, member.size
        return FoundPicture(
            path, place, read=lambda: _read_range(file, where, size), byte_count=size
        )
    part = archive.extractfile(member)
    data = b"" if part is None else part.read()
    return FoundPicture(path, place, read=lambda: data, byte_count=len(data))


def _read_range(file: str, where: int, size: int) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(where)
        data = stream.read(size)
    if len(data) < size:
        raise OSError("the archive ends inside it; fetch the archive again")
    return data
