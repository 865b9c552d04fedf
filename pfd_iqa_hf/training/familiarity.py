"""Teach a finished checkpoint to tell pictures that are unlike its training photographs.

The distance of a picture's backbone feature from those of the training photographs is fitted, and a
threshold that held-back photographs seldom pass; scores stay as they are::

    python -m pfd_iqa_hf.training.familiarity --model run --dataset BIQ2021 --data-dir BIQ2021 \
        --config pfd_iqa_hf/training/recipes/default.yaml --output-dir finished

Training and validation pictures are those of a run with the same `--config`, so that the threshold
is chosen on pictures that taught the model nothing. A backbone that is trained further needs it
anew: `pfd-iqa train` and `average_backbones` leave it out of what they write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.familiarity import Familiarity, familiarity_feature
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.finished import finished_parser, load_finished
from pfd_iqa_hf.training.run_data import added_photographs
from pfd_iqa_hf.training.validation import views_of

__all__ = ["fit_familiarity", "forget_familiarity", "main"]

_DIRECTIONS = 64
# Photographs of other cameras lie farther than held-back ones of the same data set.
_MARGIN = 1.1


@torch.no_grad()
def fit_familiarity(
    model: PfdIqaForImageQualityAssessment,
    processor: PfdIqaImageProcessor,
    ratings: Sequence[Rating],
    held_back: Sequence[Rating],
    *,
    directions: int = _DIRECTIONS,
    level: int | None = None,
    false_alarms: float = 0.01,
    max_pictures: int = 3000,
    margin: float = _MARGIN,
    seed: int = 0,
    photographs: Sequence[Path] = (),
    bf16: bool = False,
) -> dict[str, Any]:
    """Fit the distance on training pictures and its threshold on others; scores do not change.

    Args:
        model: The trained model; its configuration and its buffers are changed.
        processor: Cuts the views that it will be used with.
        ratings: Training pictures.
        held_back: Photographs that trained nothing, for the threshold.
        directions: Principal directions to keep.
        level: Backbone layer whose class token is compared; None is the one at two thirds.
        false_alarms: Share of `held_back` that may pass the threshold.
        max_pictures: Of more training pictures so many are drawn.
        margin: The threshold is so many times the distance that this share passes: photographs
            from elsewhere lie farther than those of the data set.
        seed: Draws the training pictures.
        photographs: Photographs from elsewhere. Half of them are fitted beside the training
            pictures; the share of the others that passes the threshold is as small.
        bf16: Compute the features in bfloat16, which moves a distance by less than a hundredth.

    Returns:
        `pictures` and `held_back` (numbers of pictures), `threshold`, and `median`, the middle
        distance of the held-back pictures.

    Raises:
        ValueError: too few pictures, or a share that is none.
        PictureError: a picture cannot be read.
    """
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms must lie between 0 and 1, got {false_alarms}")
    if not held_back:
        raise ValueError("the threshold needs held-back pictures: raise --validation-share")
    order = np.random.default_rng(seed).permutation(len(ratings))[:max_pictures]
    chosen = [ratings[place] for place in sorted(order)]
    vision: Any = model.vision_model
    elsewhere = [Rating(path, math.nan) for path in photographs]
    chosen += elsewhere[::2]
    layers = int(vision.config.num_hidden_layers)
    before = model.config.to_dict()
    model.config.familiarity_directions = directions
    model.config.familiarity_level = -(-2 * layers // 3) if level is None else level
    try:
        model.config.validate_architecture()
        features = _features(model, processor, chosen, bf16)
        fitted = Familiarity(features.shape[-1], directions).to(model.device)
        fitted.fit(features)
    except BaseException:
        for name in ("familiarity_directions", "familiarity_level"):
            setattr(model.config, name, before[name])
        raise
    model.familiarity = fitted
    distances = fitted(_features(model, processor, held_back, bf16)).sort().values
    passed = _seldom_passed(distances, false_alarms)
    if len(elsewhere) > 1:
        others = fitted(_features(model, processor, elsewhere[1::2], bf16)).sort().values
        passed = max(passed, _seldom_passed(others, false_alarms))
    threshold = round(margin * passed, 4)
    model.config.familiarity_threshold = threshold
    return {
        "pictures": len(chosen),
        "held_back": len(held_back),
        "threshold": threshold,
        "median": round(float(distances.median()), 4),
    }


def _seldom_passed(distances: torch.Tensor, share: float) -> float:
    """The distance that such a share of equal photographs to come passes; `distances` ascend."""
    # The share that passes the n-th of N is (N + 1 − n)/(N + 1).
    place = min(math.ceil((len(distances) + 1) * (1 - share)), len(distances))
    return float(distances[place - 1])


def forget_familiarity(model: PfdIqaForImageQualityAssessment) -> None:
    """Take out what was fitted: it belongs to another backbone than the model will have."""
    model.familiarity = None
    model.config.familiarity_directions = 0
    model.config.familiarity_threshold = 0.0


def _features(
    model: PfdIqaForImageQualityAssessment,
    processor: PfdIqaImageProcessor,
    ratings: Sequence[Rating],
    bf16: bool,
) -> torch.Tensor:
    """One row a picture, (P, D)."""
    model.eval()
    rows = []
    for batch in views_of(processor, ratings):
        views = batch["pixel_values"].to(model.device)
        with torch.autocast(views.device.type, torch.bfloat16, bf16):
            tokens = model.pfd_iqa(views.flatten(0, 1)).familiarity_token
        rows.append(familiarity_feature(tokens.unflatten(0, views.shape[:2])))
    return torch.cat(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m pfd_iqa_hf.training.familiarity --model FOLDER … --output-dir FOLDER`."""
    parser = finished_parser(__doc__)
    parser.add_argument("--max-pictures", type=int, default=3000, help="training pictures to fit")
    parser.add_argument("--directions", type=int, default=_DIRECTIONS)
    parser.add_argument("--level", type=int, help="backbone layer; default: at two thirds")
    parser.add_argument("--false-alarms", type=float, default=0.01, help="share of photographs")
    parser.add_argument("--margin", type=float, default=_MARGIN, help="factor of the threshold")
    parser.add_argument(
        "--photographs", nargs="+", default=[], metavar="FOLDER", help="photographs from elsewhere"
    )
    parser.add_argument("--bf16", action="store_true", help="features in bfloat16, faster")
    options, rest = parser.parse_known_args(arguments)
    model, processor, data = load_finished(options, rest)
    result = fit_familiarity(
        model,
        processor,
        data.recipe.train,
        data.recipe.validation,
        directions=options.directions,
        level=options.level,
        false_alarms=options.false_alarms,
        max_pictures=options.max_pictures,
        margin=options.margin,
        photographs=added_photographs(options.photographs),
        bf16=options.bf16,
    )
    export(model, options.output_dir)
    print(
        f"fitted on {result['pictures']} photographs; {result['held_back']} others lie at "
        f"{result['median']:.2f} (median), the threshold is {result['threshold']:.2f}"
    )


if __name__ == "__main__":
    main()
