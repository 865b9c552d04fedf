"""Teach a finished checkpoint's map where a picture is degraded, while its scores are held.

The map is made of the token values z_i of (14).  In training they learn from (18) beside everything
else; here the two layers that give a token its value learn alone, from photographs that were
degraded in a part of their area: tokens inside must lie below those outside.  Backbone, denoiser
and the panel's attention rest, and a loss holds each view's score where it was, for the mixtures
and for rated training pictures::

    python -m pfd_iqa_hf.training.quality_map --model named --dataset BIQ2021 --data-dir BIQ2021 \
        --config pfd_iqa_hf/training/recipes/default.yaml --output-dir mapped

As everything before the head rests, its features are computed once and kept in memory: 0.1 MB a
view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.batches import normalise
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.finished import add_fit_options, finished_parser, load_finished
from pfd_iqa_hf.training.losses import map_ranking_loss
from pfd_iqa_hf.training.optimization import rate_factor
from pfd_iqa_hf.training.run_data import added_photographs
from pfd_iqa_hf.training.samples import (
    any_photograph,
    degraded_triple,
    random_view,
    sample_generator,
)

__all__ = ["MapOptions", "fit_map", "main"]

_PURPOSE = 9  # of the samples' random numbers
_CHECKED_SHARE = 0.1  # of the mixtures, which teach nothing and tell what was gained


@dataclass(frozen=True)
class MapOptions:
    """How much is looked at, and how long.

    Args:
        mixtures: Photographs that are degraded in a part of their area.
        rated: Views of rated training pictures whose scores are held.
        epochs: Times that all are learnt from.
        batch_size: Mixtures a step.
        learning_rate: Its largest value; cosine to zero.
        hold: Weight of the loss that holds the views' logits.
        seed: Draws photographs, degradations, views and order.
        workers: Processes that degrade pictures; 0 does it in this one.
        size: Side of a view in pixels.
        mixed_precision: Products in bfloat16 until the head.
    """

    mixtures: int = 4000
    rated: int = 2000
    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 1e-3
    hold: float = 4.0
    seed: int = 23
    workers: int = 2
    size: int = 224
    mixed_precision: bool = True


class _Mixtures(Dataset):
    """Number n: a view before, the same view degraded in a part, and the part."""

    def __init__(
        self, paths: Sequence[Any], added: Sequence[Any], options: MapOptions, rated: Sequence[Any]
    ) -> None:
        self.paths, self.added, self.options = list(paths), list(added), options
        self.rated = list(rated)

    def __len__(self) -> int:
        return self.options.mixtures + (self.options.rated if self.rated else 0)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views (2, 3, S, S) and the mask (S, S); of a rated picture one view twice, and zeros."""
        options = self.options
        generator = sample_generator(options.seed, 0, index, _PURPOSE)
        if index >= options.mixtures:
            path = self.rated[int(generator.integers(len(self.rated)))]
            view = normalise(random_view(open_picture(path), generator, options.size))
            return torch.stack([view, view]), torch.zeros(options.size, options.size)
        path = any_photograph(generator, self.paths, self.added)
        triple = degraded_triple(path, generator, options.size, clean_share=0.7, type_share=0.5)
        views = torch.stack([normalise(view) for view in (triple.mild, triple.mixed)])
        return views, torch.from_numpy(triple.mask)


@dataclass
class _Stored:
    """What rests: refined features (P, 2, N, D'), their weights (P, 2, N), logits (P, 2), masks."""

    memory: torch.Tensor
    weights: torch.Tensor
    logits: torch.Tensor
    masks: torch.Tensor
    grid: tuple[int, int]


