"""What the training sees: random views, degraded triples, and every random number, per sample.

All randomness of a sample comes from (seed, epoch, index) and nothing else: the order of loading,
the batch size, the number of processes and a restart change none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, distort
from pfd_iqa_hf.modeling.picture_reading import open_picture

__all__ = ["DegradedTriple", "degraded_triple", "method_draws", "random_view", "sample_generator"]

_WHOLE_SHARE = 0.2  # of the views show the whole picture, the rest are crops
_SCALES = (0.8, 1.25)


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
        group: Prompt group of the degradation.
        mild_level: 0 (untouched) to 4.
        strong_level: Up to 5, above `mild_level`.
    """

    mild: Image.Image
    strong: Image.Image
    mixed: Image.Image
    mask: np.ndarray
    group: str
    mild_level: int
    strong_level: int


def _blob_mask(generator: np.random.Generator, size: int) -> np.ndarray:
    """A feathered mask of blobs over 5 to 60 % of the area, (size, size), 0 to 1."""
    field = generator.normal(size=(7, 7)).astype(np.float32)
    smooth = Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC)
    values = np.asarray(smooth)
    limit = np.quantile(values, 1 - generator.uniform(0.05, 0.6))
    hard = Image.fromarray(((values > limit) * 255).astype(np.uint8))
    return np.asarray(hard.filter(ImageFilter.GaussianBlur(3))).astype(np.float32) / 255


def degraded_triple(path: Path, generator: np.random.Generator, size: int = 224) -> DegradedTriple:
    """Degrade a pristine photograph twice and mix both.

    Args:
        path: A photograph without visible faults.
        generator: Source of type, levels, view and mask.
        size: Side of the views in pixels.
    """
    picture = open_picture(path)
    # One type a group first, then within it: thirteen of the 25 types are colour, noise or spatial.
    groups = sorted(set(DISTORTION_GROUP.values()))
    group = groups[generator.integers(len(groups))]
    types = [name for name in DISTORTION_TYPES if DISTORTION_GROUP[name] == group]
    name = types[generator.integers(len(types))]
    mild_level = int(generator.integers(0, 5))
    strong_level = int(generator.integers(mild_level + 1, 6))
    seed = int(generator.integers(2**31))
    view_seed = int(generator.integers(2**31))
    views = []
    # The view first (crops, cheap) or the picture first (it is then scaled down, as in the test).
    view_first = generator.random() < 0.75
    for level in (mild_level, strong_level):
        draw = np.random.default_rng(view_seed)  # the same view of both
        if view_first:
            view = random_view(picture, draw, size)
            views.append(distort(view, name, level, seed) if level else view)
        else:
            degraded = distort(picture, name, level, seed) if level else picture
            views.append(random_view(degraded, draw, size))
    mask = _blob_mask(generator, size)
    mild, strong = views
    alpha = Image.fromarray((mask * 255).astype(np.uint8))
    mixed = Image.composite(strong, mild, alpha)
    return DegradedTriple(mild, strong, mixed, mask, group, mild_level, strong_level)


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
