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

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import distort
from photographs import (
    assessed,
    choose,
    lowest_quadrant,
    quadrant_boxes,
    read_photograph,
    with_spoilt_box,
)

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
    total = len(files) * (1 + len(PAIR_TYPES) * len(PAIR_LEVELS) + len(MAP_TYPES))
    pictures = copies(files, quadrants, arguments.seed)
    outputs = assessed(scorer, pictures, total, arguments.batch_size, quality_map=True)
    rows = [
        read_outputs(file, chosen, outputs) for file, chosen in zip(files, quadrants, strict=True)
    ]
    next(outputs, None)  # so that the progress bar ends
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


def copies(files: list[Path], quadrants: np.ndarray, seed: int) -> Iterator[Image.Image]:
    """Of each photograph: itself, every type at every level, then one quadrant spoilt per type."""
    for file, chosen in zip(files, quadrants, strict=True):
        photograph = read_photograph(file)
        yield photograph
        for type in PAIR_TYPES:
            for level in PAIR_LEVELS:
                yield distort(photograph, type, level, seed)
        for type, quadrant in zip(MAP_TYPES, chosen, strict=True):
            box = quadrant_boxes(*photograph.size)[quadrant]
            yield with_spoilt_box(photograph, distort(photograph, type, MAP_LEVEL, seed), box)


def read_outputs(
    file: Path, quadrants: np.ndarray, outputs: Iterator[dict[str, Any]]
) -> dict[str, Any]:
    """Takes one photograph's outputs, in the order of `copies`."""
    clean = next(outputs)
    row: dict[str, Any] = {"file": file.name, "clean": float(clean["score"])}
    for type in PAIR_TYPES:
        row[type] = [float(next(outputs)["score"]) for _ in PAIR_LEVELS]
    clean_lowest = lowest_quadrant(clean["quality_map"])
    row["map"] = {
        type: {
            "quadrant": int(quadrant),
            "lowest": lowest_quadrant(next(outputs)["quality_map"]),
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


if __name__ == "__main__":
    main()
