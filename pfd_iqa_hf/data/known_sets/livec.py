"""LIVE In the Wild (LIVEC): 1,162 photographs of about 500×500, distorted authentically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table import RatingTable

__all__ = ["LIVEC", "load_livec"]

_TRAINING_PICTURES = 7  # shown to the raters as an introduction; not part of the set


def load_livec(root: str | Path) -> RatingTable:
    """Read LIVEC; `mos_std` is given and there is no official split.

    The first 7 of the 1,169 entries introduced the raters to the task and are left out.

    Args:
        root: the folder `ChallengeDB_release`, or one above it.

    Returns:
        The rows in the order of the set's tables.

    Raises:
        DatasetError: a table or a listed picture is missing, or the tables disagree in length.
        ImportError: scipy, which reads the tables, is not installed.
    """
    return LIVEC.load(root)


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("AllMOS_release.mat")
    scores = folder.array(table, "AllMOS_release")
    names_table = folder.require("AllImages_release.mat")
    names = [str(np.squeeze(cell)) for cell in folder.array(names_table, "AllImages_release")]
    deviations = folder.array(folder.require("AllStdDev_release.mat"), "AllStdDev_release")
    if not len(names) == len(scores) == len(deviations):
        raise folder.error(
            str(table.parent),
            f"the tables list {len(names)} pictures, {len(scores)} scores and {len(deviations)} "
            "deviations",
            "copy the set again",
        )
    for entry in range(_TRAINING_PICTURES, len(names)):
        yield StatedRow(
            **folder.picture(f"{table.name}, entry {entry + 1}", ["Images", ""], names[entry]),
            score=float(scores[entry]),
            score_std=float(deviations[entry]),
        )


LIVEC = KnownSet(
    name="LIVEC",
    rows=1_162,
    references=None,
    score_range=(0.0, 100.0),
    higher_is_better=True,
    source="https://live.ece.utexas.edu/research/ChallengeDB",
    terms="free with the copyright notice of the University of Texas at Austin",
    read=_read,
)
