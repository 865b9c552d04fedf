"""Find pictures that show the same scene: re-encodings, resized copies, frames of one burst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["near_copies", "thumbnails"]


def thumbnails(paths: Sequence[Path], side: int = 24) -> np.ndarray:
    """Grey thumbnails of zero mean and unit length, (P, side²), float32."""
    rows = np.empty((len(paths), side * side), np.float32)
    for row, path in zip(rows, paths, strict=True):
        with Image.open(path) as picture:
            picture.draft("L", (4 * side, 4 * side))
            small = picture.convert("L").resize((side, side), Image.Resampling.BOX)
        values = np.asarray(small, np.float32).ravel()
        values = values - values.mean()
        row[:] = values / max(float(np.linalg.norm(values)), 1e-6)
    return rows


def near_copies(
    first: np.ndarray, second: np.ndarray, correlation: float = 0.99
) -> list[tuple[int, int]]:
    """Pairs (i, j) of thumbnails that correlate above a limit.

    Args:
        first: Thumbnails of one list, (P, S).
        second: Thumbnails of the other, (Q, S); the same array finds pairs i < j within it.
        correlation: Limit; 0.99 finds re-encodings and near-identical frames.
    """
    pairs = []
    for start in range(0, len(first), 1024):
        alike = first[start : start + 1024] @ second.T > correlation
        for i, j in np.argwhere(alike):
            if first is not second or start + i < j:
                pairs.append((int(start + i), int(j)))
    return pairs
