"""Download one file over http(s): from public hosts, of a limited size, within a limited time."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from typing import Any

__all__ = [
    "DownloadError",
    "LateDownloadError",
    "PrivateAddressError",
    "TooLargeDownloadError",
    "download",
    "is_http",
]

_LARGEST_DOWNLOAD = 256 << 20
_BLOCK = 1 << 16
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")


class DownloadError(OSError):
    """A file that is not downloaded.

    Attributes:
        reason: Why.
        remedy: What to do, in the words of the pipeline's parameters.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        """Keep both parts."""
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        """Reason and remedy in one line."""
        return f"{self.reason}; {self.remedy}"


class LateDownloadError(DownloadError):
    """It takes longer than it may."""


class PrivateAddressError(DownloadError):
    """It lies in a private network, or on this machine."""


class TooLargeDownloadError(DownloadError):
    """It has more bytes than it may."""


def is_http(address: str) -> bool:
    """Whether an address is one that `download` takes."""
    return address.lower().startswith(("http://", "https://"))


def download(
    address: str, seconds: float, allow_private: bool = False, largest: int = _LARGEST_DOWNLOAD
) -> bytes:
    """Download one file over http(s).

    Unless private addresses are allowed, the host and that of every redirection must lie in the
    public network; what was looked up is what is connected to, so that a name server cannot change
    its mind between, and proxies of the environment are not used.

    Args:
        address: Begins with `http://` or `https://`.
        seconds: For everything together: connecting, redirections, headers, and the file.
        allow_private: Whether any host will do.
        largest: Most bytes of the file.

    Raises:
        DownloadError: it cannot be downloaded, or is refused; says why. `LateDownloadError`,
            `PrivateAddressError` and `TooLargeDownloadError` are those that a limit causes.
    """
    with _Attempt(seconds, allow_private) as attempt:
        try:
            data = attempt.fetched(address, largest)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, DownloadError):
                raise reason from None
            if attempt.is_late or isinstance(reason, TimeoutError):
                raise _late(seconds) from error
            raise _not_downloaded(error, allow_private) from error
        if attempt.is_late:  # an end that the clock made
            raise _late(seconds)
        return data


def _late(seconds: float) -> LateDownloadError:
    return LateDownloadError(f"takes longer than {seconds:g} s", "raise timeout")


def _not_downloaded(error: Exception, allow_private: bool) -> DownloadError:
    detail = " ".join(str(error).split()) or type(error).__name__
    remedy = "check the address and the network"
    if not allow_private and urllib.request.getproxies():
        remedy += " (proxies are not used unless private addresses are allowed)"
    return DownloadError(f"cannot be downloaded ({detail})", remedy)


class _Attempt:
    """One fetch: its connections, and the clock that cuts them.

    A timeout of a socket begins anew with each byte that comes, so it ends no slow server's answer.
    """

    def __init__(self, seconds: float, allow_private: bool) -> None:
        self.is_late = False
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._allow_private = allow_private
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._clock = threading.Timer(seconds, self._cut)
        self._clock.daemon = True

    def __enter__(self) -> _Attempt:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._clock.cancel()
        with self._lock:
            for connected in self._sockets:
                connected.close()

    def fetched(self, address: str, largest: int) -> bytes:
        request = urllib.request.Request(address, headers={"User-Agent": "pfd-iqa-hf"})
        with self._opener().open(request, timeout=self._seconds) as response:
            return _limited(response, largest)

    def connect(self, place: tuple[str, int], *_: Any) -> socket.socket:
        """Connect to a host and port, as `socket.create_connection` would; on the clock."""
        host, port = place
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not self._allow_private:
            for entry in found:
                _refuse_private(host, str(entry[4][0]).split("%")[0])
        failure: OSError = OSError(f"{host} has no address")
        for entry in found:
            left = max(self._deadline - time.monotonic(), 0.001)
            try:
                connected = socket.create_connection((str(entry[4][0]), port), left)
            except OSError as error:
                failure = error
                continue
            self._put_on_the_clock(connected)
            return connected
        raise failure

    def _put_on_the_clock(self, connected: socket.socket) -> None:
        with self._lock:
            if self.is_late:
                connected.close()
                raise TimeoutError
            # A second handle: TLS takes the first one away.
            self._sockets.append(connected.dup())

    def _cut(self) -> None:
        with self._lock:
            self.is_late = True
            for connected in self._sockets:
                with contextlib.suppress(OSError):  # the other side was quicker
                    connected.shutdown(socket.SHUT_RDWR)

    def _opener(self) -> urllib.request.OpenerDirector:
        opener = urllib.request.OpenerDirector()
        handlers: list[Any] = [
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
            _Http(self),
            _Https(self),
        ]
        if self._allow_private:
            handlers.append(urllib.request.ProxyHandler())
        for handler in handlers:
            opener.add_handler(handler)
        return opener


def _too_large(largest: int) -> TooLargeDownloadError:
    return TooLargeDownloadError(
        f"has more than the limit of {largest:,} bytes", "fetch it first, and pass the file"
    )


def _limited(response: Any, largest: int) -> bytes:
    told = response.headers.get("Content-Length")
    expected = int(told) if told is not None and told.isdigit() else None
    if expected is not None and expected > largest:
        raise _too_large(largest)
    parts: list[bytes] = []
    size = 0
    while block := response.read1(_BLOCK):
        parts.append(block)
        size += len(block)
        if size > largest:
            raise _too_large(largest)
    if expected is not None and size < expected:
        raise OSError(f"only {size:,} of {expected} bytes came")
    return b"".join(parts)


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
        if not is_http(newurl):
            raise DownloadError(
                "is redirected to something that is no http address, which is refused",
                "check the address",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _connection(kind: Any, attempt: _Attempt, *arguments: Any, **options: Any) -> Any:
    """A connection of the standard library that connects as the attempt says."""
    connection = kind(*arguments, **options)
    connection._create_connection = attempt.connect
    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, attempt: _Attempt) -> None:
        super().__init__()
        self._connection: Any = partial(_connection, http.client.HTTPConnection, attempt)

    def http_open(self, req: Any) -> Any:
        return self.do_open(self._connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, attempt: _Attempt) -> None:
        super().__init__()
        self._connection: Any = partial(_connection, http.client.HTTPSConnection, attempt)

    def https_open(self, req: Any) -> Any:
        return self.do_open(self._connection, req)


def _refuse_private(host: str, number: str) -> None:
    if not _is_public(number):
        raise PrivateAddressError(
            f"{host} is the private address {number}, which is refused",
            "pass allow_private_addresses=True if it is meant",
        )


def _is_public(number: str) -> bool:
    address = ipaddress.ip_address(number)
    inner = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if inner is not None:
        address = inner
    if address.version == 6 and address not in _PUBLIC_IPV6:  # embedded IPv4 among others
        return False
    return address.is_global and not address.is_multicast
