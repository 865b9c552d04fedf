"""What a run gave, in a few numbers: the histogram, the extremes, the failures by reason."""

from __future__ import annotations

import heapq
import io
import re
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from .records import Record

__all__ = ["Summary", "failure_reason"]

_BIN_WIDTH = 5
_FINE_BINS = 1000
_EXTREMES = 12
_EXAMPLES = 3
_REASONS = 100
_THUMBNAIL_SIDE = 200
_QUALITY = 80


class Summary:
    """Grows by one record at a time and keeps a bounded amount of them.

    Args:
        extremes: How many of the worst and of the best pictures are kept.
    """

    def __init__(self, extremes: int = _EXTREMES) -> None:
        """Start with nothing."""
        self.count = self.failed = 0
        self._total = self._squares = 0.0
        self._fine = np.zeros(_FINE_BINS, np.int64)
        self._extremes = extremes
        # Heaps whose first entry is the next to leave; the number settles ties by input order.
        self._worst: list[tuple[float, int, Record, bytes | None]] = []
        self._best: list[tuple[float, int, Record, bytes | None]] = []
        self._failures: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, record: Record, view: np.ndarray | None = None) -> None:
        """Take one record, and the first view of its picture for a thumbnail.

        Args:
            record: With at least `path`, `score` and `error`.
            view: uint8 (size, size, 3), see `ScoredPicture`.
        """
        self.count += 1
        if record["error"] is not None:
            self._add_failure(record)
            return
        score = float(record["score"])
        self._total += score
        self._squares += score * score
        self._fine[min(int(score * _FINE_BINS / 100), _FINE_BINS - 1)] += 1
        self._keep(self._worst, -score, record, view)
        self._keep(self._best, score, record, view)

    def _add_failure(self, record: Record) -> None:
        self.failed += 1
        reason = failure_reason(record["error"])
        if reason not in self._failures and len(self._failures) >= _REASONS:
            reason = "other reasons"
        self._failures[reason] += 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(record["path"])

    def _keep(
        self,
        heap: list[tuple[float, int, Record, bytes | None]],
        rank: float,
        record: Record,
        view: np.ndarray | None,
    ) -> None:
        if len(heap) >= self._extremes and rank <= heap[0][0]:
            return
        entry = (rank, -self.count, record, thumbnail(record, view))
        if len(heap) < self._extremes:
            heapq.heappush(heap, entry)
        else:
            heapq.heapreplace(heap, entry)

    @property
    def scored(self) -> int:
        """Pictures with a score."""
        return self.count - self.failed

    @property
    def mean(self) -> float | None:
        """Of the scores; None without any."""
        return self._total / self.scored if self.scored else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the scores; None without any."""
        if not self.scored:
            return None
        mean = self._total / self.scored
        return max(self._squares / self.scored - mean * mean, 0.0) ** 0.5

    def quantile(self, share: float) -> float | None:
        """The score at `share` of the way from the lowest to the highest, to 0.1 points.

        Between two scores it is as far along as `share` says: the median of two is their middle.
        """
        if not self.scored:
            return None
        ends = np.cumsum(self._fine)
        position = share * (self.scored - 1)
        below = int(position)
        # The scores that come before and after, each taken as the middle of its bin.
        low, high = (
            (int(np.searchsorted(ends, rank, side="right")) + 0.5) * 100 / _FINE_BINS
            for rank in (below, min(below + 1, self.scored - 1))
        )
        return round(low + (position - below) * (high - low), 2)

    @property
    def histogram(self) -> list[int]:
        """Pictures in each of twenty equal bins from 0 to 100; 100 counts to the last."""
        bins = 100 // _BIN_WIDTH
        return [int(part.sum()) for part in np.split(self._fine, bins)]

    @property
    def worst(self) -> list[tuple[Record, bytes | None]]:
        """The lowest scores, lowest first, each with its thumbnail as a JPEG file, or None."""
        ranked = sorted(self._worst, key=lambda entry: entry[:2], reverse=True)
        return [(record, thumb) for _, _, record, thumb in ranked]

    @property
    def best(self) -> list[tuple[Record, bytes | None]]:
        """The highest scores, highest first, likewise."""
        ranked = sorted(self._best, key=lambda entry: entry[:2], reverse=True)
        return [(record, thumb) for _, _, record, thumb in ranked]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """`reason`, `count` and some `examples`, the most frequent first."""
        return [
            {"reason": reason, "count": count, "examples": self._examples[reason]}
            for reason, count in self._failures.most_common()
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything but the thumbnails, as JSON values."""

        def extreme(record: Record) -> dict[str, Any]:
            return {"path": record["path"], "score": record["score"]}

        return {
            "pictures": self.count,
            "scored": self.scored,
            "failed": self.failed,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "median": self.quantile(0.5),
            "histogram": {
                "edges": list(range(0, 101, _BIN_WIDTH)),
                "pictures": self.histogram,
            },
            "worst": [extreme(record) for record, _ in self.worst],
            "best": [extreme(record) for record, _ in self.best],
            "failures": self.failures,
        }


def failure_reason(error: str) -> str:
    """What an error has in common with others of its kind: no remedy, no details, no numbers."""
    reason = re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)?", "", error.split(";")[0])
    reason = re.sub(r"\d[\d,.]*", "N", reason)
    return " ".join(reason.split()) or "unknown"


def thumbnail(record: Record, view: np.ndarray | None) -> bytes | None:
    """The first view in its picture's proportions, up to 1.5:1, as a JPEG file."""
    if view is None or not record.get("width") or not record.get("height"):
        return None
    width, height = record["width"], record["height"]
    across, down = min(width, 1.5 * height), min(height, 1.5 * width)
    scale = _THUMBNAIL_SIDE / max(across, down)
    size = (max(1, round(across * scale)), max(1, round(down * scale)))
    file = io.BytesIO()
    Image.fromarray(view).resize(size, Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=_QUALITY
    )
    return file.getvalue()
