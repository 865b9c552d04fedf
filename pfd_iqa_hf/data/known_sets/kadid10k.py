"""KADID-10k: 10,125 pictures from 81 originals, 25 distortions in five levels, from 1 to 5."""

from __future__ import annotations

from collections.abc import Iterator

from pfd_iqa_hf.data.distortions import DISTORTION_TYPES
from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow, as_number
from pfd_iqa_hf.data.table_files import read_csv

__all__ = ["KADID10K"]


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("dmos.csv")
    for where, cells in read_csv(table, required=("dist_img", "dmos")):
        name = str(cells["dist_img"])
        parts = name.casefold().rpartition(".")[0].split("_")
        kind = int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0
        if not 1 <= kind <= len(DISTORTION_TYPES):
            raise folder.error(
                where, f"{name!r} is no name such as I01_01_01.png", "copy the table again"
            )
        variance = as_number(cells.get("var"))
        yield StatedRow(
            **folder.picture(where, ["images", "distorted_images", ""], name),
            # The column is called dmos, but 5 is the best of its values.
            score=cells["dmos"],
            score_std=variance**0.5 if variance >= 0 else None,
            reference_id=parts[0],
            distortion=DISTORTION_TYPES[kind - 1],
            level=parts[2],
        )


KADID10K = KnownSet(
    name="KADID-10k",
    rows=10_125,
    references=81,
    score_range=(1.0, 5.0),
    higher_is_better=True,
    source="https://database.mmsp-kn.de/kadid-10k-database.html",
    terms="pictures under the Pixabay licence; free for research",
    read=_read,
    unlisted=lambda path: "_" not in path.rpartition("/")[2],  # the originals
)
