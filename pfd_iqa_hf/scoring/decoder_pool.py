"""Decode pictures in processes of their own: many at once, and none can harm the others."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np

from .decoder_process import read_exactly, read_header, write_header
from .decoding import DecodedPicture, DecodingSettings
from .find import FoundPicture

__all__ = ["DEFAULT_TIME_LIMIT", "DecoderPool", "usable_cores"]

DEFAULT_TIME_LIMIT = 60.0
_READING_THREADS = 8
_WATCH_SECONDS = 0.2
_START_SECONDS = 300.0
_PIPE_BYTES = 1 << 20
_TRIES = 2
# Whatever path the parent imports from, also an uninstalled checkout; never the current folder.
_START = (
    "import json, sys; a = json.loads(sys.argv[1]);"
    "sys.path += [p for p in a['path'] if p not in sys.path];"
    "import importlib; m = importlib.import_module(a['module']);"
    "m.main(a['settings'], a['seconds'])"
)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """One decoding process; used by one thread at a time, watched by another."""

    def __init__(self, settings: DecodingSettings, seconds: float) -> None:
        start = {
            "path": [os.path.abspath(entry) for entry in sys.path if entry],
            # The light twin of this package, see pfd_iqa_onnx.installed.
            "module": "pfd_iqa_onnx.scoring.decoder_process",
            "settings": asdict(settings),
            "seconds": seconds,
        }
        self.seconds = seconds
        self.deadline: float | None = None
        self.began = 0.0
        self._ready = False
        one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff and others write there what the record says
            env={**os.environ, **one},
        )
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout
        assert self._process.stdout is not None  # a pipe was asked for
        _widen(self._process.stdout.fileno())

    def decode(self, path: str, data: bytes | None) -> DecodedPicture | None:
        """Decode one picture; None where the process died over it."""
        try:
            if not self._ready:  # it still imports, which is no picture's fault
                self.began = time.monotonic()
                self.deadline = self.began + _START_SECONDS
                if read_header(self._answers) is None:
                    return None
                self._ready = True
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
        return self._process.pid


def _widen(pipe: int) -> None:
    """Let a picture's views through a pipe in one go, where the system can."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, ImportError, OSError):
        pass


class DecoderPool:
    """Processes that turn found pictures into views, in order and a bounded number ahead.

    A picture whose decoding crashes a process is tried once more in a fresh one; one that takes
    longer than the time limit is not. Either gets an error, and the others their views.

    Args:
        settings: How pictures become views.
        workers: Processes; None takes one a usable core.
        seconds: Time limit of one picture.
    """

    def __init__(
        self,
        settings: DecodingSettings,
        workers: int | None = None,
        seconds: float = DEFAULT_TIME_LIMIT,
    ) -> None:
        """Start the processes; they import while the caller loads its model."""
        self._settings = settings
        self._seconds = seconds
        self.workers = workers or usable_cores()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(self.workers):
            self._idle.put(self._started())
        # More threads than processes: some read or fetch the next pictures meanwhile.
        self._threads = ThreadPoolExecutor(
            self.workers + _READING_THREADS, thread_name_prefix="decoding"
        )
        threading.Thread(target=self._watch, name="decoding-watch", daemon=True).start()

    def __enter__(self) -> DecoderPool:
        """The pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self._closed.set()
        with self._lock:
            workers, self._all = self._all, set()
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in workers:
            worker.end()

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run now."""
        with self._lock:
            return [worker.process_id for worker in self._all]

    def decode_ahead(
        self, pictures: Iterable[FoundPicture], ahead: int
    ) -> Generator[tuple[FoundPicture, DecodedPicture], None, None]:
        """Yield each picture with what decoding gave, in order, at most `ahead` held at a time."""
        waiting: deque[tuple[FoundPicture, Future[DecodedPicture]]] = deque()
        try:
            for found in pictures:
                waiting.append((found, self._threads.submit(self._decode, found)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _decode(self, found: FoundPicture) -> DecodedPicture:
        if found.error is not None:
            return DecodedPicture(error=found.error)
        data = None
        if found.read is not None:
            try:
                data = found.read()
            except (OSError, ValueError) as error:
                return DecodedPicture(error=str(error))
        for _ in range(_TRIES):
            worker = self._idle.get()
            try:
                decoded = worker.decode(found.path, data)
                if decoded is not None:
                    return decoded
                late = time.monotonic() - worker.began >= self._seconds
                worker = self._replacement(worker)
            finally:
                self._idle.put(worker)
            if self._closed.is_set():
                return DecodedPicture(error="scoring was ended; score it again")
            if late:
                return DecodedPicture(
                    error=f"decoding takes longer than {self._seconds:g} s; "
                    "raise --time-limit if the file can be trusted"
                )
        return DecodedPicture(
            error="decoding it ends the process that does it; convert it to JPEG or PNG"
        )

    def _replacement(self, dead: _Worker) -> _Worker:
        with self._lock:
            self._all.discard(dead)
        dead.end()
        return dead if self._closed.is_set() else self._started()

    def _started(self) -> _Worker:
        worker = _Worker(self._settings, self._seconds)
        with self._lock:
            self._all.add(worker)
        if self._closed.is_set():  # meanwhile, and without this process
            worker.end()
        return worker

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            with self._lock:
                late = [w for w in self._all if w.deadline is not None and w.deadline < now]
            for worker in late:
                worker.kill()
