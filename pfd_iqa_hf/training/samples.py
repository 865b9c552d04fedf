"""What the training sees: random views, degraded triples, and every random number, per sample.

All randomness of a sample comes from (seed, epoch, index) and nothing else: the order of loading,
the batch size, the number of processes and a restart change none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from pfd_iqa_hf.data.chains import degrade_by_chain
from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, distort
from pfd_iqa_hf.data.pseudo_scores import meaningless_picture, pseudo_score
from pfd_iqa_hf.modeling.picture_reading import open_picture

__all__ = [
    "DegradedTriple",
    "another_type",
    "any_photograph",
    "any_type",
    "degraded_triple",
    "distortion_label",
    "method_draws",
    "random_view",
    "sample_generator",
]

_WHOLE_SHARE = 0.2  # of the views show the whole picture, the rest are crops
_SCALES = (0.8, 1.25)
_ADDED_SHARE = 0.3  # of what is degraded, so much is made from added photographs, if there are any
_MEANINGLESS = 3.0  # points of noise, one colour, stripes
_SURE = (0.0, 0.6, 0.85, 0.95, 0.95, 0.95)  # how surely a level is seen; the mildest is half hidden


def sample_generator(seed: int, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
    """The random source of one sample; `purpose` keeps independent uses apart."""
    return np.random.default_rng([seed, epoch, index, purpose])


def random_view(
    picture: Image.Image, generator: np.random.Generator, size: int = 224
) -> Image.Image:
    """One view as the test sees them: a fifth whole pictures, else crops at scale 0.8 to 1.25.

    Args:
        picture: RGB picture.
        generator: Source of the draw.
        size: Side of the view in pixels.

    Returns:
        RGB view, `size` × `size`, mirrored half of the time.
    """
    width, height = picture.size
    if generator.random() < _WHOLE_SHARE:
        box = (0.0, 0.0, float(width), float(height))
    else:
        low, high = np.log(_SCALES[0]), np.log(_SCALES[1])
        side = min(size / float(np.exp(generator.uniform(low, high))), width, height)
        left = generator.uniform(0, width - side)
        top = generator.uniform(0, height - side)
        box = (left, top, left + side, top + side)
        if abs(side - size) < 0.02 * size:  # as a test crop: untouched pixels
            left, top = round(left), round(top)
            left, top = min(left, width - size), min(top, height - size)
            if left >= 0 and top >= 0:
                box = (left, top, left + size, top + size)
    view = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if generator.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view


@dataclass
class DegradedTriple:
    """A milder and a stronger degradation of one view and a mixture of both.

    Args:
        mild: The view at the lower level, RGB.
        strong: The same view at the higher level, RGB.
        mixed: `strong` where `mask` is 1, `mild` where it is 0, RGB.
        mask: Feathered mask, (size, size), 0 to 1.
        group: Prompt group of the degradation; None where several came one after the other.
        mild_level: 0 (untouched) to 4.
        strong_level: Up to 5, above `mild_level`.
        scores: What `mild` and `strong` may be worth, 0 to 100; NaN where nobody knows.
        second_group: Group of another degradation on top, which `strong` has and `mild` has not.
    """

    mild: Image.Image
    strong: Image.Image
    mixed: Image.Image
    mask: np.ndarray
    group: str | None
    mild_level: int
    strong_level: int
    scores: tuple[float, float] = (float("nan"), float("nan"))
    second_group: str | None = None


def _blob_mask(generator: np.random.Generator, size: int) -> np.ndarray:
    """A feathered mask of blobs over 5 to 60 % of the area, (size, size), 0 to 1."""
    field = generator.normal(size=(7, 7)).astype(np.float32)
    smooth = Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC)
    values = np.asarray(smooth)
    limit = np.quantile(values, 1 - generator.uniform(0.05, 0.6))
    hard = Image.fromarray(((values > limit) * 255).astype(np.uint8))
    return np.asarray(hard.filter(ImageFilter.GaussianBlur(3))).astype(np.float32) / 255


def degraded_triple(
    path: Path,
    generator: np.random.Generator,
    size: int = 224,
    clean_share: float = 0.0,
    chain_share: float = 0.0,
    meaningless_share: float = 0.0,
    composed_share: float = 0.0,
    type_share: float = 0.0,
    stressed_types: Sequence[str] = (),
    stressed_share: float = 0.0,
    score: float = float("nan"),
) -> DegradedTriple:
    """Degrade a pristine photograph twice and mix both.

    Args:
        path: A photograph without visible faults.
        generator: Source of type, levels, view and mask.
        size: Side of the views in pixels.
        clean_share: Share of the triples whose milder view is certainly untouched; others may be.
        chain_share: Share of the triples that are degraded by chains instead of one type.
        meaningless_share: Share of the triples whose stronger view is no picture at all.
        composed_share: Share of the others whose stronger view has a second type on top.
        type_share: Share of the triples whose type is drawn among all types alike; of the others
            the group is drawn first.
        stressed_types: Types that are drawn more often than that.
        stressed_share: Share of the triples whose type is one of them, before any other draw.
        score: What people gave the photograph, 0 to 100; NaN leaves the triple without scores.
    """
    picture = open_picture(path)
    name = any_type(generator, type_share, stressed_types, stressed_share)
    group: str | None = DISTORTION_GROUP[name]
    mild_level = int(generator.integers(0, 5))
    if clean_share and generator.random() < clean_share:
        mild_level = 0
    strong_level = int(generator.integers(mild_level + 1, 6))
    seed = int(generator.integers(2**31))
    view_seed = int(generator.integers(2**31))
    chained = bool(chain_share) and generator.random() < chain_share
    meaningless = bool(meaningless_share) and generator.random() < meaningless_share
    composed = bool(composed_share) and not chained and generator.random() < composed_share
    other = another_type(group, generator) if composed else None

    def degraded(image: Image.Image, level: int) -> Image.Image:
        if not level:
            return image
        return (
            degrade_by_chain(image, level, seed) if chained else distort(image, name, level, seed)
        )

    def doubled(image: Image.Image, level: int) -> Image.Image:
        once = degraded(image, level)
        return distort(once, other, level, seed) if other and level == strong_level else once

    if meaningless:
        view = random_view(picture, generator, size)
        nothing = meaningless_picture(generator, size)
        return _triple((view, nothing), generator, None, (0, 5), (score, _MEANINGLESS))
    views = []
    # The view first (crops, cheap) or the picture first (it is then scaled down, as in the test).
    view_first = generator.random() < 0.75
    for level in (mild_level, strong_level):
        draw = np.random.default_rng(view_seed)  # the same view of both
        if view_first:
            views.append(doubled(random_view(picture, draw, size), level))
        else:
            views.append(random_view(doubled(picture, level), draw, size))
    scores = (float("nan"), float("nan"))
    if chained and np.isfinite(score):
        clean = random_view(picture, np.random.default_rng(view_seed), size)
        mild, strong = (pseudo_score(score, clean, view) for view in views)
        scores = (mild, min(mild, strong))
    group = None if chained else group
    levels = (mild_level, strong_level)
    triple = _triple((views[0], views[1]), generator, group, levels, scores)
    triple.second_group = DISTORTION_GROUP[other] if other else None
    return triple


def any_photograph(
    generator: np.random.Generator, paths: Sequence[Any], added: Sequence[Any]
) -> Any:
    """Draw one of `paths`, or, three times in ten, of the photographs added to them."""
    some = added if added and generator.random() < _ADDED_SHARE else paths
    return some[int(generator.integers(len(some)))]


def any_type(
    generator: np.random.Generator,
    type_share: float = 0.0,
    stressed_types: Sequence[str] = (),
    stressed_share: float = 0.0,
) -> str:
    """Draw a group first, then a type of it: thirteen of the 25 are colour, noise or spatial.

    Args:
        generator: Source of the draw.
        type_share: How often all types are alike instead.
        stressed_types: Types that are drawn more often than that.
        stressed_share: How often one of them is drawn, before any other draw.
    """
    if stressed_types and generator.random() < stressed_share:
        return str(generator.choice(list(stressed_types)))
    if type_share and generator.random() < type_share:
        return str(generator.choice(DISTORTION_TYPES))
    groups = sorted(set(DISTORTION_GROUP.values()))
    group = groups[generator.integers(len(groups))]
    types = [name for name in DISTORTION_TYPES if DISTORTION_GROUP[name] == group]
    return types[generator.integers(len(types))]


def another_type(group: str | None, generator: np.random.Generator) -> str:
    """Draw a type of another group, and not one that undoes `group`."""
    undone = {"overexposure", "underexposure"}
    types = [
        name
        for name in DISTORTION_TYPES
        if DISTORTION_GROUP[name] != group and not {DISTORTION_GROUP[name], group} <= undone
    ]
    return types[generator.integers(len(types))]


def _triple(
    views: tuple[Image.Image, Image.Image],
    generator: np.random.Generator,
    group: str | None,
    levels: tuple[int, int],
    scores: tuple[float, float],
) -> DegradedTriple:
    mild, strong = views
    mask = _blob_mask(generator, mild.width)
    alpha = Image.fromarray((mask * 255).astype(np.uint8))
    mixed = Image.composite(strong, mild, alpha)
    return DegradedTriple(mild, strong, mixed, mask, group, *levels, scores)


def distortion_label(applied: Sequence[tuple[str, int]], names: Sequence[str]) -> torch.Tensor:
    """The true distortions of a picture as a soft label.

    Args:
        applied: Prompt group and level, 0 to 5, of each degradation.
        names: Names of the distortion prompts, pristine first.

    Returns:
        A probability of each name, (len(names),).
    """
    label = torch.full((len(names),), 0.02 / len(names))
    if not applied:
        label[0] += 0.98
    for group, level in applied:
        label[0] += 0.98 * (1 - _SURE[level]) / len(applied)
        label[list(names).index(group)] += 0.98 * _SURE[level] / len(applied)
    return label


def method_draws(
    seed: int,
    epoch: int,
    index: int,
    tokens: int,
    width: int,
    start_timestep: int,
    mask_ratio: float = 0.75,
    unmasked_share: float = 0.25,
) -> dict[str, torch.Tensor]:
    """The random inputs of the method for one sample: masks (1), ε of (8), t and ε of (10).

    Args:
        seed: Seed of the run.
        epoch: Epoch, from 0.
        index: Index of the sample in the epoch.
        tokens: N.
        width: D'.
        start_timestep: Largest t.
        mask_ratio: Largest share of masked tokens.
        unmasked_share: Share of samples without a mask.

    Returns:
        `token_mask` (2, N), `latents` (N, D'), `timesteps` (), `diffusion_latents` (N, D').
    """
    generator = sample_generator(seed, epoch, index, purpose=1)
    masks = np.ones((2, tokens), dtype=bool)
    if generator.random() >= unmasked_share:
        for task in range(2):
            masks[task] = generator.random(tokens) >= generator.uniform(0, mask_ratio)
    return {
        "token_mask": torch.from_numpy(masks),
        "latents": torch.from_numpy(generator.standard_normal((tokens, width), dtype=np.float32)),
        "timesteps": torch.tensor(int(generator.integers(0, start_timestep + 1))),
        "diffusion_latents": torch.from_numpy(
            generator.standard_normal((tokens, width), dtype=np.float32)
        ),
    }
