"""Teach a finished checkpoint to name distortions, while its scores are held.

In the stages before, a view's soft prediction over the distortion prompts (3) follows the teacher,
whose few hundred batches leave it unsure.  Here the distortion task alone learns, from photographs
that were degraded by one type or two and so have true names; backbone, denoiser and head rest, and
a loss holds each view's score where it was::

    python -m pfd_iqa_hf.training.names --model run --dataset BIQ2021 --data-dir BIQ2021 \
        --config pfd_iqa_hf/training/recipes/default.yaml --output-dir named

The photographs are the pristine ones of a run with the same `--config`, and those of
`--photographs FOLDER` besides: the pictures of one data set have all gone through the same codec,
and a file that has not would be taken for something else.  As the backbone rests, its
features are computed once and kept in memory: 0.2 MB a view of a ViT-S.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, distort
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.finished import add_fit_options, finished_parser, load_finished
from pfd_iqa_hf.training.optimization import rate_factor
from pfd_iqa_hf.training.run_data import added_photographs
from pfd_iqa_hf.training.samples import (
    another_type,
    any_photograph,
    any_type,
    distortion_label,
    sample_generator,
)

__all__ = ["NamedPictures", "NamesOptions", "fit_names", "main"]

_CLEAN_SHARE = 0.1
_PURPOSE = 7  # of the samples' random numbers
_LONG_SIDES = (384, 512)
_LARGEST_ASPECT = 1.5
# Spread of what another camera's rendering changes: channel gains, gamma, saturation (logarithms).
_GAIN, _GAMMA, _SATURATION = 0.03, 0.12, 0.25


@dataclass(frozen=True)
class NamesOptions:
    """How much is looked at, and how long.

    Args:
        pictures: Degraded pictures.
        views: Views of each, drawn from those of a test.
        composed_share: Share of the pictures with two types.
        type_share: Share of the first types that is drawn among all types alike; the others are
            drawn after their group, and groups of one type are as frequent as those of four.
        epochs: Times that all are learnt from.
        batch_size: Pictures a step.
        learning_rate: Its largest value; warm-up over 30 steps, cosine to zero.
        hold: Weight of the loss that holds the scores, beside the names'.
        held_share: Share of a step's pictures whose score is looked at; denoising takes the time.
        light: Vary colours and tones of the photographs a little before they are degraded.
        seed: Draws pictures, distortions, views and order.
        workers: Processes that degrade pictures; 0 does it in this one.
        mixed_precision: Products in bfloat16.
    """

    pictures: int = 6000
    views: int = 2
    composed_share: float = 0.25
    type_share: float = 0.0
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 2e-3
    hold: float = 4.0
    held_share: float = 0.25
    light: bool = True
    seed: int = 21
    workers: int = 2
    mixed_precision: bool = True


class NamedPictures(Dataset):
    """Degraded photographs as the image processor shows them, each with its true names.

    Args:
        paths: Photographs without visible faults.
        processor: Cuts the views.
        names: Names of the distortion prompts, `none` first.
        options: Number of pictures, each with a photograph, a size, types and levels drawn from
            (seed, index); number of its views; shares.
        added: More photographs, from which a fixed share of the pictures is made.
    """

    def __init__(
        self,
        paths: Sequence[Any],
        processor: PfdIqaImageProcessor,
        names: Sequence[str],
        options: NamesOptions,
        added: Sequence[Any] = (),
    ) -> None:
        self.paths = list(paths)
        self.added = list(added)
        self.processor = processor
        self.names = list(names)
        self.options = options

    def __len__(self) -> int:
        """Number of pictures."""
        return self.options.pictures

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views (V, 3, H, W) and the soft label over the names (K_d,)."""
        generator = sample_generator(self.options.seed, 0, index, purpose=_PURPOSE)
        path = any_photograph(generator, self.paths, self.added)
        picture = _in_some_shape(open_picture(path), generator)
        if self.options.light:
            apart = sample_generator(self.options.seed, 1, index, purpose=_PURPOSE)
            picture = _in_some_light(picture, apart)
        applied: list[tuple[str, int]] = []
        draw = generator.random()
        types: list[str] = []
        if draw >= _CLEAN_SHARE:
            types.append(any_type(generator, self.options.type_share))
        if _CLEAN_SHARE <= draw < _CLEAN_SHARE + self.options.composed_share:
            types.append(another_type(DISTORTION_GROUP[types[0]], generator))
        for name in types:
            # The mildest level of one of two is hardly ever seen.
            level = int(generator.integers(1 if len(types) == 1 else 2, 6))
            picture = distort(picture, name, level, int(generator.integers(2**31)))
            applied.append((DISTORTION_GROUP[name], level))
        views = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        if self.options.views < len(views):
            chosen = generator.choice(len(views), self.options.views, False)
            views = views[torch.from_numpy(chosen)]
        return views, distortion_label(applied, self.names)


