"""Scores without people: a photograph's own score, lowered by what a full-reference measure sees.

The measure is the gradient magnitude similarity deviation (GMSD; Xue, Zhang, Mou and Bovik, IEEE
Transactions on Image Processing 23, 2014). It is blind to colour and to a shift of brightness, so
it fits chains of noise, blur, rescaling and codecs, not all of the 25 types.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["gradient_similarity_deviation", "meaningless_picture", "pseudo_score"]

_STABLE = 170.0  # the constant of the measure, for luminance from 0 to 255
# From a photograph that is worth 80 points to one beyond recognition: a deviation of about .25.
_POINTS = 280.0
_WORST = 3.0


def _gradient(picture: Image.Image) -> np.ndarray:
    """Prewitt gradient magnitude of the luminance at half the size, (h − 2, w − 2)."""
    half = picture.convert("L").reduce(2)
    grey = np.asarray(half, np.float32)
    rows = grey[:-2] + grey[1:-1] + grey[2:]
    columns = grey[:, :-2] + grey[:, 1:-1] + grey[:, 2:]
    across = (rows[:, 2:] - rows[:, :-2]) / 3
    down = (columns[2:] - columns[:-2]) / 3
    return np.asarray(np.hypot(across, down))


def gradient_similarity_deviation(reference: Image.Image, degraded: Image.Image) -> float:
    """GMSD of a degraded picture.

    Args:
        reference: The picture before.
        degraded: The picture after, of the same size, at least 6 pixels a side.

    Returns:
        0 for equal pictures, about .3 for ruined ones.

    Raises:
        ValueError: the sizes differ.
    """
    if reference.size != degraded.size:
        raise ValueError(f"pictures of {reference.size} and {degraded.size} cannot be compared")
    first, second = _gradient(reference), _gradient(degraded)
    similarity = (2 * first * second + _STABLE) / (first**2 + second**2 + _STABLE)
    return float(similarity.std())


def pseudo_score(score: float, reference: Image.Image, degraded: Image.Image) -> float:
    """What a degraded copy may be worth, 0 to 100.

    Args:
        score: What people gave the picture before, 0 to 100.
        reference: The picture before.
        degraded: The picture after, of the same size.
    """
    lost = _POINTS * gradient_similarity_deviation(reference, degraded)
    return max(min(score, _WORST), score - lost)


def meaningless_picture(generator: np.random.Generator, size: int) -> Image.Image:
    """Nothing that was ever photographed: noise of some grain, one colour, a slope, or stripes.

    Args:
        generator: Source of the draw.
        size: Side in pixels, at least 8.

    Returns:
        RGB picture, `size` × `size`.
    """
    kind = generator.integers(4)
    if kind == 0:
        grain = int(generator.integers(1, 9))
        cells = -(-size // grain)
        channels = 1 if generator.random() < 0.3 else 3
        field = generator.uniform(0, 256, (cells, cells, channels))
        values = np.repeat(np.repeat(field, grain, 0), grain, 1)[:size, :size]
    else:
        first, second = generator.uniform(0, 256, (2, 3))
        if generator.random() < 0.4:
            first[:] = generator.choice([0, 128, 255])
        axis = np.linspace(0, 1, size)
        angle = generator.uniform(0, 2 * np.pi)
        place = np.cos(angle) * axis[:, None] + np.sin(angle) * axis[None]
        if kind == 1:
            share = np.zeros((size, size))
        elif kind == 2:
            share = (place - place.min()) / np.ptp(place)
        else:
            share = (np.sin(place * generator.uniform(10, 300)) > 0).astype(float)
        values = first + (second - first) * share[..., None]
    full = np.broadcast_to(values, (size, size, 3))
    return Image.fromarray(np.clip(full, 0, 255).astype(np.uint8))
