"""What lies behind addresses: http(s) with limits, everything else through fsspec."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .archives import ARCHIVE_SUFFIXES, archive_pictures
from .find import FoundPicture, is_picture_name
from .http_fetch import fetch, is_http
from .input_options import LARGEST_FILE, InputOptions, TooLargeError
from .video import VIDEO_SUFFIXES

__all__ = [
    "address_picture",
    "address_pictures",
    "is_address",
    "may_be_listed",
    "read_stored",
]

# A protocol of one letter would be a Windows drive.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(::[a-zA-Z0-9+.:-]+)*://")
_MAGIC = re.compile(r"[*?[]")
# Stores that stand behind one host of their own. Others reach any host, or this machine's files.
_STORES = ("abfs", "az", "gcs", "gs", "hf", "memory", "oci", "oss", "s3", "s3a")


def is_address(given: str) -> bool:
    """Whether it looks like `protocol://...`."""
    return _ADDRESS.match(given) is not None


def may_be_listed(address: str) -> bool:
    """Whether an address from a list may be fetched: http(s) or a store, not a chain of several.

    A list may come from anyone; `simplecache::http://...` would pass by the limits of http.
    """
    protocol = address.partition("://")[0].lower()
    return protocol in ("http", "https", *_STORES) and "::" not in address


def address_picture(address: str, options: InputOptions) -> FoundPicture:
    """One picture behind an address; nothing is fetched before its turn comes."""
    try:
        place = Path(os.path.basename(urlsplit(address).path) or "picture")
    except ValueError as error:
        return FoundPicture(address, Path("address"), f"is no address ({error}); correct it")
    if is_http(address):
        read: Any = partial(fetch, address, options.seconds, options.allow_private)
    else:
        read = partial(read_stored, address)
    return FoundPicture(address, place, read=read, byte_count=None)


def address_pictures(address: str, options: InputOptions) -> Iterator[FoundPicture]:
    """Yield what one address means: a picture, a folder, a pattern, a table or an archive."""
    if is_http(address):
        yield from _web_pictures(address, options)
        return
    try:
        for path, opened in _stored_files(address, options.recursive):
            yield from _pictures(path, path, opened, options)
    except Exception as error:  # every file system has exceptions of its own
        yield FoundPicture(address, Path("address"), _told(error, address))


def _web_pictures(address: str, options: InputOptions) -> Iterator[FoundPicture]:
    from .tables import TABLE_SUFFIXES

    picture = address_picture(address, options)
    if picture.error is not None:
        yield picture
        return
    # A query tells nothing of its kind, nor of the folder that relative paths start at.
    path = urlsplit(address)._replace(query="", fragment="").geturl()
    opened: Callable[[], Any] = io.BytesIO
    if path.lower().endswith((*ARCHIVE_SUFFIXES, *TABLE_SUFFIXES)):
        try:  # whole: not every server gives parts
            opened = partial(io.BytesIO, fetch(address, options.seconds, options.allow_private))
        except OSError as error:
            yield FoundPicture(address, picture.place, str(error))
            return
    yield from _pictures(address, path, opened, options)


def _pictures(
    address: str, path: str, opened: Callable[[], Any], options: InputOptions
) -> Iterator[FoundPicture]:
    from .tables import TABLE_SUFFIXES, table_pictures

    ending = os.path.splitext(path)[1].lower()
    if path.lower().endswith(ARCHIVE_SUFFIXES):
        yield from archive_pictures(address, opened)
    elif ending in TABLE_SUFFIXES:
        yield from table_pictures(address, ending, opened, options, os.path.dirname(path))
    elif ending in VIDEO_SUFFIXES:
        reason = "is a video at an address, and videos must be local files; fetch it, name its path"
        yield FoundPicture(address, Path("address"), reason)
    else:
        yield address_picture(address, options)


def _stored_files(address: str, recursive: bool) -> Iterator[tuple[str, Any]]:
    import fsspec

    system, path = fsspec.core.url_to_fs(address)
    if _MAGIC.search(path) and not system.exists(path):
        names = sorted(system.glob(path))
    elif system.isdir(path):
        names = sorted(system.find(path) if recursive else system.ls(path, detail=False))
        names = [name for name in names if is_picture_name(name)]
    else:
        names = [path]
    for name in names:
        whole = address if name == path else system.unstrip_protocol(name)
        yield whole, partial(system.open, name, "rb")


def read_stored(address: str, largest: int = LARGEST_FILE) -> bytes:
    """Read one file, at most 256 MB, that fsspec finds under a path or an address.

    Raises:
        TooLargeError: it has more than `largest` bytes.
        OSError: it cannot be read; says why.
    """
    try:
        import fsspec

        with fsspec.open(address, "rb") as stream:
            data: bytes = stream.read(largest + 1)
    except Exception as error:
        raise OSError(_told(error, address)) from error
    if len(data) > largest:
        raise TooLargeError(largest)
    return data


def _told(error: Exception, address: str) -> str:
    if isinstance(error, ImportError):
        return f"needs a package that is not installed ({error}); install it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the address"
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read ({detail}); check the address and the network"
