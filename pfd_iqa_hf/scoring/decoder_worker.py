"""One process that decodes pictures, as the pool that started it sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from .decoder_process import START, read_exactly, read_header, write_header
from .decoding import DecodedPicture, DecodingSettings

__all__ = ["DecoderStartError", "DecoderWorker"]

_START_SECONDS = 300.0
_PIPE_BYTES = 1 << 20


class DecoderStartError(RuntimeError):
    """No process that decodes can be started, which is no picture's fault."""


class DecoderWorker:
    """One decoding process; used by one thread at a time, watched by another.

    Args:
        settings: How pictures become views.
        seconds: Time limit of one picture.

    Raises:
        OSError: the system starts no process.
    """

    def __init__(self, settings: DecodingSettings, seconds: float) -> None:
        """Start the process, without waiting for it."""
        start = {
            "path": [os.path.abspath(entry) for entry in sys.path if entry],
            # The light twin of this package, see pfd_iqa_onnx.installed.
            "module": "pfd_iqa_onnx.scoring.decoder_process",
            "arguments": [asdict(settings), seconds],
        }
        self.seconds = seconds
        self.deadline: float | None = None
        self.began = 0.0
        self._ready = False
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, json.dumps(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and others write there what the record says
            env={**os.environ, **one},
        )
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout
        assert self._process.stdout is not None  # a pipe was asked for
        _widen(self._process.stdout.fileno())

    def why_not_ready(self) -> str | None:
        """Wait until it has imported what it needs; None, or why it never will."""
        if self._ready:
            return None
        self.began = time.monotonic()
        self.deadline = self.began + _START_SECONDS
        try:
            answer = read_header(self._answers)
        except (OSError, ValueError):
            answer = None
        finally:
            self.deadline = None
        if answer is not None and answer.get("ready"):
            self._ready = True
            return None
        if answer is not None:
            return str(answer.get("failed"))
        if time.monotonic() - self.began >= _START_SECONDS:
            return f"it took longer than {_START_SECONDS:g} s"
        self._process.kill()
        code = self._process.wait()
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"

    def decode(self, path: str, data: bytes | None) -> DecodedPicture | None:
        """Decode one picture; None where the process died over it."""
        try:
            self.began = time.monotonic()
            self.deadline = self.began + self.seconds
            header = {"path": path if data is None else None, "bytes": len(data or b"")}
            write_header(self._requests, header)
            if data is not None:
                self._requests.write(data)
            self._requests.flush()
            answer = read_header(self._answers)
            if answer is None:
                return None
            views = None
            if answer["shape"] is not None:
                pixels = read_exactly(self._answers, int(np.prod(answer["shape"])))
                if pixels is None:
                    return None
                views = np.frombuffer(pixels, np.uint8).reshape(answer["shape"])
        except (OSError, ValueError):  # a pipe to a dead process
            return None
        finally:
            self.deadline = None
        size = None if answer["size"] is None else (answer["size"][0], answer["size"][1])
        return DecodedPicture(views, size, answer["error"], float(answer["seconds"]))

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._requests, self._answers):
            try:
                stream.close()
            except OSError:  # what was never sent
                pass

    def kill(self) -> None:
        """Kill the process; the thread that waits for its answer sees the end of the pipe."""
        self._process.kill()

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid


def _widen(pipe: int) -> None:
    """Let a picture's views through a pipe in one go, where the system can."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, ImportError, OSError):
        pass
