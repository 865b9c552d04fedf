"""Is every level of every distortion measurably worse than the one before?

    python benchmarks/distortion_levels.py --photographs path/to/CQ100/img --count 40

Distorts photographs (long side reduced to 512 pixels) with all 25 types and five levels, the seed
being the photograph's number, and measures each against the original with scikit-image: structural
similarity (SSIM) over the three channels where a type harms structure, peak signal-to-noise ratio
(PSNR) where it changes values. The table gives the share of photographs on which all four steps
worsen the measure that is named, and the measure's median at each level. CQ100 lies in the
repository `IanManske/quantette`; its charts and drawings are left out. Grey photographs do not
count for types that change colours only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

from pfd_iqa_hf.data.distortions import DISTORTION_TYPES, LEVELS, distort
from photographs import COLOR_ONLY, LONG_SIDE, choose, is_grey, read_photograph

BY_VALUE = {  # measured by PSNR
    "color_diffusion",
    "color_shift",
    "color_saturation_hsv",
    "color_saturation_lab",
    "white_noise",
    "white_noise_color_component",
    "impulse_noise",
    "multiplicative_noise",
    "brighten",
    "darken",
    "mean_shift",
    "contrast_change",
    "quantization",
    "color_quantization",
}
WANTED = 0.95


def main() -> int:
    """Measures all copies, prints the table; exit code 1 if a type falls short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photographs", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--count", type=int, default=40, help="pictures of each DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--types", nargs="*", default=list(DISTORTION_TYPES))
    parser.add_argument("--output", type=Path, help="JSON with every measured value")
    arguments = parser.parse_args()

    files = choose(arguments.photographs, arguments.count, arguments.seed)
    values: dict[str, list[dict[str, list[float]]]] = {name: [] for name in arguments.types}
    for number, file in enumerate(tqdm(files, unit=" pictures")):
        picture = read_photograph(file)
        grey = is_grey(picture)
        for name in arguments.types:
            if grey and name in COLOR_ONLY:
                continue
            values[name].append(measure(picture, name, number))
    print(f"{len(files)} photographs, long side {LONG_SIDE}; colour types: without grey ones")
    print("| type | measure | photographs | each level worse | median at levels 1 to 5 |")
    print("|---|---|---|---|---|")
    short = False
    for name, measured in values.items():
        kind = "psnr" if name in BY_VALUE else "ssim"
        levels = np.array([row[kind] for row in measured])
        share = float(np.mean((np.diff(levels, axis=1) < 0).all(axis=1)))
        short = short or share < WANTED
        shown = " · ".join(f"{value:.3g}" for value in np.median(levels, axis=0))
        mark = "" if share >= WANTED else " **short**"
        count = len(measured)
        print(f"| {name} | {kind.upper()} | {count} | {100 * share:.1f} %{mark} | {shown} |")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(values), encoding="utf-8")
    return int(short)


def measure(picture: Image.Image, name: str, seed: int) -> dict[str, list[float]]:
    """SSIM and PSNR of the five levels of one type against the picture."""
    before = np.asarray(picture)
    result: dict[str, list[float]] = {"ssim": [], "psnr": []}
    for level in LEVELS:
        after = np.asarray(distort(picture, name, level, seed))
        result["ssim"].append(float(structural_similarity(before, after, channel_axis=2)))
        result["psnr"].append(float(peak_signal_noise_ratio(before, after)))
    return result


if __name__ == "__main__":
    sys.exit(main())
