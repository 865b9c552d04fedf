"""All distortions of one picture at a glance."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from pfd_iqa_hf.data.distortions import DISTORTION_TYPES, LEVELS, distort

__all__ = ["contact_sheet"]

_GAP = 4
_NAME_HEIGHT = 14
_BLOCKS = 2  # columns of types


def contact_sheet(
    image: Image.Image, *, cell: tuple[int, int] = (96, 72), seed: int = 0
) -> Image.Image:
    """Every type and level on one sheet, each as a small copy of the distorted picture.

    Args:
        image: a picture of at least 8×8 pixels; it is distorted at this size. About twice the
            cells' size keeps level 1 visible.
        cell: largest width and height of a copy, in pixels.
        seed: as of `distort`.

    Returns:
        An RGB picture: types in KADID-10k's order, down two columns, levels 1 to 5 to the right.

    Raises:
        ValueError: the picture is too small.
        ImportError: kornia is not installed.
    """
    picture = image.convert("RGB")
    share = min(1.0, cell[0] / picture.width, cell[1] / picture.height)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    block = len(LEVELS) * (size[0] + _GAP) + 2 * _GAP
    row_height = size[1] + _NAME_HEIGHT + _GAP
    rows = -(-len(DISTORTION_TYPES) // _BLOCKS)
    sheet = Image.new("RGB", (_BLOCKS * block, rows * row_height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for number, name in enumerate(DISTORTION_TYPES):
        x = (number // rows) * block + _GAP
        y = (number % rows) * row_height + _GAP
        draw.text((x, y), f"{number + 1}  {name}", fill="black", font=font)
        for level in LEVELS:
            copy = distort(picture, name, level, seed).resize(size, Image.Resampling.BOX)
            sheet.paste(copy, (x + (level - 1) * (size[0] + _GAP), y + _NAME_HEIGHT))
    return sheet
