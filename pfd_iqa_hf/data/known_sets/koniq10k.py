"""KonIQ-10k: 10,073 photographs, distorted authentically, split officially, MOS from 0 to 100."""

from __future__ import annotations

from collections.abc import Iterator

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table_files import read_csv

__all__ = ["KONIQ10K"]

_FOLDERS = ("1024x768", "512x384")
_POINTS_A_STEP = 25.0  # SD is stated on the raters' scale of 1 to 5


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    splits: dict[str, str] = {}
    sets = folder.find("koniq10k_distributions_sets.csv")
    if sets is not None:
        for _, cells in read_csv(sets, required=("image_name", "set")):
            splits[str(cells["image_name"]).casefold()] = str(cells["set"])
    table = folder.find("koniq10k_scores_and_distributions.csv")
    column = "MOS_zscore"
    if table is None:
        # The table of sets repeats the same scores under the name MOS.
        table = sets or folder.require(
            "koniq10k_scores_and_distributions.csv", "koniq10k_distributions_sets.csv"
        )
        column = "MOS"
    rows = list(read_csv(table, required=("image_name", column)))
    # One copy of the pictures throughout: sizes must not be mixed.
    place = next(
        (
            place
            for place in _FOLDERS
            if any(folder.find(f"{place}/{cells['image_name']}") for _, cells in rows)
        ),
        "",
    )
    for where, cells in rows:
        name = str(cells["image_name"])
        yield StatedRow(
            **folder.picture(where, [place], name),
            score=cells[column],
            score_std=cells.get("SD"),
            std_scale=_POINTS_A_STEP,
            split=splits.get(name.casefold()),
        )


KONIQ10K = KnownSet(
    name="KonIQ-10k",
    rows=10_073,
    references=None,
    score_range=(0.0, 100.0),
    higher_is_better=True,
    source="https://database.mmsp-kn.de/koniq-10k-database.html",
    terms="pictures under Creative Commons licences of YFCC100M, each with its own",
    read=_read,
)
