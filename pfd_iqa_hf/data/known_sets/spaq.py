"""SPAQ: 11,125 photographs from 66 smartphones, MOS from 0 to 100."""

from __future__ import annotations

from collections.abc import Iterator

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table_files import read_xlsx

__all__ = ["SPAQ"]


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("MOS and Image attribute scores.xlsx")
    for where, cells in read_xlsx(table, required=("Image name", "MOS")):
        if cells["Image name"] is not None:
            yield StatedRow(
                **folder.picture(where, ["TestImage", "img", ""], str(cells["Image name"])),
                score=cells["MOS"],
            )


SPAQ = KnownSet(
    name="SPAQ",
    rows=11_125,
    references=None,
    score_range=(0.0, 100.0),
    higher_is_better=True,
    source="https://github.com/h4nwei/SPAQ",
    terms="free for research, not for commercial use",
    read=_read,
)
