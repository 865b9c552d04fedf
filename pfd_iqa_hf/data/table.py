"""The one table of rated pictures that every dataset becomes, and the errors of bad rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["SHOWN_PROBLEMS", "DatasetError", "Problem", "Rating", "RatingTable"]

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Rating:
    """One picture and what people said about it.

    Attributes:
        image: path of the picture.
        mos: mean opinion score, 0 to 100, higher is better.
        mos_std: standard deviation of the single opinions in the same points, where published.
        reference_id: the undistorted picture it was made from, for synthetic sets.
        distortion: the set's name of its distortion, for synthetic sets.
        level: strength of the distortion, 1 is the mildest.
        split: "train", "validation" or "test" where the set has an official split.
        group: the set's own subset.
        key: the picture's name within its dataset, where `image` does not tell it, such as for
            pictures out of parquet files.
    """

    image: Path
    mos: float
    mos_std: float | None = None
    reference_id: str | None = None
    distortion: str | None = None
    level: int | None = None
    split: str | None = None
    group: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a dataset.

    Attributes:
        where: the file and the row, such as "scores.csv, row 5".
        what: what is wrong there.
        remedy: what to do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """Where, what and remedy in one line."""
        return f"{self.where}: {self.what}; {self.remedy}"


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message shows the first problems and the count.

    Attributes:
        dataset: name of the dataset.
        problems: everything that was found, not only what the message shows.
    """

    def __init__(self, dataset: str, problems: Sequence[Problem]) -> None:
        """Keep the problems; `str()` shows the first of them."""
        super().__init__(dataset, tuple(problems))
        self.dataset = dataset
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """One line for one problem, else the count and the first few."""
        if len(self.problems) == 1:
            return f"{self.dataset}: {self.problems[0]}"
        lines = [f"{self.dataset}: {len(self.problems):,} problems"]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"  … and {len(self.problems) - SHOWN_PROBLEMS:,} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class RatingTable(Sequence[Rating]):
    """Rated pictures of one dataset, on 0 to 100 and higher is better, and the scale they came on.

    A table is a sequence of `Rating`.

    Attributes:
        name: the dataset's name.
        ratings: the rows.
        score_range: lowest and highest score of the dataset's own scale.
        higher_is_better: direction of the dataset's own scale.
        root: folder that a picture's key is relative to; by default the pictures' common folder.
        skipped: single bad pictures that were left out because the caller asked for that.
        extra: pictures beside the listed ones that no row mentions.
        terms: what the authors say about use and redistribution, for known sets.

    Raises:
        ValueError: the range is empty or not finite.
    """

    name: str
    ratings: tuple[Rating, ...]
    score_range: tuple[float, float] = (0.0, 100.0)
    higher_is_better: bool = True
    root: Path | None = None
    skipped: tuple[Problem, ...] = ()
    extra: tuple[Path, ...] = ()
    terms: str | None = None
    _keys: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the range and name the rows."""
        check_score_range(self.score_range)
        root = self.root
        if root is None:
            folders = {os.path.abspath(rating.image.parent) for rating in self.ratings}
            root = Path(os.path.commonpath(folders)) if folders else Path()
        object.__setattr__(self, "root", root)
        # A set copied from another system differs in the case of its names.
        keys = tuple(
            (rating.key or os.path.relpath(rating.image, root).replace(os.sep, "/")).casefold()
            for rating in self.ratings
        )
        object.__setattr__(self, "_keys", keys)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ratings)

    @overload
    def __getitem__(self, index: int) -> Rating: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rating, ...]: ...
    def __getitem__(self, index: int | slice) -> Rating | tuple[Rating, ...]:
        """One row, or the rows of a slice."""
        return self.ratings[index]

    def __iter__(self) -> Iterator[Rating]:
        """The rows in order."""
        return iter(self.ratings)

    @property
    def keys(self) -> tuple[str, ...]:
        """One name a row, the same wherever the dataset lies: the path below `root`, lower case."""
        return self._keys

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the pictures' keys and scores; ignores order and place of the rows."""
        lines = sorted(
            f"{key}\t{rating.mos:.2f}\n"
            for key, rating in zip(self._keys, self.ratings, strict=True)
        )
        return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def select(self, rows: Iterable[int]) -> RatingTable:
        """The table of some rows, in the order given; keys and scale stay."""
        return replace(self, ratings=tuple(self.ratings[row] for row in rows))

    def where(self, condition: Callable[[Rating], bool]) -> RatingTable:
        """The table of the rows that meet a condition."""
        return self.select(row for row, rating in enumerate(self.ratings) if condition(rating))

    def split(self, name: str) -> RatingTable:
        """The rows of one official split.

        Args:
            name: "train", "validation" or "test".

        Raises:
            ValueError: no row belongs to it.
        """
        part = self.where(lambda rating: rating.split == name)
        if not part:
            known = ", ".join(sorted({r.split for r in self.ratings if r.split})) or "none"
            raise ValueError(
                f"{self.name} has no rows in the official split {name!r} (splits: {known}); "
                "name one of those, or make splits with pfd_iqa_hf.data.splits.make_splits"
            )
        return part

    def to_own_scale(self, scores: ArrayLike) -> np.ndarray:
        """Scores on 0 to 100, higher better, as the dataset's own labels would state them.

        Args:
            scores: any shape.

        Returns:
            float64 of that shape, in the dataset's own range and direction.

        Example:
            >>> table = RatingTable("five stars, 1 is best", (), (1, 5), higher_is_better=False)
            >>> table.to_own_scale([100, 50, 0]).tolist()
            [1.0, 3.0, 5.0]
        """
        low, high = self.score_range
        share = np.asarray(scores, np.float64) / 100.0
        return low + (high - low) * (share if self.higher_is_better else 1.0 - share)

    def deviations_to_own_scale(self, deviations: ArrayLike) -> np.ndarray:
        """Standard deviations or errors in points of 0 to 100, in units of the own scale."""
        low, high = self.score_range
        return np.asarray(deviations, np.float64) * ((high - low) / 100.0)


def check_score_range(score_range: tuple[float, float]) -> None:
    """Refuse a range that is empty, upside down or not finite.

    Raises:
        ValueError: `score_range` is one of those.
    """
    low, high = score_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"score range {low:g} to {high:g}: give the lowest and the highest possible score, "
            "and say apart from it whether lower is better"
        )


def to_common_scale(
    score: float, score_range: tuple[float, float], higher_is_better: bool
) -> float:
    """One label of a dataset's own scale on 0 to 100, higher is better."""
    low, high = score_range
    share = (score - low) / (high - low)
    return 100.0 * (share if higher_is_better else 1.0 - share)