def _in_some_shape(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A cut of another aspect and size: the pictures of one data set may all have the same."""
    width, height = picture.size
    limit = np.log(_LARGEST_ASPECT)
    aspect = float(np.exp(generator.uniform(-limit, limit)))
    across, down = (
        (width, width / aspect) if width / aspect <= height else (height * aspect, height)
    )
    left, top = generator.uniform(0, width - across), generator.uniform(0, height - down)
    scale = min(1.0, generator.uniform(*_LONG_SIDES) / max(across, down))
    size = max(8, round(across * scale)), max(8, round(down * scale))
    box = (left, top, left + across, top + down)
    return picture.resize(size, Image.Resampling.LANCZOS, box=box)


def _in_some_light(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The picture as another camera may have rendered it, far below a distortion's third level.

    The photographs of one data set are rendered alike; without this, the colours of others are
    taken for a distortion.
    """
    gains = np.exp(generator.normal(0, _GAIN, 3))
    gamma, saturation = np.exp(generator.uniform(-1, 1, 2) * (_GAMMA, _SATURATION))
    table = np.linspace(0, 1, 256) ** gamma * 255
    bands = [np.clip(np.rint(gain * table), 0, 255).astype(int).tolist() for gain in gains]
    rendered = picture.point([value for band in bands for value in band])
    return ImageEnhance.Color(rendered).enhance(float(saturation))


def fit_names(
    model: PfdIqaForImageQualityAssessment,
    processor: PfdIqaImageProcessor,
    pristine: Sequence[Rating],
    options: NamesOptions | None = None,
    report: Any = print,
    added: Sequence[Any] = (),
) -> dict[str, float]:
    """Fit the distortion task to true names.

    Args:
        model: The trained model; its distortion task is changed, and nothing else.
        processor: Cuts the views that it will be used with.
        pristine: Photographs to degrade.
        options: How much and how long.
        report: Called with a line now and then.
        added: Paths of more photographs; three tenths of the pictures are made from them.

    Returns:
        Of the last epoch: `names`, the divergence from the true names, and `moved`, the RMS change
        of a view's score in points.

    Raises:
        ValueError: the model names no distortions, or there is no photograph.
        PictureError: a picture cannot be read.
    """
    options = options or NamesOptions()
    if not model.pfd_iqa.has_priors:
        raise ValueError("a model without priors (prior_discovery) names no distortions")
    if not pristine:
        raise ValueError("there is no pristine photograph to degrade: lower --pristine-score")
    names = model.config.distortion_names
    pictures = NamedPictures(
        [rating.image for rating in pristine],
        processor,
        names,
        options,
        added,
    )
    stored = _stored_features(model.eval(), pictures, options, report)
    trained = [(name, p) for name, p in model.named_parameters() if ".distortion_task." in name]
    learnt = [p for name, p in trained if ".reconstruct." not in name]  # (4) plays no part here
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in learnt:
        parameter.requires_grad_(True)
    try:
        return _fit(model, learnt, stored, options, report)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])


