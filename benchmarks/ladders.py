"""Do scores fall, level by level, with all 25 distortions, and is the distortion named first?

    python benchmarks/ladders.py --photographs path/to/CQ100/img

`--count` photographs, drawn by `--seed`, with every type at levels 1 to 5; long sides are reduced
to 512 pixels. A pair of levels is right when the milder copy scores strictly higher. Five types can
leave a photograph as good as before, or better, at their mild levels (exposure, contrast,
saturation): of them only level 1 against level 5 counts. From the same results: is the group of the
applied type the first of the named distortions, at levels 3 to 5, and `none` of the undistorted
photograph? Grey photographs are left out of types that change colours only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, LEVELS, distort
from photographs import (
    COLOR_ONLY,
    GROUPS,
    add_photograph_arguments,
    assessed,
    chosen_photographs,
    is_grey,
    read_photograph,
)
from targets import Target, as_rows, heading, percent, print_targets

ENDS_ONLY = (
    "brighten",
    "mean_shift",
    "contrast_change",
    "color_saturation_hsv",
    "color_saturation_lab",
)
NAMED_LEVELS = (3, 4, 5)
NAMES = ("none", *GROUPS)


@dataclass(frozen=True)
class Copy:
    """One picture to score: a photograph, or a type at a level; level 0 is untouched."""

    photograph: int
    type: str | None
    level: int


def main() -> None:
    """Scores all copies, prints shares and confusions, writes them with every score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=40)
    parser.add_argument("--types", nargs="+", choices=DISTORTION_TYPES, default=DISTORTION_TYPES)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    scorer = load_pipeline(arguments)
    photographs = [read_photograph(file) for file in files]
    copies = list(copies_of(photographs, arguments.types))
    outputs = assessed(
        scorer,
        (picture_of(copy, photographs, arguments.seed) for copy in copies),
        len(copies),
        arguments.batch_size,
    )
    rows = [
        {
            "file": files[copy.photograph].name,
            "type": copy.type,
            "level": copy.level,
            "score": round(float(output["score"]), 4),
            "named": output["distortions"][0]["label"],
        }
        for copy, output in zip(copies, outputs, strict=True)
    ]
    shares = pair_shares(rows, arguments.types)
    confusions = confusion_table(rows)
    targets = [*pair_targets(shares), *named_targets(confusions)]
    result = {
        **describe(arguments),
        "photographs": len(files),
        "copies": len(copies),
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "types": shares,
        "confusions": confusions,
        "rows": rows,
    }
    report(result, targets)
    write_result(arguments, "ladders", result)


def copies_of(photographs: list[Image.Image], types: list[str]) -> Iterator[Copy]:
    """Every photograph untouched, then each type at each level."""
    for number, photograph in enumerate(photographs):
        yield Copy(number, None, 0)
        grey = is_grey(photograph)
        for name in types:
            if not (grey and name in COLOR_ONLY):
                yield from (Copy(number, name, level) for level in LEVELS)


def picture_of(copy: Copy, photographs: list[Image.Image], seed: int) -> Image.Image:
    """The picture; every photograph has a sign, a direction and a noise of its own."""
    photograph = photographs[copy.photograph]
    if copy.type is None:
        return photograph
    return distort(photograph, copy.type, copy.level, 1000 * seed + copy.photograph)


def pair_shares(rows: list[dict[str, Any]], types: list[str]) -> dict[str, dict[str, Any]]:
    """Shares of right pairs of each type: two or more levels apart, neighbours, the two ends."""
    shares: dict[str, dict[str, Any]] = {}
    for name in types:
        scores = np.array([row["score"] for row in rows if row["type"] == name])
        ladders = scores.reshape(-1, len(LEVELS))  # (photographs, levels)
        if not len(ladders):
            continue
        right = {
            (mild, strong): ladders[:, mild] > ladders[:, strong]
            for mild, strong in combinations(range(len(LEVELS)), 2)
        }
        apart = [pair for pair in right if pair[1] - pair[0] >= 2]
        neighbours = [pair for pair in right if pair[1] - pair[0] == 1]
        named = [
            row["named"] == DISTORTION_GROUP[name]
            for row in rows
            if row["type"] == name and row["level"] in NAMED_LEVELS
        ]
        shares[name] = {
            "group": DISTORTION_GROUP[name],
            "ends_only": name in ENDS_ONLY,
            "photographs": len(ladders),
            "two_or_more_levels": float(np.mean([right[pair] for pair in apart])),
            "neighbours": float(np.mean([right[pair] for pair in neighbours])),
            "level_1_over_5": float(np.mean(right[0, len(LEVELS) - 1])),
            "mean_scores": [round(float(value), 2) for value in ladders.mean(axis=0)],
            "named_first": float(np.mean(named)),
        }
    return shares


