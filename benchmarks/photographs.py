"""Photographs for the benchmarks that degrade them: which ones, how they are read and scored.

CQ100 (repository `IanManske/quantette`) was not trained on. Long sides are reduced to 512 pixels:
the model judges pictures as seen at that size, and the distortions are meant for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP

EXAMPLES = Path(__file__).parents[1] / "examples" / "photographs"
# CQ100 holds these beside its photographs: charts, drawings, a microscope's and a telescope's view.
NOT_PHOTOGRAPHS = {
    "astro_bodies",
    "bosnian_pine_needle",
    "color_chart",
    "color_checker",
    "cosmic_vista",
    "craft_cards",
    "daisy_poster",
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
LONG_SIDE = 512
# Nothing to harm in a picture that is grey all over.
COLOR_ONLY = {"color_diffusion", "color_saturation_hsv", "color_saturation_lab"}
LEAST_CHROMA = 2.0  # mean difference of a pixel's largest and smallest value, of 255
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(DISTORTION_GROUP.values()))

Box = tuple[int, int, int, int]


def add_photograph_arguments(parser: argparse.ArgumentParser, count: int) -> None:
    """Adds `--photographs`, `--count`, `--seed` and `--batch-size`."""
    parser.add_argument("--photographs", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=count, help="pictures of each DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)


def choose(folders: list[Path], count: int, seed: int, examples: bool = True) -> list[Path]:
    """The example photographs if wanted, and `count` pictures of each folder."""
    chosen = pictures_in(EXAMPLES) if examples else []
    for folder in folders:
        found = pictures_in(folder)
        if len(found) < count:
            raise SystemExit(f"{folder} holds {len(found)} pictures, --count asks for {count}")
        order = np.random.default_rng(seed).permutation(len(found))
        chosen += [found[position] for position in sorted(order[:count])]
    return chosen


def chosen_photographs(arguments: argparse.Namespace) -> list[Path]:
    """`--count` pictures of each folder of `--photographs`, without the examples."""
    return choose(arguments.photographs, arguments.count, arguments.seed, examples=False)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder and are photographs, by name."""
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not a folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.stem not in NOT_PHOTOGRAPHS
    )


def read_photograph(file: Path) -> Image.Image:
    """The photograph, RGB, its long side reduced to 512 pixels."""
    with Image.open(file) as opened:
        photograph = opened.convert("RGB")
    photograph.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    return photograph


def is_grey(photograph: Image.Image) -> bool:
    """Whether types that change colours only would find nothing to change."""
    values = np.asarray(photograph, np.float32)
    return float(np.mean(values.max(axis=2) - values.min(axis=2))) < LEAST_CHROMA


def quadrant_boxes(width: int, height: int) -> list[Box]:
    """Left, top, right, bottom of the quadrants, in reading order."""
    x, y = width // 2, height // 2
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def with_spoilt_box(photograph: Image.Image, degraded: Image.Image, box: Box) -> Image.Image:
    """The photograph with one box taken from its degraded copy."""
    spoilt = photograph.copy()
    spoilt.paste(degraded.crop(box), box)
    return spoilt


def lowest_quadrant(quality_map: np.ndarray) -> int:
    """Number of the quadrant whose mean of the map is the lowest."""
    values = np.asarray(quality_map)
    boxes = quadrant_boxes(values.shape[1], values.shape[0])
    means = [values[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
    return int(np.argmin(means))


def assessed(
    scorer: Any, pictures: Iterable[Any], total: int, batch_size: int, **options: Any
) -> Iterator[dict[str, Any]]:
    """The pipeline's results for pictures that are made while it works, with a progress bar."""
    outputs = scorer((picture for picture in pictures), batch_size=batch_size, **options)
    with tqdm(outputs, total=total, unit=" pictures") as progress:
        yield from progress
