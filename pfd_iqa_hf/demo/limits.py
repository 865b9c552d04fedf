"""What the demo accepts: sizes, numbers and times, and the refusal of bodies that are larger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfd_iqa_hf.demo.uploads import stored_bytes

__all__ = ["BodyLimit", "Limits"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of everything that a stranger could make large.

    Attributes:
        max_pixels: Width x height of a picture.
        max_file_bytes: Size of one file.
        max_pictures: Files of one call.
        queue_size: Calls that may wait; one more is refused at once.
        concurrency: Calls that are worked on at a time; each holds a picture's views, about 4 MB.
        decoders: Pictures that are decoded at a time; each may hold `max_pixels` x 3 bytes, and
            as much again while its colours are converted.
        batch_size: Pictures that go through the model together.
        seconds: How long one picture may take, waiting for its turn included; and how long the body
            of a request may take to arrive.
        cache_seconds: Age at which an uploaded file is deleted.
        max_cache_bytes: Size of all uploaded files that lie on the disk together.
    """

    max_pixels: int = 64_000_000
    max_file_bytes: int = 32 * _MEGABYTE
    max_pictures: int = 50
    queue_size: int = 64
    concurrency: int = 16
    decoders: int = 2
    batch_size: int = 8
    seconds: float = 60.0
    cache_seconds: float = 300.0
    max_cache_bytes: int = 4096 * _MEGABYTE

    @property
    def max_upload_bytes(self) -> int:
        """Size of the body of an upload, which may hold several files."""
        return 8 * self.max_file_bytes + _MEGABYTE

    @property
    def max_call_bytes(self) -> int:
        """Size of any other body; none of them carries a picture."""
        return _MEGABYTE


class _TooMuchError(Exception):
    pass


class BodyLimit:
    """ASGI middleware that refuses bodies over the limits with 413, and slow ones with 408.

    Gradio limits single files only: many files, fields without a file name and the JSON of calls
    would go unlimited to disk and memory. While the upload cache is full, uploads get 507.
    """

    def __init__(self, app: Any, limits: Limits, cache: Path | None = None) -> None:
        """Wrap `app`, whose uploads go to the folder `cache`."""
        self._app = app
        self._limits = limits
        self._cache = cache
        self._arriving = 0  # bytes of uploads that are under way

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request, or let the wrapped application do so."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = str(scope["path"]).endswith("/upload")
        limit = self._limits.max_upload_bytes if upload else self._limits.max_call_bytes
        declared = _declared_length(scope)
        if declared > limit:
            await _refuse(send, 413, f"the request is over the limit of {limit:,} bytes")
            return
        if not upload or self._cache is None:
            await self._limited(scope, receive, send, limit)
            return
        expected = declared or limit
        self._arriving += expected
        try:
            stored = await asyncio.to_thread(stored_bytes, self._cache)
            if stored + self._arriving > self._limits.max_cache_bytes:
                minutes = self._limits.cache_seconds / 60
                await _refuse(send, 507, f"no room for uploads; try again in {minutes:g} minutes")
                return
            await self._limited(scope, receive, send, limit)
        finally:
            self._arriving -= expected

    async def _limited(self, scope: _Message, receive: _Receive, send: _Send, limit: int) -> None:
        body = _Body(receive, limit, self._limits.seconds)
        answered = False

        async def guarded_send(message: _Message) -> None:
            nonlocal answered
            # What the application makes of a body that was cut off is no answer.
            if body.refusal is None or answered:
                answered = True
                await send(message)

        try:
            await self._app(scope, body.receive, guarded_send)
        except _TooMuchError:
            pass
        if body.refusal is not None and not answered:
            await _refuse(send, *body.refusal)


class _Body:
    """The body of one request, counted and timed while it arrives."""

    def __init__(self, receive: _Receive, limit: int, seconds: float) -> None:
        self.refusal: tuple[int, str] | None = None
        self._receive = receive
        self._left = limit
        self._limit = limit
        self._seconds = seconds
        self._deadline: float | None = None
        self._complete = False

    async def receive(self) -> _Message:
        if self._complete:  # what follows is the wait for the end of the connection
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(self._deadline - now, 0.001))
        except TimeoutError:
            self._stop(408, f"the request took longer than {self._seconds:g} s to arrive")
        self._left -= len(message.get("body") or b"")
        if self._left < 0:
            self._stop(413, f"the request is over the limit of {self._limit:,} bytes")
        self._complete = not message.get("more_body", False)
        return message

    def _stop(self, status: int, reason: str) -> Any:
        self.refusal = (status, reason)
        raise _TooMuchError


def _declared_length(scope: _Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


async def _refuse(send: _Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
