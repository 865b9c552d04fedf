"""Pictures behind addresses: http(s) with limits, everything else through fsspec."""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .archives import ARCHIVE_SUFFIXES, archive_pictures
from .find import FoundPicture, is_picture_name
from .input_options import LARGEST_FILE, InputOptions

__all__ = [
    "address_picture",
    "address_pictures",
    "fetch",
    "is_address",
    "may_be_listed",
    "read_stored",
]

# A protocol of one letter would be a Windows drive.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(::[a-zA-Z0-9+.:-]+)*://")
_BLOCK = 1 << 16
_MAGIC = re.compile(r"[*?[]")
# Stores that stand behind one host of their own. Others reach any host, or this machine's files.
_STORES = ("abfs", "az", "gcs", "gs", "hf", "memory", "oci", "oss", "s3", "s3a")
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")


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
    if _is_http(address):
        read = partial(fetch, address, options.seconds, options.allow_private)
    else:
        read = partial(read_stored, address)
    return FoundPicture(address, place, read=read)


def address_pictures(address: str, options: InputOptions) -> Iterator[FoundPicture]:
    """Yield what one address means: a picture, a folder, a pattern, a table or an archive."""
    from .tables import TABLE_SUFFIXES, table_pictures

    if _is_http(address):
        yield address_picture(address, options)
        return
    try:
        for path, opened in _stored_files(address, options.recursive):
            suffix = next((s for s in ARCHIVE_SUFFIXES if path.lower().endswith(s)), "")
            table = os.path.splitext(path)[1].lower()
            if suffix:
                yield from archive_pictures(path, opened)
            elif table in TABLE_SUFFIXES:
                yield from table_pictures(path, table, opened, options)
            else:
                yield address_picture(path, options)
    except Exception as error:  # every file system has exceptions of its own
        yield FoundPicture(address, Path("address"), _told(error, address))


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


def read_stored(address: str) -> bytes:
    """Read one file, at most 256 MB, that fsspec finds under a path or an address.

    Raises:
        OSError: it cannot be read, or is too large; says why.
    """
    try:
        import fsspec

        with fsspec.open(address, "rb") as stream:
            data: bytes = stream.read(LARGEST_FILE + 1)
    except Exception as error:
        raise OSError(_told(error, address)) from error
    if len(data) > LARGEST_FILE:
        raise OSError(_too_large())
    return data


def _too_large() -> str:
    return f"has more than the limit of {LARGEST_FILE:,} bytes; fetch it first"


def _told(error: Exception, address: str) -> str:
    if isinstance(error, ImportError):
        return f"needs a package that is not installed ({error}); install it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the address"
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be read ({detail}); check the address and the network"


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def fetch(address: str, seconds: float, allow_private: bool) -> bytes:
    """Fetch one file over http(s), at most 256 MB and within a time limit.

    Unless private addresses are allowed, the host and that of every redirection must lie in the
    public network; what was looked up is what is connected to, so that a name server cannot change
    its mind between, and proxies of the environment are not used.

    Raises:
        OSError: it cannot be fetched, or is refused; says why.
    """
    deadline = time.monotonic() + seconds
    try:
        with _opener(allow_private).open(
            urllib.request.Request(address, headers={"User-Agent": "pfd-iqa-hf"}), timeout=seconds
        ) as response:
            return _limited(response, deadline, seconds)
    except _RefusedError as error:
        raise OSError(str(error)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, _RefusedError):
            raise OSError(str(error.reason)) from error
        raise OSError(_not_fetched(error)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise OSError(_not_fetched(error)) from error


class _RefusedError(OSError):
    """Something this package does not do, whatever the network says."""


def _not_fetched(error: Exception) -> str:
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be downloaded ({detail}); check the address and the network"


def _limited(response: Any, deadline: float, seconds: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while block := response.read1(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > LARGEST_FILE:
            raise _RefusedError(_too_large())
        if time.monotonic() > deadline:
            raise _RefusedError(f"takes longer than {seconds:g} s; raise --time-limit")
    expected = response.headers.get("Content-Length")
    if expected is not None and expected.isdigit() and size < int(expected):
        raise OSError(f"only {size:,} of {expected} bytes came")
    return b"".join(parts)


def _opener(allow_private: bool) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    handlers: list[Any] = [
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ]
    if allow_private:
        handlers += [
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
        ]
    else:
        handlers += [_PublicHTTP(), _PublicHTTPS()]
    for handler in handlers:
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Go on without reading the redirection's own body, which may have no end."""
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if not _is_http(newurl):
            raise _RefusedError("is redirected to something that is no http address; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _PublicConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _public_socket(self.host, self.port, self.timeout)


class _PublicSecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = _public_socket(self.host, self.port, self.timeout)
        context: Any = self._context  # type: ignore[attr-defined]
        self.sock = context.wrap_socket(plain, server_hostname=self.host)


class _PublicHTTP(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.do_open(_PublicConnection, req)


class _PublicHTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        return self.do_open(_PublicSecureConnection, req)


def _public_socket(host: str, port: int, timeout: Any) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for entry in found:
        number = str(entry[4][0]).split("%")[0]
        if not _is_public(number):
            raise _RefusedError(
                f"{host} is the private address {number}, which is refused; "
                "give --allow-private-addresses if it is meant"
            )
    failure: OSError = OSError(f"{host} has no address")
    for entry in found:
        try:
            return socket.create_connection((str(entry[4][0]), port), timeout)
        except OSError as error:
            failure = error
    raise failure


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number)
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if inner is not None:
        address = inner
    if address.version == 6 and address not in _PUBLIC_IPV6:  # embedded IPv4 among others
        return False
    return address.is_global and not address.is_multicast
