"""BIQ2021: 12,000 photographs of 512×512, distorted authentically, split officially."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table import RatingTable
from pfd_iqa_hf.data.table_files import read_csv

__all__ = ["BIQ2021", "load_biq2021"]


def load_biq2021(root: str | Path) -> RatingTable:
    """Read BIQ2021; `split` is "train" or "test".

    `group` is the subset: "ss01" own photographs, "ss02" deliberate faults, "ss03" photographs from
    Unsplash.

    Args:
        root: the folder with `Images/`, `Train (Images and MOS).csv` and
            `Test (Images and MOS).csv`, as in the repository `nisarahmedrana/BIQ2021`.

    Returns:
        The rows of the training file, then those of the test file, in file order.

    Raises:
        DatasetError: a table or a listed picture is missing, a row cannot be read, or a picture is
            listed twice.
    """
    return BIQ2021.load(root)


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    for split in ("Train", "Test"):
        table = folder.require(f"{split} (Images and MOS).csv")
        # The training table carries two empty columns more.
        for where, cells in read_csv(table, required=("Image Name", "MOS")):
            name = str(cells["Image Name"])
            yield StatedRow(
                **folder.picture(where, ["Images", ""], name),
                score=cells["MOS"],
                split=split,
                group=name.split(maxsplit=1)[0].casefold() if name.strip() else None,
            )


BIQ2021 = KnownSet(
    name="BIQ2021",
    rows=12_000,
    references=None,
    score_range=(0.0, 1.0),
    higher_is_better=True,
    source="https://github.com/nisarahmedrana/BIQ2021",
    terms="free for use and benchmarking; do not republish the pictures",
    read=_read,
)