def fit_map(
    model: PfdIqaForImageQualityAssessment,
    pristine: Sequence[Rating],
    rated: Sequence[Rating],
    options: MapOptions | None = None,
    report: Any = print,
    added: Sequence[Path] = (),
) -> dict[str, float]:
    """Fit the token values to where mixtures are degraded.

    Args:
        model: The trained model; the two layers of its token values are changed, nothing else.
        pristine: Photographs to degrade.
        rated: Training pictures whose scores are held.
        options: How much and how long.
        report: Called with a line now and then.
        added: Paths of more photographs; three tenths of the mixtures are made from them.

    Returns:
        `before` and `after`, the mean AUROC of the change of the map over mixtures that taught
        nothing, and `moved`, the RMS change of a view's score in points.

    Raises:
        ValueError: there is no photograph.
        PictureError: a picture cannot be read.
    """
    options = options or MapOptions()
    if not pristine:
        raise ValueError("there is no pristine photograph to degrade: lower --pristine-score")
    pictures = _Mixtures(
        [r.image for r in pristine], added, options, [r.image for r in rated] if rated else []
    )
    stored = _stored(model.eval(), pictures, options, report)
    head = model.head
    learnt = [*head.value_hidden.parameters(), *head.value.parameters()]
    checked = max(1, round(_CHECKED_SHARE * options.mixtures))
    before = _auroc(head, stored, checked)
    rows = torch.arange(checked, len(stored.logits))
    optimizer = torch.optim.AdamW(learnt, lr=options.learning_rate, weight_decay=0.01)
    size = min(options.batch_size, len(rows))
    steps = options.epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps, min(20, steps // 2))
    )
    low, high = model.config.score_range
    moved = 0.0
    for epoch in range(options.epochs):
        order = sample_generator(options.seed, epoch, 0, _PURPOSE + 1).permutation(len(rows))
        squares = []
        for chosen in rows[torch.from_numpy(order)][: len(rows) // size * size].split(size):
            values = head.values_of(stored.memory[chosen].float())  # (P, 2, N)
            logits = (stored.weights[chosen] * values).sum(-1) + head.bias.detach()
            held = stored.logits[chosen]
            loss = options.hold * (logits - held).square().mean()
            mixtures = chosen < options.mixtures
            if mixtures.any():
                maps = values[mixtures].unflatten(-1, stored.grid)
                masks = stored.masks[chosen][mixtures]
                loss = loss + map_ranking_loss(maps[:, 0], maps[:, 1], masks)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 5.0)
            optimizer.step()
            schedule.step()
            points = (high - low) * (logits.detach().sigmoid() - held.sigmoid())
            squares.append(float(points.square().mean()))
        moved = float(np.sqrt(np.mean(squares)))
        report(
            f"epoch {epoch + 1}: AUROC {_auroc(head, stored, checked):.3f} (before {before:.3f}), "
            f"a view's score moved by {moved:.2f} points"
        )
    return {"before": before, "after": _auroc(head, stored, checked), "moved": moved}


@torch.no_grad()
def _stored(
    model: PfdIqaForImageQualityAssessment, pictures: _Mixtures, options: MapOptions, report: Any
) -> _Stored:
    loader = DataLoader(pictures, batch_size=8, num_workers=options.workers)
    seen: dict[str, Any] = {}

    def keep(module: Any, inputs: Any, judged: Any) -> None:
        seen["memory"], seen["judged"] = module.memory_norm(inputs[0].float()), judged

    parts: list[tuple[torch.Tensor, ...]] = []
    hook = model.head.register_forward_hook(keep)
    try:
        for number, (views, masks) in enumerate(loader):
            with torch.autocast(model.device.type, torch.bfloat16, options.mixed_precision):
                model(views.to(model.device))
            judged = seen["judged"]
            rows = (seen["memory"].half(), judged.token_weights.float(), judged.logit.float())
            parts.append((*(row.cpu().unflatten(0, views.shape[:2]) for row in rows), masks))
            if number % 50 == 49:
                report(f"features of {8 * (number + 1)} of {len(pictures)} pictures")
    finally:
        hook.remove()
    memory, weights, _, masks = (torch.cat(part) for part in zip(*parts, strict=True))
    side = options.size
    patch = model.pfd_iqa.patch_size
    grid = (side // patch[0], side // patch[1])
    head: Any = model.head
    # Logits of the stored halves, so that what is held is what the loss sees.
    logits = torch.cat(
        [
            (weights[rows] * head.values_of(memory[rows].float())).sum(-1) + head.bias
            for rows in torch.arange(len(memory)).split(64)
        ]
    )
    return _Stored(memory, weights, logits, masks, grid)


@torch.no_grad()
def _auroc(head: Any, stored: _Stored, count: int) -> float:
    """How well the fall of a token's value tells that it was degraded, mean over mixtures."""
    maps = torch.cat(
        [head.values_of(stored.memory[rows].float()) for rows in torch.arange(count).split(64)]
    )
    fall = maps[:, 0] - maps[:, 1]  # (P, N)
    share = F.adaptive_avg_pool2d(stored.masks[:count, None], stored.grid).flatten(1)
    inside = share > 0.5
    found = []
    for fallen, part in zip(fall, inside, strict=True):
        if 0 < part.sum() < len(part):
            right = (fallen[part][:, None] > fallen[~part][None]).float()
            found.append(float(right.mean()))
    return float(np.mean(found)) if found else float("nan")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m pfd_iqa_hf.training.quality_map --model FOLDER … --output-dir FOLDER`."""
    parser = finished_parser(__doc__)
    given = MapOptions()
    parser.add_argument("--mixtures", type=int, default=given.mixtures, help="partly degraded")
    parser.add_argument("--rated", type=int, default=given.rated, help="views that are held")
    add_fit_options(parser, given)
    options, rest = parser.parse_known_args(arguments)
    added = added_photographs(options.photographs)
    model, _, data = load_finished(options, rest)
    fit_map(
        model,
        data.recipe.pristine,
        data.recipe.train,
        MapOptions(
            mixtures=options.mixtures,
            rated=options.rated,
            epochs=options.epochs,
            hold=options.hold,
            workers=options.workers,
        ),
        lambda line: print(line, flush=True),
        added,
    )
    export(model, options.output_dir)


if __name__ == "__main__":
    main()
