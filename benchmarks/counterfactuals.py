"""Do the costs that `explain=True` names grow with a distortion, and name the right one?

    python benchmarks/counterfactuals.py --photographs path/to/CQ100/img

`--count` photographs, drawn by `--seed`, long sides reduced to 512 pixels, degraded by one type of
each group at levels 1 to 5. The cost of a group is how many points the picture would gain with that
group taken out of the text condition. Growth: SRCC of the level with the cost of the applied group,
a number for each photograph (0 where the cost never changes), then the mean of each group. Right
name: at levels 3 to 5 the applied group has the largest of the eleven costs.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, LEVELS, distort
from pfd_iqa_hf.evaluation.correlation import srcc
from photographs import (
    COLOR_ONLY,
    add_photograph_arguments,
    assessed,
    chosen_photographs,
    is_grey,
    read_photograph,
)
from targets import Target, as_rows, heading, percent, print_targets

# One of each group; the first three are those that nobody would dispute.
TYPES = (
    "gaussian_blur",
    "jpeg",
    "white_noise",
    "jpeg2000",
    "color_diffusion",
    "contrast_change",
    "brighten",
    "darken",
    "pixelate",
    "quantization",
    "sharpen",
)
NAMED_LEVELS = (3, 4, 5)


def main() -> None:
    """Explains all copies, prints the shares, writes them with all costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=20)
    parser.add_argument("--types", nargs="+", choices=DISTORTION_TYPES, default=TYPES)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    scorer = load_pipeline(arguments)
    plan = [
        (number, file, name)
        for number, file in enumerate(files)
        for name in types_for(file, arguments.types)
    ]
    outputs = assessed(
        scorer,
        copies(plan, arguments.seed),
        len(plan) * len(LEVELS),
        arguments.batch_size,
        explain=True,
    )
    rows = [read_outputs(file, name, outputs) for _, file, name in plan]
    next(outputs, None)  # so that the progress bar ends
    shares = by_group(rows)
    targets = measured(shares, rows)
    result = {
        **describe(arguments),
        "photographs": len(files),
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "groups": shares,
        "rows": rows,
    }
    report_groups(shares)
    print_targets(heading(result, f"{len(files)} photographs, {len(rows)} ladders"), targets)
    write_result(arguments, "counterfactuals", result)


def types_for(file: Path, types: list[str]) -> list[str]:
    """The types that change this photograph."""
    barred = COLOR_ONLY if is_grey(read_photograph(file)) else set()
    return [name for name in types if name not in barred]


def copies(plan: list[tuple[int, Path, str]], seed: int) -> Iterator[Image.Image]:
    """The five levels of each photograph and type."""
    for number, file, name in plan:
        photograph = read_photograph(file)
        for level in LEVELS:
            yield distort(photograph, name, level, 1000 * seed + number)


def read_outputs(file: Path, name: str, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """One ladder's results: cost of the applied group and dearest group at each level."""
    group = DISTORTION_GROUP[name]
    costs, dearest, scores = [], [], []
    for _ in LEVELS:
        result = next(outputs)
        if "costs" not in result:
            raise SystemExit("this model has no costs: it lacks priors or denoiser")
        points = {entry["label"]: entry["points"] for entry in result["costs"]}
        costs.append(round(points[group], 4))
        dearest.append(result["costs"][0]["label"])
        scores.append(round(float(result["score"]), 3))
    return {
        "file": file.name,
        "type": name,
        "group": group,
        "cost": costs,
        "dearest": dearest,
        "score": scores,
        "srcc": growth(costs),
    }


def growth(costs: list[float]) -> float:
    """SRCC of the levels with the costs; 0 for a cost that never changes."""
    if len(set(costs)) == 1:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return srcc(LEVELS, costs)


def by_group(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean growth, share of right names and mean costs of each group."""
    shares: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        costs = np.array([row["cost"] for row in own])
        shares[group] = {
            "ladders": len(own),
            "srcc": float(np.mean([row["srcc"] for row in own])),
            "dearest": float(np.mean([named(row) for row in own])),
            "mean_costs": [round(float(value), 3) for value in costs.mean(axis=0)],
        }
    return shares


def named(row: dict[str, Any]) -> list[bool]:
    """At each of the levels 3 to 5: does the applied group cost most?"""
    return [row["dearest"][LEVELS.index(level)] == row["group"] for level in NAMED_LEVELS]


def measured(shares: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> list[Target]:
    """The numbers with limits: growth of each group, right names over all ladders."""
    right = float(np.mean([named(row) for row in rows]))
    return [
        *(
            Target(f"SRCC of level and cost, {group}", share["srcc"], 0.8)
            for group, share in shares.items()
        ),
        Target(
            "SRCC of level and cost, mean over the groups",
            float(np.mean([share["srcc"] for share in shares.values()])),
        ),
        percent("applied group costs most at levels 3 to 5", right, 0.70),
    ]


def report_groups(shares: dict[str, dict[str, Any]]) -> None:
    """Prints what the limits leave out."""
    print("group                  costs most   mean cost in points at levels 1 to 5")
    for group, share in shares.items():
        costs = " ".join(f"{cost:7.2f}" for cost in share["mean_costs"])
        print(f"{group:22s} {100 * share['dearest']:7.1f} %   {costs}")


if __name__ == "__main__":
    main()
