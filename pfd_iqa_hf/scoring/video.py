"""Frames of videos, decoded by PyAV in a process of their own, which a broken file may crash."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .decoder_process import START, limit_memory, read_exactly, read_header, write_header
from .find import FoundPicture
from .input_options import InputOptions

__all__ = ["VIDEO_SUFFIXES", "main", "video_pictures"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv")
_MISSING = 'videos need PyAV: pip install "pfd-iqa-hf[video]"'
_START_SECONDS = 300.0
_GRACE_SECONDS = 5.0
# How often a process that passes frames over says that it lives; a part of the time limit.
_SIGNS_IN_A_LIMIT = 4
_LONGEST_SILENCE = 0.5
# Each holds frames of its own, and they all lie in the process's limited memory.
_THREADS = 4


def video_pictures(path: str, options: InputOptions) -> Iterator[FoundPicture]:
    """Yield a frame every `options.every` seconds; a record's path is `clip.mp4::t=12.0`.

    A process of its own decodes them. It is ended when one frame, wanted or passed over, takes
    longer than `options.seconds`, and refuses frames of more than `options.max_pixels`.
    """
    place = Path(os.path.basename(path))
    if importlib.util.find_spec("av") is None:
        yield FoundPicture(path, place, _MISSING)
        return
    count = 0
    try:
        decoder = _Decoder(path, options)
    except OSError as error:
        reason: str | None = f"no process starts for it ({error}); free memory, and try again"
    else:
        try:
            for seconds, data in decoder.frames():
                count += 1
                found = _frame(path, place, seconds, bytes(data))
                del data
                yield found
                del found
        finally:
            decoder.end()
        reason = decoder.reason
    if reason is not None:
        after = f" after {count} frames" if count else ""
        yield FoundPicture(path, place, f"the video cannot be decoded{after}: {reason}")


def _frame(path: str, place: Path, seconds: float, data: bytes) -> FoundPicture:
    name = f"t={round(seconds, 3)}"
    return FoundPicture(f"{path}::{name}", place / name, read=lambda: data, byte_count=len(data))


class _Decoder:
    """The process, as the one that started it sees it."""

    def __init__(self, path: str, options: InputOptions) -> None:
        start = {
            "path": [os.path.abspath(entry) for entry in sys.path if entry],
            "module": "pfd_iqa_onnx.scoring.video",  # see pfd_iqa_onnx.installed
            "arguments": [
                *(os.path.abspath(path), options.every, options.seconds, options.max_pixels)
            ],
        }
        self.reason: str | None = None
        self._seconds = options.seconds
        self._late = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, json.dumps(start)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt on the terminal is this process's to handle
        )
        self._stream: Any = self._process.stdout

    def frames(self) -> Iterator[tuple[float, bytearray]]:
        """Yield seconds and PPM file of each frame; afterwards `reason` tells of an early end."""
        ready = self._next(_START_SECONDS)
        if ready is None or "failed" in ready[0]:
            detail = "it ended" if ready is None else ready[0]["failed"]
            self.reason = f"the process that does it cannot start ({detail}); install it again"
            return
        while (answer := self._next(self._seconds)) is not None:
            header, data = answer
            if "end" in header:
                self.reason = header["end"]
                return
            if header["t"] is not None:
                seconds = float(header["t"])
                del answer
                yield seconds, data
            del data
        self.reason = "its decoding ended the process that did it; convert it"
        if self._late:
            self.reason = (
                f"a frame takes longer than {self._seconds:g} s; "
                "raise --time-limit if the file can be trusted"
            )

    def _next(self, seconds: float) -> tuple[dict[str, Any], bytearray] | None:
        clock = threading.Timer(seconds, self._end_late)
        clock.daemon = True
        clock.start()
        try:
            header = read_header(self._stream)
            if header is None:
                return None
            data = read_exactly(self._stream, int(header.get("bytes", 0)))
            return None if data is None else (header, data)
        finally:
            clock.cancel()

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def end(self) -> None:
        """Whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._stream.close()


class _FrameError(ValueError):
    """A frame that is refused: why, and what to do."""


def main(file: str, every: float, seconds: float, max_pixels: int) -> None:
    """Write the frames of a video to the standard output, then how it ended.

    Each is a header with `t` in seconds and the number of bytes of the PPM file that follows; `t`
    is None in signs of life between them. The last header has `end`: None, or what went wrong.

    Args:
        file: The video.
        every: Seconds between frames.
        seconds: Time limit of a frame. The other process holds to it; should that be gone, this
            one ends itself a little later.
        max_pixels: Limit on width x height of a frame.
    """
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    error = None
    try:
        import av  # noqa: F401  which takes a while, and is no frame's fault

        limit_memory(max_pixels)
        write_header(stream, {"ready": True})
        stream.flush()
        _write_frames(stream, file, every, seconds, max_pixels)
    except BrokenPipeError:
        os._exit(0)
    except _FrameError as failure:
        error = str(failure)
    except MemoryError:
        error = "its frames do not fit into memory; lower max_pixels (--max-pixels) or convert it"
    except Exception as failure:  # FFmpeg's, of many classes
        detail = " ".join(str(failure).split()) or type(failure).__name__
        error = f"{detail}; fetch it again"
    write_header(stream, {"end": error})
    stream.flush()
    os._exit(0)  # PyAV's threads may hang in what a damaged file left them


def _write_frames(stream: Any, file: str, every: float, seconds: float, max_pixels: int) -> None:
    silence = min(_LONGEST_SILENCE, seconds / _SIGNS_IN_A_LIMIT)
    _alarm(seconds + _GRACE_SECONDS)
    said = time.monotonic()
    for place, data in _frames(file, every, max_pixels):
        _alarm(0)  # whoever reads may take its time
        now = time.monotonic()
        if data is not None or now - said > silence:
            write_header(stream, {"t": place, "bytes": len(data or b"")})
            stream.write(data or b"")
            stream.flush()
            said = time.monotonic()
        del data
        _alarm(seconds + _GRACE_SECONDS)
    _alarm(0)


def _alarm(seconds: float) -> None:
    """End this process after so long, also inside FFmpeg, where the system can."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _frames(
    file: str, every: float, max_pixels: int
) -> Iterator[tuple[float | None, bytes | None]]:
    """Yield time and PPM file of each frame that is wanted, and (None, None) for the others."""
    import av

    with av.open(file) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        _check_size(stream.codec_context.width, stream.codec_context.height, max_pixels)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _THREADS
        # For a size that changes later; coded sizes are a little larger than those that are seen.
        stream.codec_context.options = {"max_pixels": str(2 * max_pixels + (1 << 16))}
        rate = float(stream.average_rate or 25)
        wanted = number = 0
        begin: float | None = None
        for count, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else count / rate
            begin = seconds if begin is None else begin
            if seconds - begin + 1e-6 < wanted * every:
                yield None, None
                continue
            number += 1
            _check_size(frame.width, frame.height, max_pixels)
            yield wanted * every, _ppm(frame)
            while wanted * every <= seconds - begin + 1e-6:
                wanted += 1
        if not number:
            raise ValueError("it holds no frames")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _FrameError(
            f"{width} x {height} is {width * height:,} pixels, over the limit of {max_pixels:,}; "
            "raise max_pixels (--max-pixels) if the file can be trusted"
        )


def _ppm(frame: Any) -> bytes:
    picture = frame.to_image()
    turned = int(getattr(frame, "rotation", 0) or 0)
    if turned:
        picture = picture.rotate(turned, expand=True)
    return b"P6 %d %d 255\n" % picture.size + picture.tobytes()
