"""Decode pictures in processes of their own: many at once, and none can harm the others."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
import time
from collections.abc import Generator, Iterable

from .ahead import UNKNOWN_BYTES, DaemonThreads, PictureBytes, work_ahead
from .decoder_worker import DecoderStartError, DecoderWorker
from .decoding import DecodedPicture, DecodingSettings
from .find import FoundPicture

__all__ = ["DEFAULT_TIME_LIMIT", "DecoderPool", "DecoderStartError", "usable_cores"]

DEFAULT_TIME_LIMIT = 60.0
_READING_THREADS = 8
_WATCH_SECONDS = 0.2
_TRIES = 2
# In a row, for each process that there should be; a pause lets a crowded machine recover.
_FAILED_STARTS = 3
_PAUSE_SECONDS = 0.5
_CANNOT_START = "the processes that decode pictures cannot be started"
_REMEDY = "free memory or give fewer --workers, or install again what is missing"


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        self._all: set[DecoderWorker] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failed_starts = 0
        self._bytes = PictureBytes()
        # None stands for a process that is still to be started.
        self._idle: queue.SimpleQueue[DecoderWorker | None] = queue.SimpleQueue()
        for _ in range(self.workers):
            self._idle.put(self._started_or_none())
        # More threads than processes: some read or fetch the next pictures meanwhile.
        threads = self.workers + _READING_THREADS
        self._bytes_ahead = threads * UNKNOWN_BYTES
        try:
            self._threads = DaemonThreads(threads, "decoding")
            threading.Thread(target=self._watch, name="decoding-watch", daemon=True).start()
        except RuntimeError as error:
            for worker in self._all:
                worker.end()
            raise DecoderStartError(f"{_CANNOT_START}: {error}; {_REMEDY}") from error

    def __enter__(self) -> DecoderPool:
        """The pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """End all processes, whatever they are doing; what is being fetched is not waited for."""
        self._closed.set()
        with self._lock:
            workers, self._all = self._all, set()
        for worker in workers:
            worker.kill()
        self._threads.close()
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
        """Yield each picture, without its bytes, with what decoding gave, in order.

        At most `ahead` are held at a time, and at most 32 MB of files for each thread that reads.

        Raises:
            DecoderStartError: no process can be started.
        """
        return work_ahead(
            pictures,
            lambda found: self._threads.submit(self._decode, found),
            ahead,
            self._bytes_ahead,
        )

    def _decode(self, found: FoundPicture) -> tuple[FoundPicture, DecodedPicture]:
        return dataclasses.replace(found, read=None), self._decoded(found)

    def _decoded(self, found: FoundPicture) -> DecodedPicture:
        if found.error is not None:
            return DecodedPicture(error=found.error)
        try:
            with self._bytes.of(found) as data:
                return self._in_a_process(found.path, data)
        except (OSError, ValueError) as error:
            return DecodedPicture(error=str(error))

    def _in_a_process(self, path: str, data: bytes | None) -> DecodedPicture:
        tries = 0
        while tries < _TRIES:
            next_one = None  # takes the place of the one that is used here
            worker = self._idle.get()
            try:
                worker = self._ready(worker)
                if worker is not None:
                    tries += 1
                    decoded = worker.decode(path, data)
                    if decoded is not None:
                        next_one = worker
                        return decoded
                    late = time.monotonic() - worker.began >= self._seconds
                    self._end(worker)
                    next_one = self._started_or_none()
            finally:
                self._idle.put(next_one)
            if self._closed.is_set():
                return DecodedPicture(error="scoring was ended; score it again")
            if worker is None:
                self._closed.wait(_PAUSE_SECONDS)
            elif late:
                return DecodedPicture(
                    error=f"decoding takes longer than {self._seconds:g} s; "
                    "raise --time-limit if the file can be trusted"
                )
        return DecodedPicture(
            error="decoding it ends the process that does it; convert it to JPEG or PNG"
        )

    def _ready(self, worker: DecoderWorker | None) -> DecoderWorker | None:
        """The process, started if need be; None where it cannot be, and others may be."""
        if self._closed.is_set():
            return None
        try:
            worker = worker or self._started()
            reason = worker.why_not_ready()
        except OSError as error:
            reason = str(error)
        if reason is None:
            self._failed_starts = 0
            return worker
        if worker is not None:
            self._end(worker)
        with self._lock:
            self._failed_starts += 1
            failed = self._failed_starts
            # Where the system starts no more, those that it has started are enough to go on with.
            hopeless = worker is not None or not self._all
        if failed >= _FAILED_STARTS * self.workers and hopeless and not self._closed.is_set():
            raise DecoderStartError(
                f"{_CANNOT_START}: {failed} failed in a row, the last because {reason}; {_REMEDY}"
            )
        return None

    def _end(self, worker: DecoderWorker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.end()

    def _started(self) -> DecoderWorker:
        worker = DecoderWorker(self._settings, self._seconds)
        with self._lock:
            self._all.add(worker)
        if self._closed.is_set():  # meanwhile, and without this process
            worker.end()
        return worker

    def _started_or_none(self) -> DecoderWorker | None:
        """None where the system starts none now: tried again when it is needed."""
        try:
            return None if self._closed.is_set() else self._started()
        except OSError:
            return None

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            now = time.monotonic()
            with self._lock:
                late = [w for w in self._all if w.deadline is not None and w.deadline < now]
            for worker in late:
                worker.kill()
