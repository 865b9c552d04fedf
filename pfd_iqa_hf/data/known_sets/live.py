"""LIVE release 2: 779 pictures from 29 originals, five distortions, DMOS (lower is better)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow

__all__ = ["LIVE"]

# The order and the sizes in which the .mat files list the folders.
_FOLDERS = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))
_ENTRIES = sum(count for _, count in _FOLDERS)


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("dmos_realigned.mat", "dmos.mat")
    scores = folder.array(table, "dmos_new", "dmos")
    content = folder.matlab(table)
    # The realigned table of some copies has no flags of its own.
    flags = table if "orgs" in content else folder.require("dmos.mat")
    is_reference = folder.array(flags, "orgs").astype(bool)
    names_table = folder.require("refnames_all.mat")
    references = [str(np.squeeze(cell)) for cell in folder.array(names_table, "refnames_all")]
    deviations = content["dmos_std"].ravel() if "dmos_std" in content else None
    for what, found in (("scores", scores), ("flags", is_reference), ("references", references)):
        if len(found) != _ENTRIES:
            raise folder.error(
                str(table), f"{len(found)} {what} where LIVE has {_ENTRIES}", "copy the set again"
            )
    entry = 0
    for distortion, count in _FOLDERS:
        for number in range(1, count + 1):
            # Copies of the originals lie among the pictures; they were not rated on their own.
            if not is_reference[entry]:
                name = f"img{number}.bmp"
                yield StatedRow(
                    **folder.picture(f"{table.name}, entry {entry + 1}", [distortion], name),
                    score=float(scores[entry]),
                    score_std=None if deviations is None else float(deviations[entry]),
                    reference_id=references[entry].rpartition(".")[0].casefold(),
                    distortion=distortion,
                )
            entry += 1


LIVE = KnownSet(
    name="LIVE",
    rows=779,
    references=29,
    # Realigned scores run past 0 and 100.
    score_range=(-2.65, 111.78),
    higher_is_better=False,
    source="https://live.ece.utexas.edu/research/quality/subjective.htm",
    terms="free for research with the copyright notice of the University of Texas at Austin",
    read=_read,
    # The copies of originals among the distorted pictures.
    unlisted=lambda path: path.rpartition("/")[2].startswith("img"),
)
