"""Writes `examples/photographs/` and `examples/degraded/` from pictures inside scikit-image.

    pip install pfd-iqa-hf[dev]
    python examples/make_examples.py

Needs no network: only files shipped inside scikit-image's wheel are used, all of them in the public
domain or CC0 (see examples/README.md). The photographs are reduced and compressed gently, so that
they count as clean; the degraded copies are made from these files by `pfd_iqa_hf.data.distortions`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from pfd_iqa_hf.data.distortions import distort

LONG_SIDE = 512
QUALITY = 93
MOST_BYTES = 60_000  # the checkout carries these files

SOURCES: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": data.astronaut,
    "brick": data.brick,
    "camera": data.camera,
    "cat": data.chelsea,
    "coffee": data.coffee,
    "rocket": data.rocket,
}

# File name's word → distortion type, and which levels which photograph shows.
TYPES = {"blur": "gaussian_blur", "noise": "white_noise", "jpeg": "jpeg"}
DEGRADED = {
    "astronaut": (("blur", 2), ("noise", 4), ("jpeg", 3)),
    "brick": (("blur", 4), ("noise", 2)),
    "camera": (("blur", 3), ("noise", 3), ("jpeg", 4)),
    "cat": (("blur", 5), ("noise", 2), ("jpeg", 4)),
    "coffee": (("blur", 3), ("noise", 4), ("jpeg", 2)),
    "rocket": (("blur", 4), ("noise", 3), ("jpeg", 5)),
}


def encode(picture: Image.Image, quality: int) -> bytes:
    """JPEG with full colour resolution."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def photograph(array: np.ndarray) -> bytes:
    """The picture as JPEG, as large as `LONG_SIDE` and `MOST_BYTES` allow."""
    picture = Image.fromarray(array)
    for side in range(min(LONG_SIDE, max(picture.size)), 0, -16):
        reduced = picture.copy()
        reduced.thumbnail((side, side), Image.Resampling.LANCZOS)
        encoded = encode(reduced, QUALITY)
        if len(encoded) <= MOST_BYTES:
            return encoded
    raise ValueError(f"no size of this picture fits into {MOST_BYTES} bytes")


def main() -> None:
    """Writes all pictures beside this script and prints their sizes."""
    here = Path(__file__).parent
    photographs, degraded = here / "photographs", here / "degraded"
    photographs.mkdir(exist_ok=True)
    degraded.mkdir(exist_ok=True)
    for name, load in SOURCES.items():
        path = photographs / f"{name}.jpg"
        path.write_bytes(photograph(load()))
        written = [path]
        with Image.open(path) as clean:
            for word, level in DEGRADED[name]:
                copy = degraded / f"{name}_{word}_{level}.jpg"
                copy.write_bytes(encode(distort(clean, TYPES[word], level), QUALITY))
                written.append(copy)
        for path in written:
            with Image.open(path) as picture:
                size = f"{picture.width}×{picture.height}"
            print(f"{path.relative_to(here)}  {size}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
