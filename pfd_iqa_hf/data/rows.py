"""From rows as a dataset states them to a checked table: every bad row is named, all at once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pfd_iqa_hf.data.table import (
    DatasetError,
    Problem,
    Rating,
    RatingTable,
    check_score_range,
    to_common_scale,
)

__all__ = ["SPLIT_NAMES", "StatedRow", "as_number", "build_table", "check_pictures"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What datasets call a split, and what it is called here."""

# Labels that all lie within this, with no range declared, are on another scale than 0 to 100.
_SUSPICIOUSLY_SMALL = 10.0


@dataclass(frozen=True)
class StatedRow:
    """One row as a dataset states it, before anything is checked.

    Attributes:
        where: the file and the row, for messages.
        image: path of the picture; None if it was looked for and not found.
        name: the picture as the row names it.
        score: the label on the dataset's own scale, of any type.
        score_std: its standard deviation on the same scale, or None.
        std_scale: points of 0 to 100 that one unit of `score_std` is, if not as for `score`.
        reference_id: as in `Rating`.
        distortion: as in `Rating`.
        level: as in `Rating`, of any type.
        split: as the dataset names it.
        group: as in `Rating`.
        trouble: why `image` is None, if not because it is missing.
        key: as in `Rating`.
    """

    where: str
    image: Path | None
    name: str
    score: object
    score_std: object = None
    std_scale: float | None = None
    reference_id: str | None = None
    distortion: str | None = None
    level: object = None
    split: str | None = None
    group: str | None = None
    trouble: str | None = None
    key: str | None = None


def build_table(
    name: str,
    rows: Iterable[StatedRow],
    score_range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
    *,
    skip_bad: bool = False,
    root: Path | None = None,
    extra: Sequence[Path] = (),
    terms: str | None = None,
) -> RatingTable:
    """Check rows and map their labels to 0 to 100, higher is better.

    Args:
        name: the dataset's name.
        rows: what the dataset states.
        score_range: lowest and highest possible label; 0 to 100 if None.
        higher_is_better: direction of the labels.
        skip_bad: leave out rows whose picture is missing or empty, and list them in `skipped`.
            Labels that cannot be used are errors all the same.
        root: see `RatingTable`.
        extra: see `RatingTable`.
        terms: see `RatingTable`.

    Raises:
        DatasetError: rows that cannot be used, all of them in `problems`: labels that are no
            numbers or lie outside the range, unknown split names, pictures that are missing, empty
            or listed twice, two pictures with one name, or no rows at all.
        ValueError: the range is empty.
    """
    scale = (0.0, 100.0) if score_range is None else score_range
    check_score_range(scale)
    rows = list(rows)
    problems: list[Problem] = []
    skipped: list[Problem] = []
    ratings: list[Rating] = []
    first_seen: dict[str, str] = {}
    names_seen: dict[str, tuple[str, str]] = {}
    for row in rows:
        trouble = _picture_trouble(row)
        if trouble is not None:
            (skipped if skip_bad else problems).append(trouble)
        before = len(problems)
        rating = _rating(row, scale, higher_is_better, problems)
        if trouble is not None or row.image is None:
            continue
        place = row.key or os.path.abspath(row.image)
        if place in first_seen:
            what = f"{row.name} is listed a second time, after {first_seen[place]}"
            problems.append(Problem(row.where, what, "keep one of the rows"))
            continue
        first_seen[place] = row.where
        other, other_row = names_seen.setdefault(place.casefold(), (place, row.where))
        if other != place:
            what = f"{place} and {other} ({other_row}) have one name but for upper case"
            problems.append(Problem(row.where, what, "rename one of the files"))
        if len(problems) == before and rating is not None:
            ratings.append(rating)
    if not rows:
        problems.append(Problem("rows", "there are none", "give a table with at least one picture"))
    elif not ratings and not problems:
        problems.extend(skipped)
    if problems:
        raise DatasetError(name, problems)
    if score_range is None:
        _refuse_small_scale(name, ratings)
    return RatingTable(
        name,
        tuple(ratings),
        scale,
        higher_is_better,
        root=root,
        skipped=tuple(skipped),
        extra=tuple(extra),
        terms=terms,
    )


