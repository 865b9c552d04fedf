"""Chains of degradations as pictures meet them on their way: noise, rescaling, codecs, sharpening.

The 25 types of `distortions` come one at a time; what people complain about has gone through
several hands. A chain takes two to four steps, in the order in which they happen: capture (noise,
blur), delivery (rescaling, a codec of pictures or of video), mending (sharpening, denoising), and
often delivery once more. Kinds and random numbers depend on the seed alone; the strength of all
steps grows with the level, so that of two levels of one chain the order is known by construction.

Video codecs come through PyAV (extra `video`); without it chains have codecs of pictures alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from pfd_iqa_hf.data.distortions import LEVELS

__all__ = ["CHAIN_STEPS", "degrade_by_chain"]

Step = Callable[[Image.Image, float, Generator], Image.Image]
_KERNELS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
# Name, and the range of the quantiser from hardly visible to severe.
_VIDEO_CODECS = (
    ("libx264", 26, 46),
    ("libx265", 26, 46),
    ("libvpx-vp9", 34, 62),
    ("mpeg2video", 5, 31),
    ("mpeg4", 5, 31),
)


def _noise(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    values = np.asarray(picture, np.float64) / 255
    grain = generator.normal(size=values.shape)
    if generator.random() < 0.5:
        grain = np.broadcast_to(grain[..., :1], values.shape)  # luminance alone
    # Photons: dark parts are noisier relative to their brightness, less so absolutely.
    deviation = (0.01 + 0.09 * strength) * np.sqrt(0.25 + 0.75 * values)
    return _picture(values + deviation * grain)


def _blur(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    radius = (0.4 + 2.6 * strength) * generator.uniform(0.8, 1.2)
    return picture.filter(ImageFilter.GaussianBlur(radius))


def _rescale(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    down, up = (_KERNELS[generator.integers(len(_KERNELS))] for _ in range(2))
    factor = 0.9 - 0.7 * strength
    small = (max(8, round(picture.width * factor)), max(8, round(picture.height * factor)))
    return picture.resize(small, down).resize(picture.size, up)


def _still_codec(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    kind = ("JPEG", "WEBP", "AVIF")[generator.integers(3)]
    best, worst = {"JPEG": (55, 6), "WEBP": (45, 1), "AVIF": (40, 4)}[kind]
    options = {"speed": 9} if kind == "AVIF" else {}
    file = BytesIO()
    picture.save(file, kind, quality=round(best + (worst - best) * strength), **options)
    with Image.open(file) as coded:
        return coded.convert("RGB")


def _video_codec(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    """The last of four frames that pan over the picture."""
    import av

    name, best, worst = _VIDEO_CODECS[generator.integers(len(_VIDEO_CODECS))]
    shift = generator.integers(-3, 4, 2)
    width, height = picture.width // 2 * 2, picture.height // 2 * 2
    quantiser = round(best + (worst - best) * strength)
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream(name, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        if name.startswith("lib"):
            stream.options = {"crf": str(quantiser), "preset": "ultrafast", "b": "0"}
            if name == "libx265":
                stream.options |= {"x265-params": "log-level=none:pools=none:frame-threads=1"}
            if name == "libvpx-vp9":
                stream.options |= {"cpu-used": "8", "deadline": "realtime"}
        else:
            stream.options = {"qmin": str(quantiser), "qmax": str(quantiser)}
        for number in range(3, -1, -1):
            moved = np.roll(np.asarray(picture), tuple(int(n) * number for n in shift), (0, 1))
            pixels = np.ascontiguousarray(moved[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as coded:
        last = list(coded.decode(video=0))[-1].to_ndarray(format="rgb24")
    frame = Image.fromarray(last)
    return frame if frame.size == picture.size else frame.resize(picture.size)


def _sharpen(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    radius = generator.uniform(0.8, 2.5)
    return picture.filter(ImageFilter.UnsharpMask(radius, round(60 + 340 * strength), 0))


def _smooth(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    """Denoising that takes texture with it: a median, mixed in."""
    size = 3 if generator.random() < 0.5 else 5
    return Image.blend(
        picture, picture.filter(ImageFilter.MedianFilter(size)), 0.3 + 0.7 * strength
    )


def _gamma(picture: Image.Image, strength: float, generator: Generator) -> Image.Image:
    power = 1 + (0.15 + 0.85 * strength) * (1 if generator.random() < 0.5 else -0.55)
    return _picture((np.asarray(picture, np.float64) / 255) ** power)


def _picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8))


_STEPS: dict[str, Step] = {
    "noise": _noise,
    "blur": _blur,
    "gamma": _gamma,
    "rescale": _rescale,
    "still_codec": _still_codec,
    "video_codec": _video_codec,
    "sharpen": _sharpen,
    "smooth": _smooth,
}
CHAIN_STEPS: tuple[str, ...] = tuple(_STEPS)
"""Names of the steps."""

_CAPTURE = ("noise", "blur", "gamma")
_DELIVERY = ("rescale", "still_codec", "video_codec")
_MENDING = ("sharpen", "smooth")


def _plan(generator: Generator, without: frozenset[str]) -> list[str]:
    """The steps of a chain: two to four."""

    def one_of(names: tuple[str, ...]) -> list[str]:
        left = [name for name in names if name not in without]
        return [left[generator.integers(len(left))]] if left else []

    plan = one_of(_CAPTURE) if generator.random() < 0.4 else []
    plan += one_of(_DELIVERY)
    if generator.random() < 0.5:
        plan += one_of(_MENDING)
    if len(plan) < 2 or generator.random() < 0.3:
        plan += one_of(_DELIVERY)
    return plan


def degrade_by_chain(
    image: Image.Image, level: int, seed: int = 0, without: frozenset[str] = frozenset()
) -> Image.Image:
    """Returns a copy that has gone through a chain of degradations.

    Args:
        image: A picture of at least 16×16 pixels; it is converted to RGB and not changed.
        level: 1 (hardly visible) to 5 (severe); all steps grow with it.
        seed: Non-negative; chooses the steps and their random numbers.
        without: Names of `CHAIN_STEPS` that no chain has, to keep a kind for testing.

    Returns:
        An RGB picture of the same size.

    Raises:
        ValueError: unknown level, negative seed, unknown step, or a side under 16 pixels.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; choose one of 1, 2, 3, 4, 5")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    unknown = sorted(without - set(CHAIN_STEPS))
    if unknown:
        raise ValueError(f"no step {unknown[0]!r}; there are {', '.join(CHAIN_STEPS)}")
    if min(image.size) < 16:
        raise ValueError(f"picture of {image.width}×{image.height} pixels: give at least 16 a side")
    if importlib.util.find_spec("av") is None:
        without |= {"video_codec"}
    plan = _plan(np.random.default_rng([seed, 77]), without)
    strength = (level - 1) / 4
    # Several steps add up: each is weaker than it would be alone.
    share = 1.0 if len(plan) < 3 else 0.75
    picture = image.convert("RGB")
    for place, name in enumerate(plan):
        draw = np.random.default_rng([seed, 78, place])  # the level is no part of the seed
        picture = _STEPS[name](picture, share * strength, draw)
    return picture
