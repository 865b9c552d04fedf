"""Does a file score like the model it was made from?  Compared on generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from pfd_iqa_hf.export.graph import ScoreGraph
from pfd_iqa_onnx.contract import ModelFileError
from pfd_iqa_onnx.scorer import OnnxScorer

__all__ = ["TOLERANCES", "Agreement", "check_agreement", "generated_pictures"]

# Largest mean and largest single difference of a score on generated pictures, in points.  They are
# far wider than what the precisions cost, and far narrower than what a wrong graph does.
TOLERANCES = {"fp32": (0.01, 0.05), "fp16": (0.25, 1.0), "int8": (2.5, 7.5)}
_SIZES = ((320, 240), (240, 320), (900, 300), (160, 120), (300, 900), (512, 512))


@dataclass(frozen=True)
class Agreement:
    """Differences between a file and PyTorch in fp32, in score points.

    Attributes:
        pictures: Number of pictures.
        mean: Mean absolute difference of the scores.
        largest: Largest absolute difference of the scores.
    """

    pictures: int
    mean: float
    largest: float


def generated_pictures() -> list[Image.Image]:
    """Pictures of several shapes: light, edges and texture, sharp, blurred, noisy and dark."""
    pictures = []
    for number, (width, height) in enumerate(_SIZES):
        random = np.random.default_rng(number)
        rows, columns = np.mgrid[0:height, 0:width] / (60.0 + 15 * number)
        light = 128 + 60 * np.sin(columns + number) + 50 * np.cos(rows * (1 + number))
        light[rows + columns > 5] *= 0.5
        tint = random.uniform(0.6, 1.0, 3)
        texture = random.normal(0, 4 + 3 * number, (height, width, 3))
        values = np.clip(light[..., None] * tint + texture, 0, 255).astype(np.uint8)
        picture = Image.fromarray(values)
        pictures.append(picture)
        pictures.append(picture.filter(ImageFilter.GaussianBlur(3)))
    return pictures


@torch.no_grad()
def check_agreement(
    graph: ScoreGraph, scorer: OnnxScorer, file: object, batches: Sequence[int] = (1, 4, 7)
) -> Agreement:
    """Compare scores on generated pictures, in batches of several sizes.

    Args:
        graph: The model in float32.
        scorer: The file, loaded.
        file: Its name in messages.
        batches: Numbers of pictures that go through together.

    Raises:
        ModelFileError: the differences are larger than the precision explains.
    """
    inputs = [scorer.inputs(picture) for picture in generated_pictures()[: sum(batches)]]
    differences: list[float] = []
    start = 0
    for size in batches:
        part = inputs[start : start + size]
        start += size
        expected = graph(
            torch.from_numpy(np.stack([entry["pixel_values"] for entry in part])),
            torch.tensor([entry["low_resolution"] for entry in part]),
        )
        outputs = scorer.run_inputs(part, with_map=graph.quality_map)
        for index, output in enumerate(outputs):
            for name, values in zip(graph.output_names, expected, strict=True):
                _check_shape(file, name, output[name], values[index])
            difference = abs(float(output["score"]) - float(expected[0][index]))
            differences.append(difference if np.isfinite(difference) else np.inf)
    agreement = Agreement(len(differences), float(np.mean(differences)), max(differences))
    precision = scorer.contract.precision
    mean, largest = TOLERANCES[precision]
    if not (agreement.mean <= mean and agreement.largest <= largest):
        raise ModelFileError(
            file,
            f"its scores differ from PyTorch's by {agreement.mean:.3g} points on average and "
            f"{agreement.largest:.3g} at most; {precision} may differ by {mean:g} and {largest:g}",
            "the file was not kept; export with --precision fp32, or report it if that was it",
        )
    return agreement


def _check_shape(file: object, name: str, got: Any, expected: torch.Tensor) -> None:
    if np.shape(got) != tuple(expected.shape):
        raise ModelFileError(
            file,
            f"'{name}' has the shape {np.shape(got)}, PyTorch's has {tuple(expected.shape)}",
            "the file was not kept; this is a fault of the exporter: report it",
        )
