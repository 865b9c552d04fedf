"""Pictures inside the page: the quality map over its picture, and small copies for tables.

They travel as data addresses in the page's own text, so that nothing is written to disk for them.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from pfd_iqa_hf.demo.text import shown
from pfd_iqa_hf.scoring import heat_map as heat_map_colours

__all__ = ["SLIDER_SCRIPT", "overlay", "picture_address", "thumbnail_address"]

# Runs in the browser: moving the slider asks nothing of the server.
SLIDER_SCRIPT = """
element.addEventListener('input', event => {
    const slider = event.target.closest('.pfd-strength');
    if (!slider) return;
    const figure = slider.closest('figure');
    figure.style.setProperty('--strength', slider.value / 100);
    figure.querySelector('output').textContent = slider.value + ' %';
});
"""

_QUALITY = 88
_THUMBNAIL = 112
_START = 50


def overlay(picture: Image.Image, quality_map: np.ndarray, name: str) -> str:
    """A figure: the picture, its map above it, a slider for the map's strength, a legend.

    Args:
        picture: RGB.
        quality_map: (height, width) of the same shape or a smaller one, score points 0-100.
        name: Of the picture.
    """
    low, high = float(quality_map.min()), float(quality_map.max())
    described = f"Quality map of {name}: local scores between {low:.0f} and {high:.0f}"
    return (
        f'<figure class="pfd-overlay" style="--strength:{_START / 100}">'
        '<h3>Where the quality is low</h3><div class="pfd-stack">'
        f'<img src="{picture_address(picture)}" alt="{shown(name)}">'
        f'<img class="pfd-map" src="{_map_address(quality_map)}" alt="{shown(described)}"></div>'
        "<figcaption><label>Strength of the quality map "
        f'<input type="range" class="pfd-strength" min="0" max="100" value="{_START}">'
        f"<output>{_START} %</output></label>"
        '<div class="pfd-legend"><span>0 bad</span>'
        f'<span class="pfd-scale" style="background:{_gradient()}"></span>'
        "<span>100 excellent</span></div></figcaption></figure>"
    )


def picture_address(picture: Image.Image) -> str:
    """A picture as a `data:` address of JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def thumbnail_address(picture: Image.Image) -> str:
    """A small copy as a `data:` address."""
    small = picture.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return picture_address(small)


def _map_address(quality_map: np.ndarray) -> str:
    index = np.clip(np.rint(quality_map * 2.55), 0, 255).astype(np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette(heat_map_colours.PALETTE.tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _gradient() -> str:
    palette = heat_map_colours.PALETTE
    stops = ",".join(f"#{palette[place].tobytes().hex()}" for place in range(0, 256, 51))
    return f"linear-gradient(to right,{stops})"
