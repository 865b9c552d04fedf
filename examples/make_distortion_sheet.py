"""Writes `docs/distortions.png`: all distortions of one example photograph.

    pip install pfd-iqa-hf[train]
    python examples/make_distortion_sheet.py

`pfd-iqa distort PICTURE --sheet FILE` makes such a sheet of any picture, in full colour.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pfd_iqa_hf.data.contact_sheet import contact_sheet

ROOT = Path(__file__).parents[1]
MOST_BYTES = 300_000  # the checkout carries the file


def main() -> None:
    """Writes the sheet with as many colours as its size allows."""
    with Image.open(ROOT / "examples" / "photographs" / "astronaut.jpg") as opened:
        small = opened.convert("RGB").resize((264, 264), Image.Resampling.LANCZOS)
    sheet = contact_sheet(small.crop((28, 8, 188, 128)), cell=(80, 60))
    path = ROOT / "docs" / "distortions.png"
    for colors in (256, 192, 128):
        palette = sheet.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette.save(path, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            break


if __name__ == "__main__":
    main()