def pair_targets(shares: dict[str, dict[str, Any]]) -> list[Target]:
    """Means over the types, weighted by their photographs, and the worst type."""
    ladders = {name: share for name, share in shares.items() if not share["ends_only"]}
    ends = [share for share in shares.values() if share["ends_only"]]
    targets = []
    if ladders:
        worst = min(ladders, key=lambda name: ladders[name]["two_or_more_levels"])
        targets += [
            percent(
                f"{len(ladders)} types, two or more levels apart",
                weighted(list(ladders.values()), "two_or_more_levels"),
                0.97,
            ),
            percent(
                f"{len(ladders)} types, neighbours",
                weighted(list(ladders.values()), "neighbours"),
                0.88,
            ),
            percent(
                f"worst type, two or more levels apart: {worst}",
                ladders[worst]["two_or_more_levels"],
                0.80,
            ),
        ]
    if ends:
        targets.append(
            percent(
                f"{len(ends)} signed or tonal types, level 1 over 5",
                weighted(ends, "level_1_over_5"),
                0.90,
            )
        )
    return targets


def weighted(shares: list[dict[str, Any]], key: str) -> float:
    """The share over all photographs of all types: each type has as many pairs of a photograph."""
    counts = [share["photographs"] for share in shares]
    return float(np.average([share[key] for share in shares], weights=counts))


def confusion_table(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often each group, applied at levels 3 to 5, was named what."""
    table = {applied: dict.fromkeys(NAMES, 0) for applied in NAMES}
    for row in rows:
        if row["type"] is None or row["level"] in NAMED_LEVELS:
            applied = "none" if row["type"] is None else DISTORTION_GROUP[row["type"]]
            table[applied][row["named"]] += 1
    return table


def named_targets(confusions: dict[str, dict[str, int]]) -> list[Target]:
    """Share of right names over all copies, and the mean over the applied groups."""
    totals = {name: sum(row.values()) for name, row in confusions.items()}
    right = {name: confusions[name][name] for name in confusions}
    groups = [right[name] / total for name, total in totals.items() if total]
    return [
        percent(
            "distortion type named first, all copies",
            sum(right.values()) / sum(totals.values()),
            0.85,
        ),
        percent("the same, mean over the applied groups and none", float(np.mean(groups))),
        percent("undistorted photographs named none", right["none"] / max(totals["none"], 1)),
    ]


def report(result: dict[str, Any], targets: list[Target]) -> None:
    """Prints a line a type, the confusions and the numbers to reach."""
    print(
        "type                          2+ levels  neighbours  1 over 5  named first   mean scores"
    )
    for name, share in result["types"].items():
        mark = "*" if share["ends_only"] else " "
        scores = " ".join(f"{score:5.1f}" for score in share["mean_scores"])
        print(
            f"{name:28s}{mark} {100 * share['two_or_more_levels']:7.1f} %"
            f" {100 * share['neighbours']:9.1f} % {100 * share['level_1_over_5']:7.1f} %"
            f" {100 * share['named_first']:10.1f} %   {scores}"
        )
    print("* only level 1 over 5 counts")
    print_confusions(result["confusions"])
    print_targets(
        heading(result, f"{result['photographs']} photographs, {result['copies']} copies"), targets
    )


def print_confusions(confusions: dict[str, dict[str, int]]) -> None:
    """Rows: what was applied; columns, by their first letters: what was named, in per cent."""
    print(f"\n{'applied':20s}" + "".join(f"{name[:6]:>7s}" for name in short_names()) + "  copies")
    for applied, row in confusions.items():
        total = sum(row.values())
        if total:
            cells = "".join(f"{100 * count / total:7.0f}" for count in row.values())
            print(f"{applied:20s}{cells} {total:7d}")
    print()


def short_names() -> list[str]:
    """Names that differ in their first six letters."""
    return [{"jpeg2000 compression": "jp2k"}.get(name, name) for name in NAMES]


if __name__ == "__main__":
    main()
