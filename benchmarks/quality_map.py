"""Does the quality map show where a picture is degraded, and is it what the score is made of?

    python benchmarks/quality_map.py --photographs path/to/CQ100/img

In each of `--count` photographs one quadrant, drawn by `--seed`, is blurred, noised or compressed
at level 4. Found: its mean of the map is the lowest of the four. Detection: every cell of the map,
on a grid of 64 cells along the longer side, is inside or outside the quadrant, and the area under
the ROC curve (AUROC) says how well the map tells which; once by the map of the degraded picture
minus that of the photograph, once by the former alone. Contributions: (14) makes a view's logit of
its tokens, z = Σ_i w_i z_i + b with w_i the panel's mean attention and z_i the map's value; the
largest difference between that sum and the logit is printed. Measure in float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import stats

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import distort
from photographs import (
    add_photograph_arguments,
    assessed,
    chosen_photographs,
    lowest_quadrant,
    quadrant_boxes,
    read_photograph,
    with_spoilt_box,
)
from targets import Target, as_rows, heading, percent, print_targets

TYPES = ("gaussian_blur", "white_noise", "jpeg")
LEVEL = 4
CELLS = 64


def main() -> None:
    """Scores the pictures, prints the shares, writes them with a line for each picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=93)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    generator = np.random.default_rng(arguments.seed)
    quadrants = generator.integers(0, 4, (len(files), len(TYPES)))
    scorer = load_pipeline(arguments)
    sums = ContributionCheck(scorer.model)
    outputs = assessed(
        scorer,
        copies(files, quadrants, arguments.seed),
        len(files) * (1 + len(TYPES)),
        arguments.batch_size,
        quality_map=True,
    )
    rows: list[dict[str, Any]] = []
    cells: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for file, chosen in zip(files, quadrants, strict=True):
        clean = next(outputs)["quality_map"]
        for name, quadrant in zip(TYPES, chosen, strict=True):
            spoilt = next(outputs)["quality_map"]
            cells.append(cells_of(spoilt, clean, int(quadrant)))
            inside, alone, change = cells[-1]
            rows.append(
                {
                    "file": file.name,
                    "type": name,
                    "quadrant": int(quadrant),
                    "lowest": lowest_quadrant(spoilt),
                    "lowest_if_clean": lowest_quadrant(clean),
                    "auroc_with_minus_without": auroc(inside, -change),
                    "auroc_alone": auroc(inside, -alone),
                }
            )
    next(outputs, None)  # so that the progress bar ends
    pooled = [np.concatenate(part) for part in zip(*cells, strict=True)]
    targets = measured(rows, pooled, sums.largest)
    result = {
        **describe(arguments),
        "photographs": len(files),
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "views_summed": sums.views,
        "rows": rows,
    }
    report_types(rows)
    print_targets(heading(result, f"{len(files)} photographs, {len(rows)} spoilt copies"), targets)
    write_result(arguments, "quality_map", result)


def copies(files: list[Path], quadrants: np.ndarray, seed: int) -> Iterator[Image.Image]:
    """Of each photograph: itself, then with one quadrant degraded by each type."""
    for number, (file, chosen) in enumerate(zip(files, quadrants, strict=True)):
        photograph = read_photograph(file)
        yield photograph
        for name, quadrant in zip(TYPES, chosen, strict=True):
            degraded = distort(photograph, name, LEVEL, 1000 * seed + number)
            yield with_spoilt_box(photograph, degraded, quadrant_boxes(*photograph.size)[quadrant])


def cells_of(
    spoilt: np.ndarray, clean: np.ndarray, quadrant: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each cell: is it degraded, its value in the spoilt map, that minus the clean map's."""
    height, width = spoilt.shape
    step = max(height, width) / CELLS
    rows = np.arange(step / 2, height, step).astype(int)
    columns = np.arange(step / 2, width, step).astype(int)
    left, top, right, bottom = quadrant_boxes(width, height)[quadrant]
    inside = np.outer((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
    values = spoilt[np.ix_(rows, columns)]
    change = values - clean[np.ix_(rows, columns)]
    return inside.ravel(), values.ravel(), change.ravel()


def auroc(positive: np.ndarray, evidence: np.ndarray) -> float:
    """Probability that a positive has more evidence than a negative; ties count half."""
    found = stats.mannwhitneyu(evidence[positive], evidence[~positive]).statistic
    return float(found / (positive.sum() * (~positive).sum()))


class ContributionCheck:
    """Watches a model and keeps the largest |Σ_i w_i z_i + b − z| of all views.

    Args:
        model: A `PfdIqaForImageQualityAssessment`, called with `output_quality_map`.
    """

    def __init__(self, model: Any) -> None:
        self.largest = 0.0
        self.views = 0
        self._weights = torch.empty(0)
        model.head.register_forward_hook(self._keep_weights)
        model.register_forward_hook(self._compare)

    def _keep_weights(self, module: Any, inputs: Any, judged: Any) -> None:
        self._weights = judged.token_weights

    def _compare(self, model: Any, inputs: Any, output: Any) -> None:
        values = output.token_values.flatten(0, 1).flatten(1).double()  # (B·V, N)
        total = (self._weights.double() * values).sum(-1) + model.head.bias.double()
        difference = (total - output.view_logits.flatten().double()).abs().max()
        self.largest = max(self.largest, float(difference))
        self.views += len(total)


def measured(rows: list[dict[str, Any]], pooled: list[np.ndarray], largest: float) -> list[Target]:
    """The numbers over all types, with their limits."""
    inside, alone, change = pooled

    def mean(key: str) -> float:
        return float(np.mean([row[key] for row in rows]))

    found = np.mean([row["lowest"] == row["quadrant"] for row in rows])
    before = np.mean([row["lowest_if_clean"] == row["quadrant"] for row in rows])
    return [
        percent("degraded quadrant is the lowest of the map", float(found), 0.90),
        percent("the same quadrant, before it was degraded", float(before)),
        Target(
            "AUROC, with minus without, mean over pictures", mean("auroc_with_minus_without"), 0.95
        ),
        Target("AUROC, with minus without, all cells together", auroc(inside, -change)),
        Target("AUROC, map alone, mean over pictures", mean("auroc_alone"), 0.85),
        Target("AUROC, map alone, all cells together", auroc(inside, -alone)),
        Target("largest |sum of token contributions - logit|", largest, most=1e-4, digits=6),
    ]


def report_types(rows: list[dict[str, Any]]) -> None:
    """Prints the numbers of each type."""
    print("type            lowest   AUROC with minus without   AUROC alone")
    for name in TYPES:
        own = [row for row in rows if row["type"] == name]
        found = np.mean([row["lowest"] == row["quadrant"] for row in own])
        both = [
            np.mean([row[key] for row in own])
            for key in ("auroc_with_minus_without", "auroc_alone")
        ]
        print(f"{name:14s} {100 * found:5.1f} % {both[0]:26.3f} {both[1]:13.3f}")


if __name__ == "__main__":
    main()
