"""A picture becomes views, and the views' maps become a picture again; numpy and Pillow only.

A picture whose short side exceeds `short_side` is downscaled to it with an antialiased bicubic
filter; one whose short side is below `size` is upscaled bicubically, only inside the views, so that
memory stays bounded at any aspect. `VIEW_STRATEGIES` says what is cut out.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .picture_reading import DEFAULT_MAX_PIXELS, PictureError, open_picture, picture_name

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "VIEW_STRATEGIES",
    "PictureError",
    "assemble_map",
    "is_low_resolution",
    "open_picture",
    "picture_name",
    "picture_views",
    "view_boxes",
]

# Number of views of each strategy. "standard": the whole picture and a tile in each corner, above
# an aspect of 2 four tiles along the long axis instead; "fast": the whole picture and one tile in
# the middle; "thorough": all of these, and every second of the four is mirrored, so that what the
# model thinks of a direction cancels out: of corners, those on the right, and then a mirrored
# picture has the same four. A tile is half as wide as the short side: four of them cover a square
# picture.
VIEW_STRATEGIES = {"standard": 5, "fast": 2, "thorough": 6}
_LARGEST_SQUASH = 1.5
_LARGEST_ASPECT_WITH_CORNERS = 2.0
_MAP_GRID = 512


def is_low_resolution(width: int, height: int, size: int = 224) -> bool:
    """Whether the picture must be upscaled to fill one view."""
    return min(width, height) < size


def _layout(
    width: int, height: int, strategy: str, size: int, short_side: int
) -> tuple[tuple[float, float], list[tuple[float, float, float, float]]]:
    """Size of the (possibly only imagined) rescaled picture, and the views' boxes in it.

    Of a mirrored view, right and left are swapped.
    """
    if strategy not in VIEW_STRATEGIES:
        known = ", ".join(sorted(VIEW_STRATEGIES))
        raise ValueError(f"'view_strategy' must be one of {known}, got {strategy!r}")
    short = min(width, height)
    across: float = width
    down: float = height
    if short > short_side:
        across = max(short_side, round(width * short_side / short))
        down = max(short_side, round(height * short_side / short))
    elif short < size:
        across, down = width * size / short, height * size / short
    seen_across = min(across, _LARGEST_SQUASH * down)
    seen_down = min(down, _LARGEST_SQUASH * across)
    left, top = (across - seen_across) / 2, (down - seen_down) / 2
    boxes = [(left, top, left + seen_across, top + seen_down)]
    side = max(size, min(across, down) / 2)
    free_x, free_y = across - side, down - side
    middle_x, middle_y = free_x // 2, free_y // 2
    if strategy == "fast":
        corners = [(middle_x, middle_y)]
    elif max(width, height) <= _LARGEST_ASPECT_WITH_CORNERS * short:
        corners = [(0.0, 0.0), (free_x, 0.0), (0.0, free_y), (free_x, free_y)]
    elif width > height:
        corners = [(free_x * step // 3, middle_y) for step in range(4)]
    else:
        corners = [(middle_x, free_y * step // 3) for step in range(4)]
    boxes += [(x, y, x + side, y + side) for x, y in corners]
    if strategy == "thorough":
        boxes[2::2] = [(right, top, left, bottom) for left, top, right, bottom in boxes[2::2]]
        boxes.append((middle_x, middle_y, middle_x + side, middle_y + side))
    return (across, down), boxes


def view_boxes(
    width: int, height: int, strategy: str = "standard", size: int = 224, short_side: int = 512
) -> np.ndarray:
    """Where the views of a picture lie: (views, 4) left, top, right, bottom as fractions of it.

    Of a mirrored view the first is the larger one: its left edge shows what lies further right.

    Raises:
        ValueError: unknown `strategy`.
    """
    (across, down), boxes = _layout(width, height, strategy, size, short_side)
    return np.array(boxes, np.float64) / np.array([across, down, across, down])


def picture_views(
    image: Image.Image, strategy: str = "standard", size: int = 224, short_side: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the views of one RGB picture.

    The whole picture is squashed to a square up to 1.5:1, the excess is cropped at both ends; tiles
    are half the rescaled picture's short side wide, but at least `size` pixels.

    Args:
        image: RGB picture of any size, as `open_picture` returns it.
        strategy: A key of `VIEW_STRATEGIES`; the number of views depends on nothing else.
        size: Side of a view in pixels.
        short_side: Pictures with a longer short side are downscaled to it.

    Returns:
        uint8 views (views, size, size, 3), and their boxes as `view_boxes` gives them.

    Raises:
        ValueError: unknown `strategy`.
    """
    (across, down), boxes = _layout(*image.size, strategy, size, short_side)
    working = image
    if min(image.size) > short_side:
        working = image.resize((int(across), int(down)), Image.Resampling.BICUBIC, reducing_gap=3.0)
    scale_x, scale_y = working.width / across, working.height / down
    limits = (working.width, working.height, working.width, working.height)
    views = np.empty((len(boxes), size, size, 3), np.uint8)
    for view, (start, top, end, bottom) in zip(views, boxes, strict=True):
        left, right = min(start, end), max(start, end)
        corners = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        # Rounding must not carry a corner over the edge.
        x0, y0, x1, y1 = (
            min(max(corner, 0.0), float(limit))
            for corner, limit in zip(corners, limits, strict=True)
        )
        cut = working.resize((size, size), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
        view[:] = np.asarray(cut) if start < end else np.asarray(cut)[:, ::-1]
    fractions = np.array(boxes, np.float64) / np.array([across, down, across, down])
    return views, fractions


def assemble_map(maps: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lay the views' maps over the whole picture.

    Where views overlap, their bilinearly interpolated values are averaged with weights that fall
    towards a view's edges, so that no seam shows, and the larger the part is that a view shows: a
    tile saw the place more closely. What no view covers takes the nearest value that one does.
    Computed on a grid of at most 512 x 512, then enlarged, so that memory stays bounded.

    Args:
        maps: (views, h, w), any unit.
        boxes: (views, 4) as `view_boxes` gives them.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        float32 (height, width) in the unit of `maps`.
    """
    rows = (np.arange(min(height, _MAP_GRID)) + 0.5) / min(height, _MAP_GRID)
    columns = (np.arange(min(width, _MAP_GRID)) + 0.5) / min(width, _MAP_GRID)
    total = np.zeros((len(rows), len(columns)))
    weight = np.zeros_like(total)
    nearest = np.full_like(total, np.inf)
    fallback = np.zeros_like(total)
    for seen, (start, top, end, bottom) in zip(maps, boxes, strict=True):
        values = seen if start < end else seen[:, ::-1]
        left, right = min(start, end), max(start, end)
        across = np.clip(columns, left, right)
        down = np.clip(rows, top, bottom)
        sampled = _sample(values, (down - top) / (bottom - top), (across - left) / (right - left))
        distance = np.hypot(
            (np.abs(down - rows) * height)[:, None], (np.abs(across - columns) * width)[None]
        )
        rise_x = np.minimum(across - left, right - across) / (right - left)
        rise_y = np.minimum(down - top, bottom - down) / (bottom - top)
        closeness = ((right - left) * (bottom - top)) ** -0.5
        blend = np.where(distance == 0, closeness * (1e-3 + np.outer(rise_y, rise_x)), 0.0)
        total += blend * sampled
        weight += blend
        fallback = np.where(distance < nearest, sampled, fallback)
        nearest = np.minimum(distance, nearest)
    grid = np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), fallback)
    enlarged = Image.fromarray(grid.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.array(enlarged, np.float32)


def _sample(values: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Bilinear values of an (h, w) map at fractions of its height and width."""
    result = np.asarray(values, np.float64)
    for axis, fractions in ((0, down), (1, across)):
        count = result.shape[axis]
        place = np.clip(fractions * count - 0.5, 0, count - 1)
        before = np.minimum(place.astype(int), max(count - 2, 0))
        after = np.minimum(before + 1, count - 1)
        share = place - before
        share = share[:, None] if axis == 0 else share[None]
        result = result.take(before, axis) * (1 - share) + result.take(after, axis) * share
    return result
