"""TID2013: 3,000 pictures from 25 originals, 24 distortions in five levels, MOS from 0 to 9."""

from __future__ import annotations

from collections.abc import Iterator

from pfd_iqa_hf.data.known_sets.set_folder import KnownSet, SetFolder
from pfd_iqa_hf.data.rows import StatedRow

__all__ = ["TID2013"]

_DISTORTIONS = (
    "additive gaussian noise",
    "additive noise in color components",
    "spatially correlated noise",
    "masked noise",
    "high frequency noise",
    "impulse noise",
    "quantization noise",
    "gaussian blur",
    "image denoising",
    "jpeg compression",
    "jpeg2000 compression",
    "jpeg transmission errors",
    "jpeg2000 transmission errors",
    "non eccentricity pattern noise",
    "local block-wise distortions",
    "mean shift",
    "contrast change",
    "change of color saturation",
    "multiplicative gaussian noise",
    "comfort noise",
    "lossy compression of noisy images",
    "color quantization with dither",
    "chromatic aberrations",
    "sparse sampling and reconstruction",
)


def _read(folder: SetFolder) -> Iterator[StatedRow]:
    table = folder.require("mos_with_names.txt")
    lines = [line.split() for line in table.read_text("utf-8-sig").splitlines() if line.strip()]
    deviations_table = folder.find("mos_std.txt")
    deviations: list[str] = []
    if deviations_table is not None:
        deviations = deviations_table.read_text("utf-8-sig").split()
        if len(deviations) != len(lines):
            raise folder.error(
                str(deviations_table),
                f"{len(deviations)} deviations beside {len(lines)} scores",
                "copy the set again",
            )
    for number, fields in enumerate(lines, start=1):
        where = f"{table.name}, line {number}"
        parts = fields[-1].casefold().removesuffix(".bmp").split("_")
        kind = int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0
        if len(fields) != 2 or not 1 <= kind <= len(_DISTORTIONS):
            raise folder.error(
                where,
                f"{' '.join(fields)!r} is no score and name such as '5.5 I01_01_1.bmp'",
                "copy the table again",
            )
        yield StatedRow(
            **folder.picture(where, ["distorted_images", ""], fields[1]),
            score=fields[0],
            score_std=deviations[number - 1] if deviations else None,
            reference_id=parts[0],
            distortion=_DISTORTIONS[kind - 1],
            level=parts[2],
        )


TID2013 = KnownSet(
    name="TID2013",
    rows=3_000,
    references=25,
    score_range=(0.0, 9.0),
    higher_is_better=True,
    source="https://www.ponomarenko.info/tid2013.htm",
    terms="free for research, not for commercial use",
    read=_read,
)
