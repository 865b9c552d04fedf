"""How much does a score move when the picture stays the same?

    python benchmarks/invariance.py --photographs path/to/CQ100/img --large path/to/wallpapers

`--count` photographs, drawn by `--seed`, long sides reduced to 512 pixels. Must not move a score at
all: saving as PNG; turning the pixels and saying so in the EXIF data (all seven turns, in a JPEG,
against the same JPEG's pixels turned back). May move it a little: mirroring; cutting the picture 8
pixels further right or further down, at the same size. Half the size: photographs under `--large`
with a short side of 1,000 pixels or more are reduced to half, and ranked at both sizes.

The large photographs are those of Debian's packages plasma-workspace-wallpapers, mate-backgrounds,
lomiri-wallpapers-16.04 and lomiri-wallpapers-20.04 (`apt-get download` and `dpkg -x`), which hold
drawings as well: `LARGE_PHOTOGRAPHS` lists the ends of the photographs' paths. `--every-large`
takes all pictures that are large enough, of any folder.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.evaluation.correlation import srcc
from photographs import (
    SUFFIXES,
    add_photograph_arguments,
    assessed,
    chosen_photographs,
    read_photograph,
)
from targets import Target, as_rows, heading, print_targets

LARGE_PHOTOGRAPHS = (
    # plasma-workspace-wallpapers
    *(
        f"{name}/contents/images/2560x1600.jpg"
        for name in (
            "BytheWater",
            "ColdRipple",
            "ColorfulCups",
            "DarkestHour",
            "EveningGlow",
            "FallenLeaf",
            "Grey",
            "Kite",
            "OneStandsOut",
            "Path",
            "summer_1am",
        )
    ),
    # mate-backgrounds
    *(
        f"mate/nature/{name}.jpg"
        for name in (
            "Aqua",
            "Blinds",
            "Dune",
            "FreshFlower",
            "Garden",
            "GreenMeadow",
            "LadyBird",
            "RainDrops",
            "Storm",
            "TwoWings",
            "Wood",
            "YellowFlower",
        )
    ),
    # lomiri-wallpapers-20.04 and lomiri-wallpapers-16.04
    *(
        f"{name}.jpg"
        for name in (
            "Kleiber_by_Lukas_Baubkus",
            "Bridge_by_Sander_Klootwijk",
            "Dragonfly_by_Bolly",
            "Picture_0B_by_freespace",
            "Picture_1A_by_freespace",
            "Wine_by_Jakkub_Mede",
            "aitzgorri_by_Aitzol_Berasategi",
            "free_by_Peter_Nerlich",
            "friends_by_Aitzol_Berasategi",
            "greentock_by_Peter_Nerlich",
            "life_by_Aitzol_Berasategi",
            "picosdeeuropa_by_Aitzol_Berasategi",
            "seeding_by_Clements_Engelhardt",
            "sunset_by_Aitzol_Berasategi",
        )
    ),
)
LEAST_SHORT_SIDE = 1000
SHIFT = 8
JPEG_QUALITY = 95
# How an upright picture is stored for each value of EXIF's orientation.
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
UPRIGHT_BY = {
    **STORED_AS,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112
# In the order of `copies`.
COPIES = (
    "photograph",
    "png",
    "mirrored",
    "upright_jpeg",
    "turned_jpeg",
    "uncut",
    "cut_right",
    "cut_down",
)
# Change: the copies that are compared, and the limits of its mean and its 95th percentile.
CHANGES: dict[str, tuple[tuple[tuple[str, str], ...], float, float]] = {
    "saved as PNG": ((("photograph", "png"),), 0.0, 0.0),
    "turned by EXIF": ((("upright_jpeg", "turned_jpeg"),), 0.0, 0.0),
    "mirrored": ((("photograph", "mirrored"),), 1.0, 3.0),
    "shifted by 8 pixels": ((("uncut", "cut_right"), ("uncut", "cut_down")), 1.0, 3.0),
}


def main() -> None:
    """Scores the copies, prints how far the scores moved, writes all scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=93)
    parser.add_argument("--large", nargs="+", type=Path, default=[], metavar="DIR")
    parser.add_argument("--every-large", action="store_true", help="not only those of the list")
    parser.add_argument("--limit-large", type=int, help="only so many of them, for a try")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    large = large_pictures(arguments.large, arguments.every_large)[: arguments.limit_large]
    scorer = load_pipeline(arguments)
    pictures = (copy for number, file in enumerate(files) for copy in copies(file, number))
    outputs = assessed(scorer, pictures, len(files) * len(COPIES), arguments.batch_size)
    rows: list[dict[str, Any]] = []
    for file in files:
        scores = {name: float(next(outputs)["score"]) for name in COPIES}
        rows.append({"file": file.name, **scores})
    next(outputs, None)  # so that the progress bar ends
    halves = half_sizes(scorer, large, arguments.batch_size)
    targets = [*moved(rows), *ranked(halves)]
    result = {
        **describe(arguments),
        "photographs": len(files),
        "large": len(large),
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "rows": rows,
        "half_size": halves,
    }
    print_targets(
        heading(result, f"{len(files)} photographs, {len(large)} large ones; score points"), targets
    )
    write_result(arguments, "invariance", result)


