"""Teach a finished checkpoint how wrong it may be: only that part of its head is fitted.

A view's deviation (15) learns beside the score, for as long as that one does, which is too short.
Here it learns from rated training pictures alone, with the views of the test, from what the head
has seen; scores stay as they are.  The width of the intervals is then calibrated on held-back
pictures, as at the end of a run::

    python -m pfd_iqa_hf.training.uncertainty --model run --dataset BIQ2021 --data-dir BIQ2021 \
        --config pfd_iqa_hf/training/recipes/default.yaml --output-dir finished

Training and validation pictures are those of a run with the same `--config`. `--calibrate-only`
leaves the weights alone; with `--views` the checkpoint looks at other views from then on, which
want a calibration of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.views import VIEW_STRATEGIES
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.finished import finished_parser, load_finished
from pfd_iqa_hf.training.validation import calibrate, views_of

__all__ = ["fit_uncertainty", "main"]

_PICTURES_A_STEP = 128
_DECAY = 0.05
# Of the fitted pictures, so many tell when to stop.
_HELD_SHARE = 0.15


@dataclass
class _Seen:
    """Evidence (P, V, E), scores (P,) in points and labels (P,) of P pictures."""

    evidence: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor

    def part(self, rows: torch.Tensor) -> _Seen:
        return _Seen(self.evidence[rows], self.scores[rows], self.labels[rows])


def fit_uncertainty(
    model: PfdIqaForImageQualityAssessment,
    processor: PfdIqaImageProcessor,
    ratings: Sequence[Rating],
    *,
    max_pictures: int = 4000,
    epochs: int = 60,
    learning_rate: float = 3e-4,
    seed: int = 0,
    report: Any = print,
) -> dict[str, float]:
    """Fit the deviation of (15) by the likelihood of the pictures' scores.

    Args:
        model: The trained model; the layers of its deviation are changed, and nothing else.
        processor: Cuts the views that it will be used with.
        ratings: Training pictures.
        max_pictures: Of more, so many are drawn.
        epochs: The most; the best by a part of the pictures is kept.
        learning_rate: Of AdamW.
        seed: Draws pictures, that part, and the order.
        report: Called with a line now and then.

    Returns:
        `before` and `after`, the negative log likelihood of the part that chose (points, with the
        best common scale of the deviations), and `epoch`, the one that was kept; 0 is none.

    Raises:
        ValueError: fewer than 40 pictures.
        PictureError: a picture cannot be read.
    """
    if len(ratings) < 40:
        raise ValueError(f"{len(ratings)} pictures are too few to learn a deviation: give 40")
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(ratings))[:max_pictures])
    seen = _what_the_head_sees(model, processor, [ratings[row] for row in chosen], report)
    order = torch.from_numpy(generator.permutation(len(chosen)))
    held_back = order[: round(_HELD_SHARE * len(order))]
    judge, learn = seen.part(held_back), seen.part(order[len(held_back) :])
    layers = [model.head.deviation_norm, model.head.deviation_hidden, model.head.deviation]
    learnt = [parameter for layer in layers for parameter in layer.parameters()]
    wanted = [parameter.requires_grad for parameter in learnt]
    for parameter in learnt:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(learnt, lr=learning_rate, weight_decay=_DECAY)
    before = best = _scaled_likelihood(model, judge)
    kept, kept_epoch = [parameter.detach().clone() for parameter in learnt], 0
    for epoch in range(1, epochs + 1):
        for rows in torch.from_numpy(generator.permutation(len(learn.labels))).split(
            _PICTURES_A_STEP
        ):
            optimizer.zero_grad()
            _likelihood(_variances(model, learn.part(rows)), learn.part(rows)).backward()
            torch.nn.utils.clip_grad_norm_(learnt, 5.0)
            optimizer.step()
        found = _scaled_likelihood(model, judge)
        if found < best:
            best, kept_epoch = found, epoch
            kept = [parameter.detach().clone() for parameter in learnt]
    with torch.no_grad():
        for parameter, value, asked in zip(learnt, kept, wanted, strict=True):
            parameter.copy_(value)
            parameter.requires_grad_(asked)
    report(f"negative log likelihood {before:.4f}, after epoch {kept_epoch} {best:.4f}")
    return {"before": before, "after": best, "epoch": float(kept_epoch)}


def _variances(model: PfdIqaForImageQualityAssessment, seen: _Seen) -> torch.Tensor:
    """Mean of σ_v² over the views, (P,)."""
    evidence = seen.evidence.to(model.device)
    return model.head.deviation_of(evidence).square().mean(dim=1)


def _likelihood(variances: torch.Tensor, seen: _Seen) -> torch.Tensor:
    scores, labels = (value.to(variances.device) for value in (seen.scores, seen.labels))
    return F.gaussian_nll_loss(scores, labels, variances)


@torch.no_grad()
def _scaled_likelihood(model: PfdIqaForImageQualityAssessment, seen: _Seen) -> float:
    """With the common scale that makes it best: calibration finds the scale afterwards."""
    variances = _variances(model, seen)
    errors = (seen.scores - seen.labels).to(variances.device)
    scale = (errors.square() / variances).mean()
    return float(_likelihood(scale * variances, seen))


@torch.no_grad()
def _what_the_head_sees(
    model: PfdIqaForImageQualityAssessment,
    processor: PfdIqaImageProcessor,
    ratings: Sequence[Rating],
    report: Any,
) -> _Seen:
    """Runs the model; the evidence is what comes into the first layer of the deviation."""
    model.eval()
    found: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    hook = model.head.deviation_norm.register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0].float().cpu())
    )
    views = 0
    try:
        for number, batch in enumerate(views_of(processor, ratings), start=1):
            pixels = batch["pixel_values"]
            views = pixels.shape[1]
            with torch.autocast(model.device.type, torch.bfloat16):
                scores.append(model(pixels.to(model.device)).logits.float().cpu())
            if number % 50 == 0:
                report(f"{sum(map(len, scores))} of {len(ratings)} pictures seen")
    finally:
        hook.remove()
    labels = torch.tensor([rating.mos for rating in ratings], dtype=torch.float32)
    return _Seen(torch.cat(found).unflatten(0, (-1, views)), torch.cat(scores), labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m pfd_iqa_hf.training.uncertainty --model FOLDER … --output-dir FOLDER`."""
    parser = finished_parser(__doc__)
    parser.add_argument("--max-pictures", type=int, default=4000, help="training pictures to fit")
    parser.add_argument(
        "--views", choices=VIEW_STRATEGIES, help="view strategy from now on; default: its own"
    )
    parser.add_argument("--calibrate-only", action="store_true", help="leave the weights alone")
    parser.add_argument("--fp32", action="store_true", help="calibrate in float32, not bfloat16")
    options, rest = parser.parse_known_args(arguments)
    model, processor, data = load_finished(options, rest)
    if options.views is not None:
        model.config.view_strategy = processor.view_strategy = options.views
    if not options.calibrate_only:
        ratings = data.recipe.train
        fit_uncertainty(model, processor, ratings, max_pictures=options.max_pictures)
    dtype = None if options.fp32 else torch.bfloat16
    print(calibrate(model, data.recipe.validation, dtype), flush=True)
    export(model, options.output_dir)


if __name__ == "__main__":
    main()
