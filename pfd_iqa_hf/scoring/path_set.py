"""Which paths have been seen, in a few bytes a path."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["PathSet"]

_RECENT = 1 << 16


class PathSet:
    """A growing set of paths that keeps 8 bytes of each: ten million of them take 80 MB.

    Two different paths are taken for one another with a chance of about n² / 2⁶⁵ for n paths, which
    is one in 400,000 for ten million.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._recent: set[int] = set()
        # Sorted, each at least twice as long as the next, so that merging stays cheap.
        self._sorted: list[np.ndarray] = []

    def add(self, path: str) -> bool:
        """Add a path; whether it was new."""
        key = _key(path)
        if self._holds(key):
            return False
        self._recent.add(key)
        if len(self._recent) >= _RECENT:
            self._settle()
        return True

    def __contains__(self, path: str) -> bool:
        """Whether the path was added."""
        return self._holds(_key(path))

    def __len__(self) -> int:
        """Number of paths."""
        return len(self._recent) + sum(len(keys) for keys in self._sorted)

    def _holds(self, key: int) -> bool:
        if key in self._recent:
            return True
        wanted = np.uint64(key)
        for keys in self._sorted:
            place = int(np.searchsorted(keys, wanted))
            if place < len(keys) and keys[place] == wanted:
                return True
        return False

    def _settle(self) -> None:
        keys = np.fromiter(self._recent, np.uint64, len(self._recent))
        keys.sort()
        self._recent = set()
        while self._sorted and len(self._sorted[-1]) < 2 * len(keys):
            keys = np.concatenate([self._sorted.pop(), keys])
            keys.sort(kind="stable")
        self._sorted.append(keys)


def _key(path: str) -> int:
    # As text files hold a name that is no valid UTF-8, so that it is found again in one.
    data = path.encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