def check_pictures(table: RatingTable, skip_bad: bool = False) -> RatingTable:
    """Decode every picture once, so that a broken file is found now and not in the third epoch.

    Args:
        table: rows to check; takes about 5 ms a picture of 512×512.
        skip_bad: leave broken pictures out and list them in `skipped`.

    Returns:
        The table, without the broken pictures if they are skipped.

    Raises:
        DatasetError: broken pictures, all of them, or none are left.
    """
    from dataclasses import replace

    from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture

    broken: list[Problem] = []
    good: list[int] = []
    for index, rating in enumerate(table):
        try:
            open_picture(rating.image)
        except PictureError as error:
            remedy = error.remedy if skip_bad else f"{error.remedy}, or skip bad pictures"
            broken.append(Problem(str(rating.image), error.reason, remedy))
        else:
            good.append(index)
    if broken and (not skip_bad or not good):
        raise DatasetError(table.name, broken)
    return replace(table.select(good), skipped=table.skipped + tuple(broken))


def as_number(value: object) -> float:
    """A label as a number; NaN for what is none. Text with a decimal comma is understood."""
    if isinstance(value, bool) or value is None:
        return math.nan
    if isinstance(value, str):
        value = value.strip()
        if value.count(",") == 1 and "." not in value:
            value = value.replace(",", ".")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _picture_trouble(row: StatedRow) -> Problem | None:
    remedy = "restore the picture, correct the row, or skip bad pictures"
    if row.trouble is not None:
        return Problem(row.where, row.trouble, remedy)
    if row.image is None:
        return Problem(row.where, f"picture {row.name!r} is missing", remedy)
    try:
        size = row.image.stat().st_size if row.image.is_file() else -1
    except OSError as error:
        return Problem(row.where, f"{row.image} cannot be read ({error.strerror})", remedy)
    if size < 0:
        return Problem(row.where, f"picture {row.image} is missing", remedy)
    if size == 0:
        return Problem(row.where, f"picture {row.image} is empty", remedy)
    return None


def _rating(
    row: StatedRow,
    scale: tuple[float, float],
    higher_is_better: bool,
    problems: list[Problem],
) -> Rating | None:
    """The row on the common scale; what is wrong with it is added to `problems`."""

    def wrong(what: str, remedy: str) -> None:
        problems.append(Problem(row.where, what, remedy))

    low, high = scale
    score = as_number(row.score)
    if not math.isfinite(score):
        shown = "no score" if row.score in (None, "") else f"score {row.score!r} is not a number"
        wrong(f"{shown} for {row.name}", "correct it or remove the row")
    elif not low <= score <= high:
        wrong(
            f"score {score:g} of {row.name} lies outside the declared {low:g} to {high:g}",
            "correct it, or declare the range that the scores have",
        )
    deviation: float | None = None
    if row.score_std not in (None, ""):
        deviation = as_number(row.score_std)
        deviation *= 100.0 / (high - low) if row.std_scale is None else row.std_scale
        if not deviation >= 0.0 or math.isinf(deviation):
            wrong(
                f"standard deviation {row.score_std!r} of {row.name} is no number from 0 up",
                "correct it or leave it empty",
            )
    level: int | None = None
    if row.level not in (None, ""):
        number = as_number(row.level)
        if math.isfinite(number) and number == int(number):
            level = int(number)
        else:
            remedy = "correct it, or name another level column (or an empty one)"
            wrong(f"level {row.level!r} of {row.name} is no whole number", remedy)
    split: str | None = None
    if row.split:
        split = SPLIT_NAMES.get(row.split.strip().casefold())
        if split is None:
            wrong(
                f"split {row.split!r} of {row.name} is unknown",
                "write train, validation or test, or name another split column (or an empty one)",
            )
    if row.image is None or not math.isfinite(score):
        return None
    return Rating(
        row.image,
        to_common_scale(score, scale, higher_is_better),
        mos_std=deviation,
        reference_id=row.reference_id or None,
        distortion=row.distortion or None,
        level=level,
        split=split,
        group=row.group or None,
        key=row.key,
    )


def _refuse_small_scale(name: str, ratings: Sequence[Rating]) -> None:
    scores = [rating.mos for rating in ratings]
    if len(scores) > 1 and max(scores) <= _SUSPICIOUSLY_SMALL:
        what = (
            f"all {len(scores)} scores lie between {min(scores):g} and {max(scores):g}, and no "
            "range is declared"
        )
        remedy = "declare the scale, such as score range 1 to 5 (0 to 100 if that is what it is)"
        raise DatasetError(name, [Problem("scores", what, remedy)])
