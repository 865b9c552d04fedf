"""Requests that wait at the same time go through the model together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["MicroBatcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """One thread that runs whatever has gathered while it was busy.

    Nothing waits for company: an item that finds the thread idle is run at once and alone. Gradio's
    own batching would fail a whole batch for one broken picture; here every item has its own
    future, and a batch that fails is run again one by one.

    Args:
        run: Gives one result an item, in order; only ever called from this thread.
        max_size: Items that are run together at most.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], max_size: int) -> None:
        """Start the thread."""
        self._run = run
        self._max_size = max_size
        self._waiting: queue.SimpleQueue[tuple[Item, Future[Result]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> Future[Result]:
        """Queue one item; its future may be cancelled until it is run."""
        future: Future[Result] = Future()
        self._waiting.put((item, future))
        return future

    def close(self) -> None:
        """End the thread after what is queued."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            gathered = [first]
            last = False
            while len(gathered) < self._max_size and not last:
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if entry is None:
                    last = True
                else:
                    gathered.append(entry)
            self._run_batch([e for e in gathered if e[1].set_running_or_notify_cancel()])
            if last:
                return

    def _run_batch(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = self._run([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for entry in batch:
                self._run_batch([entry])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
