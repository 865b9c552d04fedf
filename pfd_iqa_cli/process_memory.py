"""How glibc keeps the memory of a process that scores for a long time."""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["steady_memory"]

# Names of malloc.h, of the environment, of GLIBC_TUNABLES, and the value.
_SETTINGS = (
    # One arena for every thread grows by what each of them once held.
    (-8, "MALLOC_ARENA_MAX", "arena_max", 2),
    # Intermediate results of a model are a few megabytes to 32. What is handed back to the system
    # after each layer comes back as new pages, and those cost a tenth of the time.
    (-3, "MALLOC_MMAP_THRESHOLD_", "mmap_threshold", 32 << 20),
    (-1, "MALLOC_TRIM_THRESHOLD_", "trim_threshold", 512 << 20),
)


def steady_memory() -> None:
    """Keep few arenas and what the model allocates again and again, in this process.

    What the environment says of a setting is left as it is. Does nothing but with glibc.
    """
    if sys.platform != "linux":
        return
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    with contextlib.suppress(ImportError, AttributeError, OSError):  # another C library
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        for number, variable, tunable, value in _SETTINGS:
            if variable not in os.environ and tunable not in tunables:
                mallopt(number, value)
