"""Let an interrupt wait while something is done that must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_wait"]


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Run a block to its end, and only then act on an interrupt that came meanwhile.

    SIGTERM waits as well where it has a handler. Only the main thread is ever interrupted; in
    others the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before: dict[int, Any] = {number: act for number, act in found.items() if callable(act)}
    came: list[tuple[int, Any]] = []
    for number in before:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, act in before.items():
            signal.signal(number, act)
        if came:
            before[came[0][0]](*came[0])
