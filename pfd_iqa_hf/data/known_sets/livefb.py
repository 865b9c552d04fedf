"""LIVEFB (FLIVE): 39,810 photographs, distorted authentically, split officially, from 0 to 100."""

from __future__ import annotations

from collections.abc import Iterator

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table_files import read_csv

__all__ = ["LIVEFB"]


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("labels_image.csv")
    test, validation = folder.find("labels640.csv"), folder.find("labels=640_padded.csv")
    is_test = set() if test is None else _names(test)
    is_validation = set() if validation is None else _names(validation, only="is_valid")
    for where, cells in read_csv(table, required=("name", "mos")):
        name = str(cells["name"]).replace("\\", "/")
        split: str | None = None
        if is_test or is_validation:
            key = name.casefold()
            split = "test" if key in is_test else "validation" if key in is_validation else "train"
        yield StatedRow(
            **folder.picture(where, ["database", "FLIVE", ""], name),
            score=cells["mos"],
            split=split,
            group=name.rpartition("/")[0] or None,
        )


def _names(table: object, only: str | None = None) -> set[str]:
    required = ("name_image",) if only is None else ("name_image", only)
    return {
        str(cells["name_image"]).casefold()
        for _, cells in read_csv(table, required=required)  # type: ignore[arg-type]
        if only is None or str(cells[only]).strip().casefold() in ("true", "1")
    }


LIVEFB = KnownSet(
    name="LIVEFB",
    rows=39_810,
    references=None,
    score_range=(0.0, 100.0),
    higher_is_better=True,
    source="https://github.com/niu-haoran/FLIVE_Database",
    terms="the pictures keep the licences of their sources; free for research",
    read=_read,
)