def copies(file: Path, number: int) -> Iterator[Image.Image | bytes]:
    """One photograph in the ways of `COPIES`; its number chooses the turn."""
    photograph = read_photograph(file)
    yield photograph
    yield encoded(photograph, format="PNG")
    yield photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    orientation = list(STORED_AS)[number % len(STORED_AS)]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = photograph.transpose(STORED_AS[orientation])
    turned = encoded(stored, format="JPEG", quality=JPEG_QUALITY, exif=exif)
    with Image.open(io.BytesIO(turned)) as opened:
        pixels = np.asarray(opened.convert("RGB").transpose(UPRIGHT_BY[orientation]))
    yield Image.fromarray(pixels)  # the opened picture would still have its EXIF data
    yield turned
    right, bottom = photograph.width - SHIFT, photograph.height - SHIFT
    yield photograph.crop((0, 0, right, bottom))
    yield photograph.crop((SHIFT, 0, photograph.width, bottom))
    yield photograph.crop((0, SHIFT, right, photograph.height))


def encoded(picture: Image.Image, **options: Any) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def large_pictures(folders: list[Path], every: bool) -> list[Path]:
    """Pictures under the folders that are listed and large enough; links are left out."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise SystemExit(f"{folder} is not a folder")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in SUFFIXES or path.is_symlink() or not path.is_file():
                continue
            if not every and not f"/{path.as_posix()}".endswith(
                tuple(f"/{end}" for end in LARGE_PHOTOGRAPHS)
            ):
                continue
            with Image.open(path) as opened:
                if min(opened.size) >= LEAST_SHORT_SIDE:
                    found.append(path)
    return found


def half_sizes(scorer: Any, files: list[Path], batch_size: int) -> list[dict[str, Any]]:
    """Scores of large photographs at full and at half size."""

    def both_sizes() -> Iterator[Image.Image]:
        for file in files:
            with Image.open(file) as opened:
                photograph = opened.convert("RGB")
            yield photograph
            half = (photograph.width // 2, photograph.height // 2)
            yield photograph.resize(half, Image.Resampling.LANCZOS)

    outputs = assessed(scorer, both_sizes(), 2 * len(files), batch_size)
    scores = np.array([output["score"] for output in outputs]).reshape(-1, 2)
    return [
        {"file": file.name, "full": float(full), "half": float(half)}
        for file, (full, half) in zip(files, scores, strict=True)
    ]


def moved(rows: list[dict[str, Any]]) -> list[Target]:
    """Mean and 95th percentile of how far the scores moved."""
    targets = []
    for name, (pairs, mean, percentile) in CHANGES.items():
        differences = np.abs([row[this] - row[other] for row in rows for this, other in pairs])
        if percentile == 0:  # to the second digit, in which scores are shown
            largest = round(float(differences.max()), 2)
            targets.append(Target(f"{name}: largest change", largest, most=0.0, digits=2))
            continue
        targets.append(Target(f"{name}: mean change", float(differences.mean()), most=mean))
        value = float(np.percentile(differences, 95))
        targets.append(Target(f"{name}: 95th percentile", value, most=percentile))
    return targets


def ranked(halves: list[dict[str, Any]]) -> list[Target]:
    """SRCC of the scores at full and at half size, and how far they moved."""
    if len(halves) < 3:
        return []
    full, half = (np.array([row[name] for row in halves]) for name in ("full", "half"))
    return [
        Target("half size against full: SRCC", srcc(half, full), 0.97, digits=4),
        Target("half size against full: mean change", float(np.abs(half - full).mean())),
        Target("half size minus full: mean", float((half - full).mean())),
    ]


if __name__ == "__main__":
    main()
