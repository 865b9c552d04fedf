"""Are stronger degradations scored lower, and does the quality map find a degraded quadrant?

    python benchmarks/degradations.py --photographs path/to/CQ100/img

Uses the photographs in `examples/` and `--count` pictures, drawn by `--seed`, of each further
folder; long sides are reduced to 512 pixels. CQ100 lies in the repository `IanManske/quantette`.

Pairs: levels 1 to 4 of Gaussian blur, JPEG and white noise. A pair is right when the milder picture
scores strictly higher; pairs two or more levels apart are counted, neighbours beside them.
Map: one quadrant, drawn by the seed, is blurred or noised at level 5; right when its mean of the
quality map is the lowest of the four. How often that quadrant is the lowest of the undistorted
picture already stands beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import distort

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
PAIR_TYPES = ("gaussian_blur", "jpeg", "white_noise")
PAIR_LEVELS = (1, 2, 3, 4)
MAP_TYPES = ("gaussian_blur", "white_noise")
MAP_LEVEL = 5


def main() -> None:
    """Scores all copies, prints the shares, writes them with every score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photographs", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--count", type=int, default=40, help="pictures of each DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = choose(arguments.photographs, arguments.count, arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    quadrants = generator.integers(0, 4, (len(files), len(MAP_TYPES)))
    scorer = load_pipeline(arguments)
    outputs = scorer(
        copies(files, quadrants, arguments.seed),
        batch_size=arguments.batch_size,
        quality_map=True,
    )
    total = len(files) * (1 + len(PAIR_TYPES) * len(PAIR_LEVELS) + len(MAP_TYPES))
    with tqdm(outputs, total=total, unit=" pictures") as progress:
        remaining = iter(progress)
        rows = [
            read_outputs(file, chosen, remaining)
            for file, chosen in zip(files, quadrants, strict=True)
        ]
    result = {
        **describe(arguments),
        "photographs": len(rows),
        "seed": arguments.seed,
        "pairs": pair_shares(rows),
        "map": map_shares(rows),
        "rows": rows,
    }
    report(result)
    write_result(arguments, "degradations", result)


def choose(folders: list[Path], count: int, seed: int) -> list[Path]:
    """The example photographs, and `count` pictures of each folder."""
    chosen = _pictures(EXAMPLES)
    for folder in folders:
        found = _pictures(folder)
        if len(found) < count:
            raise SystemExit(f"{folder} holds {len(found)} pictures, --count asks for {count}")
        order = np.random.default_rng(seed).permutation(len(found))
        chosen += [found[position] for position in sorted(order[:count])]
    return chosen


def copies(files: list[Path], quadrants: np.ndarray, seed: int) -> Iterator[Image.Image]:
    """Of each photograph: itself, every type at every level, then one quadrant spoilt per type."""
    for file, chosen in zip(files, quadrants, strict=True):
        with Image.open(file) as opened:
            photograph = opened.convert("RGB")
        photograph.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        yield photograph
        for type in PAIR_TYPES:
            for level in PAIR_LEVELS:
                yield distort(photograph, type, level, seed)
        for type, quadrant in zip(MAP_TYPES, chosen, strict=True):
            box = _boxes(photograph.width, photograph.height)[quadrant]
            spoilt = photograph.copy()
            spoilt.paste(distort(photograph, type, MAP_LEVEL, seed).crop(box), box)
            yield spoilt


def read_outputs(
    file: Path, quadrants: np.ndarray, outputs: Iterator[dict[str, Any]]
) -> dict[str, Any]:
    """Takes one photograph's outputs, in the order of `copies`."""
    clean = next(outputs)
    row: dict[str, Any] = {"file": file.name, "clean": float(clean["score"])}
    for type in PAIR_TYPES:
        row[type] = [float(next(outputs)["score"]) for _ in PAIR_LEVELS]
    clean_lowest = _lowest_quadrant(clean["quality_map"])
    row["map"] = {
        type: {
            "quadrant": int(quadrant),
            "lowest": _lowest_quadrant(next(outputs)["quality_map"]),
            "lowest_if_clean": clean_lowest,
        }
        for type, quadrant in zip(MAP_TYPES, quadrants, strict=True)
    }
    return row


def pair_shares(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of right pairs, by type and overall."""
    shares = {}
    for name, types in [*((type, (type,)) for type in PAIR_TYPES), ("overall", PAIR_TYPES)]:
        ladders = [row[type] for row in rows for type in types]
        right = {
            gap: [
                ladder[milder] > ladder[stronger]
                for ladder in ladders
                for milder, stronger in combinations(range(len(PAIR_LEVELS)), 2)
                if (stronger - milder == 1) == (gap == "neighbours")
            ]
            for gap in ("two_or_more_levels", "neighbours")
        }
        over = [row["clean"] > score for row in rows for type in types for score in row[type][1:]]
        shares[name] = {gap: float(np.mean(values)) for gap, values in right.items()}
        shares[name]["clean_over_level_2_to_4"] = float(np.mean(over))
        shares[name]["pairs_two_or_more_levels"] = len(right["two_or_more_levels"])
    return shares


def map_shares(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of spoilt quadrants that the map finds, by type and overall."""
    shares = {}
    for name, types in [*((type, (type,)) for type in MAP_TYPES), ("overall", MAP_TYPES)]:
        maps = [row["map"][type] for row in rows for type in types]
        shares[name] = {
            "found": float(np.mean([entry["lowest"] == entry["quadrant"] for entry in maps])),
            "lowest_if_clean": float(
                np.mean([entry["lowest_if_clean"] == entry["quadrant"] for entry in maps])
            ),
        }
    return shares


def report(result: dict[str, Any]) -> None:
    """Prints what the README quotes."""
    print(f"{result['photographs']} photographs, model {result['model_sha256']}")
    print("milder scores higher:  two or more levels apart | neighbours | clean over levels 2-4")
    for name, share in result["pairs"].items():
        print(
            f"  {name:14s} {100 * share['two_or_more_levels']:6.1f} %"
            f" {100 * share['neighbours']:6.1f} % {100 * share['clean_over_level_2_to_4']:6.1f} %"
        )
    print("spoilt quadrant is the lowest of the map:  share | the same quadrant, unspoilt")
    for name, share in result["map"].items():
        print(f"  {name:14s} {100 * share['found']:6.1f} % {100 * share['lowest_if_clean']:6.1f} %")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not a folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.stem not in NOT_PHOTOGRAPHS
    )


def _boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the quadrants, in reading order."""
    x, y = width // 2, height // 2
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def _lowest_quadrant(quality_map: np.ndarray) -> int:
    values = np.asarray(quality_map)
    boxes = _boxes(values.shape[1], values.shape[0])
    means = [values[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
    return int(np.argmin(means))


if __name__ == "__main__":
    main()
