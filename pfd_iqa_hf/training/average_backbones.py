"""One backbone from several that were tuned from the same pre-trained one: the mean of the weights.

Backbones fine-tuned from one start lie in one basin: their mean is often better than each (model
soups; Wortsman et al., arXiv 2203.05482), and a share of the pre-trained one gives back some of
what tuning forgot about other pictures (WiSE-FT; arXiv 2109.01903)::

    python -m pfd_iqa_hf.training.average_backbones run=1 other-run=1 weights/dinov2-small=0.5 \
        --output-dir averaged

Priors, denoiser and head are those of the first folder; they knew another backbone, so a second
stage on the resting mean must follow (`pfd-iqa train --model averaged --freeze-layers 12 …`).

With `--whole` everything is averaged: for checkpoints of one run, such as its `checkpoints/last`
and `checkpoints/best`, whose parts have grown together; no stage need follow.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.familiarity import forget_familiarity

__all__ = ["average_backbones", "main"]


def average_backbones(
    folders: Sequence[tuple[str, float]],
    whole: bool = False,
) -> PfdIqaForImageQualityAssessment:
    """A model with the weighted mean of several backbones.

    Args:
        folders: Checkpoints of this package, or of the backbone alone, each with its weight, which
            is positive; the first is one of this package. The weights are scaled to a sum of one.
        whole: Average all tensors, not the backbone's alone; all folders are of this package.

    Returns:
        The first model with the mean in place of its backbone, in evaluation mode.

    Raises:
        ValueError: a weight that is not positive, or models of different shapes.
        OSError: a folder holds no model.
    """
    for folder, weight in folders:
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of {folder} is {weight}: give a positive number")
    model = PfdIqaForImageQualityAssessment.from_pretrained(folders[0][0])
    total = sum(weight for _, weight in folders)
    forget_familiarity(model)
    averaged = model if whole else model.vision_model
    own = averaged.state_dict()
    mean = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in own.items()}
    for place, (folder, weight) in enumerate(folders):
        found = own if place == 0 else _averaged_with(folder, whole).state_dict()
        shapes = {name: value.shape for name, value in found.items()}
        if shapes != {name: value.shape for name, value in own.items()}:
            what = "model" if whole else "backbone"
            raise ValueError(f"the {what} of {folder} is not of the kind of {folders[0][0]}'s")
        for name, value in found.items():
            mean[name] += weight / total * value.double()
    averaged.load_state_dict({name: value.to(own[name].dtype) for name, value in mean.items()})
    return model.eval()


def _averaged_with(folder: str, whole: bool) -> torch.nn.Module:
    if whole:
        model: Any = PfdIqaForImageQualityAssessment.from_pretrained(folder)
        forget_familiarity(model)
        return model.float()
    model = AutoModel.from_pretrained(folder)
    backbone: torch.nn.Module = getattr(model, "vision_model", model)
    return backbone.float()


def _folder_and_weight(text: str) -> tuple[str, float]:
    folder, equals, weight = text.rpartition("=")
    try:
        return (folder, float(weight)) if equals else (text, 1.0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not FOLDER=WEIGHT") from error


def main(arguments: list[str] | None = None) -> None:
    """`python -m pfd_iqa_hf.training.average_backbones FOLDER=WEIGHT … --output-dir FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="+", type=_folder_and_weight, metavar="FOLDER=WEIGHT")
    parser.add_argument("--whole", action="store_true", help="average the heads and boxes as well")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    export(average_backbones(options.folders, options.whole), options.output_dir)


if __name__ == "__main__":
    main()
