"""Paint a quality map over its picture; numpy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["PALETTE", "heat_map", "preview"]

_LONGEST_SIDE = 1600
_SHORTEST_LONG_SIDE = 320
_OPACITY = 0.5
_LEGEND_HEIGHT = 22
_LEGEND_WIDTH = 180
# Score and colour: red is bad, blue is excellent; readable with every kind of colour vision.
_STOPS = (
    (0, (165, 0, 38)),
    (25, (244, 109, 67)),
    (50, (255, 255, 191)),
    (75, (116, 173, 209)),
    (100, (49, 54, 149)),
)
PALETTE = np.stack(
    [
        np.interp(np.linspace(0, 100, 256), [s for s, _ in _STOPS], [c[i] for _, c in _STOPS])
        for i in range(3)
    ],
    axis=1,
).astype(np.uint8)


def preview(picture: Image.Image) -> Image.Image:
    """A copy with its long side between 320 and 1600 pixels, which bounds the heat map's size."""
    longest = max(picture.size)
    scale = min(max(longest, _SHORTEST_LONG_SIDE), _LONGEST_SIDE) / longest
    if scale == 1:
        return picture.copy()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def heat_map(picture: Image.Image, quality_map: np.ndarray) -> Image.Image:
    """Colour `picture` by local quality and put a legend below it.

    Args:
        picture: RGB.
        quality_map: (height, width) of the picture, in score points 0-100; the colours are fixed to
            the scale, so that two heat maps can be compared.
    """
    index = np.clip(np.rint(quality_map * 2.55), 0, 255).astype(np.uint8)
    painted = Image.blend(picture, Image.fromarray(PALETTE[index]), _OPACITY)
    canvas = Image.new(
        "RGB", (max(painted.width, _LEGEND_WIDTH), painted.height + _LEGEND_HEIGHT), "white"
    )
    canvas.paste(painted, ((canvas.width - painted.width) // 2, 0))
    bar = Image.fromarray(PALETTE[None]).resize((canvas.width, _LEGEND_HEIGHT // 2))
    canvas.paste(bar, (0, painted.height))
    draw = ImageDraw.Draw(canvas)
    below = painted.height + _LEGEND_HEIGHT // 2
    draw.text((2, below), "0 bad", fill="black")
    right = "100 excellent"
    draw.text((canvas.width - 2 - draw.textlength(right), below), right, fill="black")
    return canvas
