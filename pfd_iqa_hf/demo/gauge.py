"""Score, band and uncertainty as a drawing of its own: SVG and bars in HTML.

Colours of text and lines are the page's (`currentColor`), so that both themes are readable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pfd_iqa_hf.demo.text import percent, shown

__all__ = ["band_colour", "bars", "gauge", "ink_on"]

# From bad to excellent, of the heat map's colours; each stands out from white and from black.
_COLOURS = ("#c2242e", "#f07f45", "#e3b63c", "#5fa3cf", "#3f6fc4")
_CENTRE = (160.0, 152.0)
_RADIUS = 112.0
_INNER_RADIUS = 92.0
_GAP = 0.6  # score points between two bands


def band_colour(score: float, borders: Sequence[float]) -> str:
    """Colour of the band that `score` lies in."""
    place = sum(score >= border for border in borders)
    return _COLOURS[round(place * (len(_COLOURS) - 1) / max(len(borders), 1))]


def ink_on(colour: str) -> str:
    """Black or white, whichever is readable on `colour` (#rrggbb)."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#111" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"


def gauge(record: dict[str, Any], borders: Sequence[float], title: str = "") -> str:
    """An SVG half circle from 0 to 100 with the score on it.

    Args:
        record: Of a picture that was scored.
        borders: Scores where one band ends and the next begins, rising.
        title: Of the picture, for people who hear the page.
    """
    score, uncertainty = float(record["score"]), float(record["uncertainty"])
    label = str(record["label"])
    spoken = (
        f"{title + ': ' if title else ''}score {score:.1f} of 100, {label}, "
        f"uncertainty plus or minus {uncertainty:.1f} points"
    )
    edges = [0.0, *borders, 100.0]
    parts = [
        _arc(
            low + (_GAP if low else 0),
            high - (_GAP if high < 100 else 0),
            _RADIUS,
            f'stroke="{band_colour((low + high) / 2, borders)}" stroke-width="22"',
        )
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    low, high = max(score - uncertainty, 0.0), min(score + uncertainty, 100.0)
    parts.append(
        _arc(
            low,
            max(high, low + 0.5),
            _INNER_RADIUS,
            'class="pfd-span" stroke="currentColor" stroke-width="5" stroke-linecap="round"',
        )
    )
    for edge in edges:
        x, y = _point(edge, _RADIUS + 23)
        parts.append(f'<text class="pfd-tick" x="{x:.1f}" y="{y + 4:.1f}">{edge:g}</text>')
    (x0, y0), (x1, y1) = _point(score, _INNER_RADIUS - 9), _point(score, _RADIUS + 13)
    parts.append(
        f'<line class="pfd-needle-edge" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
        f'<line class="pfd-needle" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
    )
    colour = band_colour(score, borders)
    return (
        f'<svg class="pfd-gauge" viewBox="0 0 320 186" role="img" aria-label="{shown(spoken)}">'
        f"{''.join(parts)}"
        f'<text class="pfd-number" x="160" y="136">{score:.1f}</text>'
        f'<text class="pfd-plus" x="160" y="156">± {uncertainty:.1f}</text>'
        f'<rect x="110" y="164" width="100" height="22" rx="11" fill="{colour}"/>'
        f'<text class="pfd-band" style="fill:{ink_on(colour)}" x="160" y="179">'
        f"{shown(label)}</text></svg>"
    )


def bars(title: str, entries: Sequence[tuple[str, float, str | None]]) -> str:
    """A titled list of bars.

    Args:
        title: Heading.
        entries: Name, share between 0 and 1, and colour (None is the theme's).
    """
    rows = []
    for name, share, colour in entries:
        style = f"width:{100 * share:.1f}%" + (f";background:{colour}" if colour else "")
        rows.append(
            f'<li><span class="pfd-name">{shown(name)}</span>'
            f'<span class="pfd-track" aria-hidden="true"><span style="{style}"></span></span>'
            f'<span class="pfd-value">{percent(share)}</span></li>'
        )
    return f'<section class="pfd-bars"><h3>{shown(title)}</h3><ul>{"".join(rows)}</ul></section>'


def _point(score: float, radius: float) -> tuple[float, float]:
    angle = math.pi * (1 - score / 100)
    return _CENTRE[0] + radius * math.cos(angle), _CENTRE[1] - radius * math.sin(angle)


def _arc(low: float, high: float, radius: float, attributes: str) -> str:
    (x0, y0), (x1, y1) = _point(low, radius), _point(high, radius)
    return (
        f'<path d="M{x0:.2f} {y0:.2f}A{radius:g} {radius:g} 0 0 1 {x1:.2f} {y1:.2f}" '
        f'fill="none" {attributes}/>'
    )
