"""CSIQ: 866 pictures from 30 originals, six distortions, DMOS from 0 to 1 (lower is better)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow
from pfd_iqa_hf.data.table_files import read_xlsx

__all__ = ["CSIQ"]

# What the workbook calls a distortion, and what its folder and its files are called.
_FOLDER_OF = {
    "noise": "awgn",
    "blur": "blur",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "jpeg",
    "jpeg 2000": "jpeg2000",
}


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    workbook = folder.find("csiq.DMOS.xlsx")
    if workbook is not None:
        yield from _read_workbook(folder, workbook)
        return
    table = folder.require("csiq.DMOS.xlsx", "csiq_label.txt")
    for number, line in enumerate(table.read_text("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, score = line.strip().replace(",", " ").replace("\t", " ").rpartition(" ")
        name = name.strip()
        yield _row(
            folder,
            f"{table.name}, line {number}",
            name if name.casefold().endswith(".png") else f"{name}.png",
            score,
        )


def _read_workbook(folder: SetFolder, workbook: Path) -> Iterator[StatedRow]:
    sheet = read_xlsx(workbook, sheet="all_by_image", required=("image", "dst_type", "dmos"))
    for where, cells in sheet:
        if cells["image"] is None:
            continue
        distortion = str(cells["dst_type"]).strip().casefold()
        kind = _FOLDER_OF.get(distortion, distortion)
        level = str(cells["dst_lev"]).partition(".")[0]
        image = str(cells["image"]).removesuffix(".0")  # a number in the workbook
        name = f"{image}.{kind}.{level}.png"
        yield _row(folder, where, name, cells["dmos"], cells.get("dmos_std"))


def _row(
    folder: SetFolder, where: str, name: str, score: object, deviation: object = None
) -> StatedRow:
    parts = name.casefold().split(".")
    if len(parts) != 4:
        raise folder.error(
            where, f"{name!r} is no name such as 1600.AWGN.1.png", "copy the table again"
        )
    reference, distortion, level, _ = parts
    return StatedRow(
        **folder.picture(where, [distortion, ""], name),
        score=score,
        score_std=deviation,
        reference_id=reference,
        distortion=distortion,
        level=level,
    )


CSIQ = KnownSet(
    name="CSIQ",
    rows=866,
    references=30,
    score_range=(0.0, 1.0),
    higher_is_better=False,
    source="https://s2.smu.edu/~eclarson/csiq.html",
    terms="free for research",
    read=_read,
)
