"""The 25 distortions of KADID-10k, five levels each, as one function of picture, type, level, seed.

Level 1 is barely visible and level 5 severe on pictures of 224 to 512 pixels. Lengths (blur radius,
displacement) are in pixels, so a crop of a distorted picture looks like the distorted crop; counts
of patches and the size of blocks follow the size of the picture.

Signed types keep their sign over the levels: `mean_shift` and `contrast_change` draw it from the
seed, `brighten` and `darken` have their own, and the saturations always take away (HSV; past grey
at levels 4 and 5, as KADID's) or add (Lab). docs/distortions.md shows them all and what each level
costs.

Reference: Lin, Hosu, Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", 2019.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image

from pfd_iqa_hf.data import distortion_functions as functions

__all__ = ["DISTORTION_GROUP", "DISTORTION_TYPES", "LEVELS", "distort"]

LEVELS: tuple[int, ...] = (1, 2, 3, 4, 5)


def distort(image: Image.Image, type: str, level: int, seed: int = 0) -> Image.Image:
    """Returns a degraded copy of a picture.

    The result depends on the four arguments only, never on the global random state. For one picture
    and seed, the five levels share their random numbers: the noise pattern, the direction of motion
    or the sign of a shift stays, only its strength grows.

    Args:
        image: a picture of at least 8×8 pixels in any mode; it is converted to RGB and not changed.
        type: one of `DISTORTION_TYPES`.
        level: 1 (barely visible) to 5 (severe).
        seed: non-negative; chooses noise, positions, directions, and the sign of signed types.

    Returns:
        An RGB picture of the same size.

    Raises:
        ValueError: unknown type or level, negative seed, or a side under 8 pixels.
        ImportError: kornia is missing and this type needs it.

    Example:
        >>> from PIL import Image
        >>> distort(Image.new("RGB", (32, 24), "teal"), "white_noise", 3, seed=1).size
        (32, 24)
    """
    if type not in _DISTORTIONS:
        raise ValueError(
            f"unknown distortion type {type!r}; choose one of {', '.join(DISTORTION_TYPES)}"
        )
    if level not in LEVELS:
        raise ValueError(f"unknown distortion level {level!r}; choose one of 1, 2, 3, 4, 5")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if min(image.size) < 8:
        raise ValueError(
            f"picture of {image.width}×{image.height} pixels is too small to distort: "
            "give at least 8 pixels a side"
        )
    distortion = _DISTORTIONS[type]
    # The level is not part of the seed: levels of one picture must differ in strength alone.
    generator = np.random.default_rng([seed, DISTORTION_TYPES.index(type)])
    # A caller's autocast would compute in bfloat16. What needs torch imports it by itself.
    torch = sys.modules.get("torch")
    with torch.autocast("cpu", enabled=False) if torch else nullcontext():
        return distortion.apply(image.convert("RGB"), distortion.strengths[level - 1], generator)


_Strengths = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class _Distortion:
    group: str  # the prompt that describes it
    apply: Callable[[Image.Image, float, Generator], Image.Image]
    strengths: _Strengths  # levels 1 to 5, in the unit of the second argument of `apply`


_DISTORTIONS: dict[str, _Distortion] = {
    "gaussian_blur": _Distortion("blur", functions.gaussian_blur, (0.7, 1.2, 2.0, 3.2, 5.0)),
    "lens_blur": _Distortion("blur", functions.lens_blur, (0.8, 1.6, 2.8, 4.5, 7.0)),
    "motion_blur": _Distortion("blur", functions.motion_blur, (3, 5, 9, 15, 23)),
    "color_diffusion": _Distortion("color", functions.color_diffusion, (2.0, 4.0, 7.0, 12.0, 20.0)),
    "color_shift": _Distortion("color", functions.color_shift, (1.5, 3.0, 5.0, 8.0, 12.0)),
    "color_quantization": _Distortion(
        "quantization", functions.color_quantization, (96, 56, 32, 17, 8)
    ),
    "color_saturation_hsv": _Distortion(
        "color", functions.color_saturation_hsv, (0.6, 0.35, 0.15, -0.1, -0.4)
    ),
    "color_saturation_lab": _Distortion(
        "color", functions.color_saturation_lab, (1.4, 2.0, 2.8, 4.2, 6.5)
    ),
    "jpeg2000": _Distortion("jpeg2000 compression", functions.jpeg2000, (16, 32, 56, 100, 170)),
    "jpeg": _Distortion("jpeg compression", functions.jpeg, (45, 28, 17, 10, 5)),
    "white_noise": _Distortion("noise", functions.white_noise, (0.025, 0.04, 0.06, 0.09, 0.14)),
    "white_noise_color_component": _Distortion(
        "noise", functions.white_noise_color_component, (0.015, 0.025, 0.04, 0.06, 0.09)
    ),
    "impulse_noise": _Distortion("noise", functions.impulse_noise, (0.003, 0.01, 0.02, 0.04, 0.08)),
    "multiplicative_noise": _Distortion(
        "noise", functions.multiplicative_noise, (0.05, 0.09, 0.14, 0.21, 0.32)
    ),
    "denoise": _Distortion("other", functions.denoise, (0.03, 0.05, 0.08, 0.12, 0.18)),
    "brighten": _Distortion("overexposure", functions.exposure, (0.3, 0.6, 1.0, 1.6, 2.4)),
    "darken": _Distortion("underexposure", functions.exposure, (-0.4, -0.8, -1.4, -2.2, -3.4)),
    "mean_shift": _Distortion("other", functions.mean_shift, (0.04, 0.08, 0.13, 0.19, 0.27)),
    "jitter": _Distortion("spatial", functions.jitter, (0.4, 0.7, 1.1, 1.8, 3.0)),
    "non_eccentricity_patch": _Distortion(
        "spatial", functions.non_eccentricity_patch, (20, 40, 70, 110, 170)
    ),
    "pixelate": _Distortion("spatial", functions.pixelate, (0.75, 0.55, 0.4, 0.28, 0.18)),
    "quantization": _Distortion("quantization", functions.quantization, (22, 15, 10, 7, 4)),
    "color_block": _Distortion("spatial", functions.color_block, (2, 4, 6, 9, 14)),
    "sharpen": _Distortion("other", functions.sharpen, (80, 160, 280, 500, 900)),
    "contrast_change": _Distortion(
        "contrast", functions.contrast_change, (0.2, 0.45, 0.85, 1.5, 2.8)
    ),
}

DISTORTION_TYPES: tuple[str, ...] = tuple(_DISTORTIONS)
"""The 25 types in KADID-10k's order; number n of the paper is entry n − 1."""

DISTORTION_GROUP: dict[str, str] = {name: item.group for name, item in _DISTORTIONS.items()}
"""The prompt group of each type, in the words of the model's `distortion_names`."""
