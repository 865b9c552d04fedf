"""Which column of a dataset is which of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table import DatasetError, Problem
from pfd_iqa_hf.data.table_files import Cells

__all__ = ["COLUMNS", "Columns", "stated_row"]

# What a column may be called where nobody says; the first that a table has is taken.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "file_name", "image_path", "image_name", "filename", "path"),
    "mos": ("mos", "score"),
    "mos_std": ("mos_std", "std"),
    "reference_id": ("reference_id", "reference", "content_id"),
    "distortion": ("distortion", "distortion_type"),
    "level": ("level",),
    "split": ("split",),
    "group": ("group",),
}
_REQUIRED = ("image", "mos")


class Columns:
    """The names of a dataset's columns, some given by the user, the others looked for.

    Args:
        given: our names to the dataset's; an empty string reads no such column.

    Raises:
        ValueError: a name that is none of ours, or an empty one for the image or the score.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        unknown = sorted(set(given) - set(COLUMNS))
        if unknown:
            raise ValueError(f"no column {unknown[0]!r}: choose from {', '.join(COLUMNS)}")
        for name in _REQUIRED:
            if given.get(name) == "":
                raise ValueError(f"the column {name!r} is needed: give its name in the dataset")
        self.given = dict(given)

    def find(self, cells: Cells, source: str, first: bool = True) -> dict[str, str]:
        """Our names to the dataset's, for the columns that it has.

        Args:
            cells: any row.
            source: the dataset, for messages.
            first: whether optional columns that were given must be there; a later row of JSON may
                leave them out.

        Raises:
            DatasetError: a given or needed column is missing, or one that is read is there twice.
        """
        found: dict[str, str] = {}
        for name, usual in COLUMNS.items():
            wanted = (self.given[name],) if name in self.given else usual
            present = [column for column in wanted if column and column in cells]
            if present:
                found[name] = present[0]
                if cells.count(present[0]) > 1:
                    what = f"{cells.count(present[0])} columns are named {present[0]!r}"
                    remedy = "keep or rename all but one"
                    raise DatasetError(source, [Problem(f"{source}, header", what, remedy)])
            elif name in _REQUIRED or (first and self.given.get(name)):
                columns = ", ".join(repr(column) for column in cells if column)
                flag = f"--{name.removesuffix('_id').replace('_', '-')}-column"
                raise DatasetError(
                    source,
                    [
                        Problem(
                            f"{source}, header",
                            f"the column {' or '.join(repr(w) for w in wanted)} is missing "
                            f"(found: {columns})",
                            f"rename one, or name it with {flag}",
                        )
                    ],
                )
        return found


def stated_row(
    where: str,
    cells: Cells,
    found: Mapping[str, str],
    picture: Mapping[str, object],
    split: str | None = None,
) -> StatedRow:
    """One row as the dataset states it.

    Args:
        where: its place, for messages.
        cells: the row.
        found: which column is which.
        picture: the fields of `StatedRow` about the picture.
        split: the split of rows that have no column for it.
    """

    def text(name: str) -> str | None:
        value = cells.get(found[name]) if name in found else None
        if isinstance(value, float) and math.isnan(value):
            return None  # an empty cell, as many tools write it
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a spreadsheet's "7" is 7.0
        return None if value in (None, "") else str(value)

    return StatedRow(
        **{"where": where, **picture},  # type: ignore[arg-type]
        score=cells.get(found["mos"]),
        score_std=cells.get(found["mos_std"]) if "mos_std" in found else None,
        reference_id=text("reference_id"),
        distortion=text("distortion"),
        level=cells.get(found["level"]) if "level" in found else None,
        split=text("split") or split,
        group=text("group"),
    )
