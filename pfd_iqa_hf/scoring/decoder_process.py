"""A process that decodes pictures, so that a broken one can crash or hang it and nothing else.

Started by `decoder_pool`; it needs numpy and Pillow and imports neither torch nor transformers.
A request is a header and the bytes of a file, or the header alone where it names one; the answer is
a header and the views. A header is JSON behind its length; nothing here is pickled.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
import warnings
from typing import Any, BinaryIO

from PIL import EpsImagePlugin

from .decoding import DecodedPicture, DecodingSettings, decode_picture

__all__ = ["START", "limit_memory", "main", "read_exactly", "read_header", "write_header"]

# Whatever path the parent imports from, also an uninstalled checkout; never the current folder.
# What cannot be imported is told in a header, since nobody sees the process's standard error.
START = """\
import importlib, json, struct, sys
start = json.loads(sys.argv[1])
sys.path += [entry for entry in start["path"] if entry not in sys.path]
try:
    module = importlib.import_module(start["module"])
except BaseException as error:
    told = json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(told)) + told)
    sys.exit(1)
module.main(*start["arguments"])
"""

_LENGTH = struct.Struct("<I")
# Beside the picture itself: Python, the libraries, and views.
_BASE_MEMORY = 1 << 30
# Pillow holds RGB in four bytes, and transparency or a profile needs several copies at once.
_BYTES_A_PIXEL = 18
_GRACE_SECONDS = 5


def write_header(stream: BinaryIO, header: dict[str, Any]) -> None:
    """Write the length and the text of a header, without flushing."""
    data = json.dumps(header).encode()
    stream.write(_LENGTH.pack(len(data)) + data)


def read_header(stream: BinaryIO) -> dict[str, Any] | None:
    """Read a header; None at the end of the stream."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    data = read_exactly(stream, _LENGTH.unpack(prefix)[0])
    return None if data is None else json.loads(data)


def read_exactly(stream: BinaryIO, count: int) -> bytearray | None:
    """Read `count` bytes; None where the stream ends before."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            return None
        done += got
    return data


def main(settings: dict[str, Any], seconds: float) -> None:
    """Answer requests on the standard input until it ends.

    Args:
        settings: Fields of `DecodingSettings`.
        seconds: Time limit of a picture. The pool ends this process when it is over; should the
            pool be gone, the process ends itself a little later.
    """
    requests, answers = _private_streams()
    limit_memory(int(settings["max_pixels"]))
    warnings.simplefilter("ignore")
    # Pillow would have Ghostscript run the program that a PostScript file is.
    EpsImagePlugin.gs_binary = False
    if hasattr(signal, "SIGINT"):  # an interrupt on the terminal is the pool's to handle
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    how = DecodingSettings(**settings)
    write_header(answers, {"ready": True})
    answers.flush()
    while (request := read_header(requests)) is not None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_SECONDS)
        source: Any = request["path"]
        if source is None:
            data = read_exactly(requests, int(request["bytes"]))
            if data is None:
                break
            source = bytes(data)
            del data
        began = time.process_time()
        decoded = decode_picture(source, how)
        del source
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            _answer(answers, decoded, time.process_time() - began)
        except BrokenPipeError:
            break


def _answer(stream: BinaryIO, decoded: DecodedPicture, seconds: float) -> None:
    views = decoded.views
    header = {
        "shape": None if views is None else list(views.shape),
        "size": decoded.size,
        "error": decoded.error,
        "seconds": seconds,
    }
    write_header(stream, header)
    if views is not None:
        stream.write(views.tobytes())
    stream.flush()


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes under numbers of their own: a library that prints must not disturb them."""
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    return requests, answers


def limit_memory(max_pixels: int) -> None:
    """Limit this process to what a picture of so many pixels needs, where the system can.

    A picture that asks for more gets MemoryError, instead of the machine's other processes.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    limit = min(_BASE_MEMORY + _BYTES_A_PIXEL * max_pixels, 1 << 62)
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ValueError, OSError):  # a system that has no such limit
        return
