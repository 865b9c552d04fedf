"""Frames of videos, decoded by PyAV in a process of their own, which a broken file may crash."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .decoder_process import read_exactly, read_header, write_header
from .find import FoundPicture
from .input_options import InputOptions

__all__ = ["VIDEO_SUFFIXES", "main", "video_pictures"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv")
_MISSING = 'videos need PyAV: pip install "pfd-iqa-hf[video]"'
_START = (
    "import json, sys; a = json.loads(sys.argv[1]);"
    "sys.path += [p for p in a['path'] if p not in sys.path];"
    "from pfd_iqa_onnx.scoring import video; video.main(a['file'], a['every'])"
)


def video_pictures(path: str, options: InputOptions) -> Iterator[FoundPicture]:
    """Yield a frame every `options.every` seconds; a record's path is `clip.mp4::t=12.0`."""
    place = Path(os.path.basename(path))
    if importlib.util.find_spec("av") is None:
        yield FoundPicture(path, place, _MISSING)
        return
    start = {
        "path": [os.path.abspath(entry) for entry in sys.path if entry],
        "file": os.path.abspath(path),
        "every": options.every,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, json.dumps(start)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt on the terminal is this process's to handle
    )
    count = 0
    reason: str | None = "its decoding ended the process that did it"
    stream: Any = process.stdout
    try:
        while True:
            late = threading.Timer(options.seconds, process.kill)
            late.start()
            try:
                header = read_header(stream)
                data = None if header is None else read_exactly(stream, int(header["bytes"]))
            finally:
                late.cancel()
            if header is None or data is None:
                break
            if header["t"] is None:
                reason = header["error"]
                break
            frame = bytes(data)
            count += 1
            yield _frame(path, place, float(header["t"]), frame)
    finally:
        process.kill()
        process.wait()
        stream.close()
    if reason is not None:
        after = f" after {count} frames" if count else ""
        yield FoundPicture(path, place, f"the video cannot be decoded{after}: {reason}")


def _frame(path: str, place: Path, seconds: float, data: bytes) -> FoundPicture:
    name = f"t={round(seconds, 3)}"
    return FoundPicture(f"{path}::{name}", place / name, read=lambda: data)


def main(file: str, every: float) -> None:
    """Write the frames of a video to the standard output, then how it ended.

    Each is a header with `t` in seconds and the number of bytes of the PPM file that follows; the
    last has no `t`, and the `error` or None.
    """
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    error = None
    try:
        for seconds, data in _frames(file, every):
            write_header(stream, {"t": seconds, "bytes": len(data)})
            stream.write(data)
            stream.flush()
    except BrokenPipeError:
        os._exit(0)
    except Exception as failure:  # FFmpeg's, of many classes
        detail = " ".join(str(failure).split()) or type(failure).__name__
        error = f"{detail}; fetch it again"
    write_header(stream, {"t": None, "bytes": 0, "error": error})
    stream.flush()
    os._exit(0)  # PyAV's threads may hang in what a damaged file left them


def _frames(file: str, every: float) -> Iterator[tuple[float, bytes]]:
    import av

    with av.open(file) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 25)
        wanted = number = 0
        begin: float | None = None
        for count, frame in enumerate(container.decode(stream)):
            seconds = frame.time if frame.time is not None else count / rate
            begin = seconds if begin is None else begin
            if seconds - begin + 1e-6 < wanted * every:
                continue
            number += 1
            yield wanted * every, _ppm(frame)
            while wanted * every <= seconds - begin + 1e-6:
                wanted += 1
        if not number:
            raise ValueError("it holds no frames")


def _ppm(frame: Any) -> bytes:
    picture = frame.to_image()
    turned = int(getattr(frame, "rotation", 0) or 0)
    if turned:
        picture = picture.rotate(turned, expand=True)
    return b"P6 %d %d 255\n" % picture.size + picture.tobytes()
