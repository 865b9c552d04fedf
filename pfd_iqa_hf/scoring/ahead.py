"""Begin work on pictures before their results are asked for: so many of them, and so many bytes."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from .find import FoundPicture
from .input_options import TooLargeError

__all__ = ["UNKNOWN_BYTES", "DaemonThreads", "PictureBytes", "work_ahead"]

# What an address is taken for until it was read; larger ones are read one at a time.
UNKNOWN_BYTES = 32 << 20

_Result = TypeVar("_Result")


def work_ahead(
    pictures: Iterable[FoundPicture],
    begin: Callable[[FoundPicture], Future[_Result]],
    ahead: int,
    bytes_ahead: int,
) -> Generator[_Result, None, None]:
    """Yield the result of each picture, in order.

    Args:
        pictures: Is read no further than both limits allow.
        begin: Starts the work on one picture; only its result is kept.
        ahead: Most pictures that were begun and whose result was not yet taken.
        bytes_ahead: Most bytes that these hold or read, but for one that has more alone.
    """
    waiting: deque[tuple[Future[_Result], int]] = deque()
    held = 0
    try:
        for found in pictures:
            count = UNKNOWN_BYTES if found.byte_count is None else found.byte_count
            while waiting and held + count > bytes_ahead:
                held -= waiting[0][1]
                yield waiting.popleft()[0].result()
            waiting.append((begin(found), count))
            held += count
            del found  # its bytes go when the work is done, not when the next one comes
            if len(waiting) >= ahead:
                held -= waiting[0][1]
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        for future, _ in waiting:
            future.cancel()


class PictureBytes:
    """Reads pictures in several threads; of those whose size nobody knew, one large one a time."""

    def __init__(self) -> None:
        """Start with none."""
        self._one_large = threading.Lock()

    @contextmanager
    def of(self, found: FoundPicture) -> Iterator[bytes | None]:
        """The bytes of one picture while the block lasts; None for a file.

        Raises:
            OSError, ValueError: it cannot be read; says why.
        """
        with ExitStack() as block:
            if found.read is None:
                yield None
            elif found.byte_count is not None:
                yield found.read()
            else:
                try:
                    data = found.read(largest=UNKNOWN_BYTES)
                except TooLargeError:
                    block.enter_context(self._one_large)
                    data = found.read()
                yield data


class DaemonThreads:
    """Threads that work off a queue, and that a process does not wait for when it ends.

    Unlike those of `ThreadPoolExecutor`: a server that never answers must not hold up an interrupt.

    Args:
        count: Threads.
        name: Beginning of their names.
    """

    def __init__(self, count: int, name: str) -> None:
        """Start the threads."""
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Have a thread call the function."""
        future: Future[_Result] = Future()
        self._tasks.put((future, function, arguments))
        return future

    def close(self, patience: float = 0.0) -> None:
        """Cancel what was not begun; threads end when they have finished what they do.

        Args:
            patience: Seconds to wait for that. A thread that is inside a C++ library when the
                process ends brings it down with an abort.
        """
        while not self._tasks.empty():
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:  # a thread was quicker
                break
            if task is not None:
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def _work(self) -> None:
        while self._did_one():
            pass

    def _did_one(self) -> bool:
        """A function of its own, so that nothing of a task outlives it."""
        task = self._tasks.get()
        if task is None:
            return False
        future, function, arguments = task
        if future.set_running_or_notify_cancel():
            try:
                result = function(*arguments)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        return True