@dataclass
class _Stored:
    """What the resting backbone gave: features (P, V, N, D), class tokens (P, V, D), labels."""

    features: torch.Tensor
    class_tokens: torch.Tensor
    labels: torch.Tensor
    grid: tuple[int, int]

    def rows(self, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Features of the views of some pictures, (R, N, D), fp32."""
        return self.features[rows].to(device).float().flatten(0, 1)


@torch.no_grad()
def _stored_features(
    model: PfdIqaForImageQualityAssessment,
    pictures: NamedPictures,
    options: NamesOptions,
    report: Any,
) -> _Stored:
    loader = DataLoader(pictures, batch_size=8, num_workers=options.workers)
    parts: list[tuple[torch.Tensor, ...]] = []
    grid = (0, 0)
    for number, (views, labels) in enumerate(loader):
        with _products(model, options):
            feature, token, grid, _ = model.pfd_iqa.student_feature(
                views.flatten(0, 1).to(model.device)
            )
        rows = (feature.half().cpu(), token.float().cpu())
        parts.append((*(row.unflatten(0, views.shape[:2]) for row in rows), labels))
        if number % 50 == 49:
            report(f"features of {8 * (number + 1)} of {len(pictures)} pictures")
    features, class_tokens, true_names = (torch.cat(part) for part in zip(*parts, strict=True))
    return _Stored(features, class_tokens, true_names, grid)


def _products(model: PfdIqaForImageQualityAssessment, options: NamesOptions) -> Any:
    return torch.autocast(model.device.type, torch.bfloat16, options.mixed_precision)


def _taught(model: PfdIqaForImageQualityAssessment, feature: torch.Tensor, grid: Any) -> Any:
    """Logits of p̂^d of stored features (R, N, D)."""
    base = model.pfd_iqa
    return base.distortion_task(feature, grid, base.distortion_prompts)[1]


@contextmanager
def _instead_of_the_backbone(
    model: PfdIqaForImageQualityAssessment, stored: _Stored, rows: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Within it the model, given the tensor that comes out, continues from stored features."""
    base: Any = model.pfd_iqa
    feature = stored.rows(rows, model.device)
    token = stored.class_tokens[rows].to(model.device).flatten(0, 1)
    # What else is read of the backbone tells familiarity, of which nobody asks here.
    output = SimpleNamespace(hidden_states=defaultdict(lambda: feature), attentions=None)
    base.student_feature = lambda *_, **__: (feature, token, stored.grid, output)
    sides = (stored.grid[0] * base.patch_size[0], stored.grid[1] * base.patch_size[1])
    try:
        yield torch.zeros(1, device=model.device).expand(
            len(rows), stored.features.shape[1], 3, *sides
        )
    finally:
        del base.student_feature


def _view_logits(
    model: PfdIqaForImageQualityAssessment,
    stored: _Stored,
    rows: torch.Tensor,
    options: NamesOptions,
) -> torch.Tensor:
    """z of the views of some pictures, (P, V)."""
    with _products(model, options), _instead_of_the_backbone(model, stored, rows) as pixels:
        logits: torch.Tensor = model(pixels).view_logits
    return logits.float()


def _fit(
    model: PfdIqaForImageQualityAssessment,
    learnt: list[torch.nn.Parameter],
    stored: _Stored,
    options: NamesOptions,
    report: Any,
) -> dict[str, float]:
    count, size = len(stored.labels), min(options.batch_size, len(stored.labels))
    low, high = model.config.score_range
    with torch.no_grad():
        held = torch.cat(
            [_view_logits(model, stored, rows, options) for rows in torch.arange(count).split(size)]
        )
    looked_at = max(1, round(options.held_share * size))
    optimizer = torch.optim.AdamW(learnt, lr=options.learning_rate, weight_decay=0.01)
    steps = options.epochs * (count // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps, min(30, steps // 2))
    )
    result = {"names": float("nan"), "moved": float("nan")}
    for epoch in range(options.epochs):
        generator = sample_generator(options.seed, epoch, 0, _PURPOSE + 1)
        order = torch.from_numpy(generator.permutation(count))
        sums = np.zeros(2)
        for rows in order[: count // size * size].split(size):
            with _products(model, options):
                logits = _taught(model, stored.rows(rows, model.device), stored.grid)
            names = _names_loss(logits, stored.labels[rows].to(model.device))
            few = rows[:looked_at]  # of a random order
            scores, target = _view_logits(model, stored, few, options), held[few]
            loss = names + options.hold * (scores - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 5.0)
            optimizer.step()
            schedule.step()
            moved = (high - low) * (scores.sigmoid() - target.sigmoid())
            sums += names.item(), moved.square().mean().item()
        means = sums / (count // size)
        result = {"names": float(means[0]), "moved": float(np.sqrt(means[1]))}
        report(
            f"epoch {epoch + 1}: divergence from the names {result['names']:.3f}, a view's score "
            f"moved by {result['moved']:.2f} points"
        )
    return result


def _names_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Half the views' divergence from the true names, half that of the mean over the views.

    Args:
        logits: Of p̂^d of all views, (P·V, K_d).
        labels: True names, (P, K_d), rows sum to 1.
    """
    each = logits.float().log_softmax(-1).unflatten(0, (len(labels), -1))  # (P, V, K_d)
    views = F.kl_div(each, labels[:, None].expand_as(each), reduction="none").sum(-1).mean()
    together = each.exp().mean(dim=1).clamp_min(1e-6).log()
    return 0.5 * views + 0.5 * F.kl_div(together, labels, reduction="batchmean")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m pfd_iqa_hf.training.names --model FOLDER … --output-dir FOLDER`."""
    parser = finished_parser(__doc__)
    given = NamesOptions()
    parser.add_argument("--pictures", type=int, default=given.pictures, help="degraded pictures")
    parser.add_argument("--views", type=int, default=given.views, help="views of each of them")
    parser.add_argument("--composed-share", type=float, default=given.composed_share)
    parser.add_argument("--type-share", type=float, default=given.type_share)
    add_fit_options(parser, given)
    options, rest = parser.parse_known_args(arguments)
    added = added_photographs(options.photographs)
    model, processor, data = load_finished(options, rest)
    fit_names(
        model,
        processor,
        data.recipe.pristine,
        NamesOptions(
            pictures=options.pictures,
            views=options.views,
            composed_share=options.composed_share,
            type_share=options.type_share,
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
