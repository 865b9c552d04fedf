"""From a file or its bytes to the views of a picture, and why not; numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..modeling.picture_reading import PictureError, open_picture
from ..modeling.views import picture_views

__all__ = ["DecodedPicture", "DecodingSettings", "decode_picture", "normalised_views"]


@dataclass(frozen=True)
class DecodingSettings:
    """What decides how a picture becomes views.

    Attributes:
        view_strategy: A key of `VIEW_STRATEGIES`.
        view_size: Side of a view in pixels.
        short_side: Pictures with a longer short side are downscaled to it.
        max_pixels: Limit on width x height.
    """

    view_strategy: str
    view_size: int
    short_side: int
    max_pixels: int


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """What decoding gave.

    Attributes:
        views: uint8 (views, size, size, 3), None where the picture cannot be read.
        size: Width and height of the upright picture.
        error: Why it cannot be read.
        seconds: CPU time that it took, where it was measured.
    """

    views: np.ndarray | None = None
    size: tuple[int, int] | None = None
    error: str | None = None
    seconds: float = 0.0


def decode_picture(source: str | bytes, settings: DecodingSettings) -> DecodedPicture:
    """Read one picture and cut its views; whatever goes wrong is its `error`."""
    size: Any = None
    try:
        picture = open_picture(source, settings.max_pixels)
        size = picture.size
        views, _ = picture_views(
            picture, settings.view_strategy, settings.view_size, settings.short_side
        )
    except PictureError as error:
        return DecodedPicture(error=f"{error.reason}; {error.remedy}")
    except MemoryError:
        reason = "does not fit into memory; lower max_pixels (--max-pixels) or convert it"
        return DecodedPicture(error=reason)
    except Exception as error:  # one picture of millions must not stop the others
        detail = " ".join(str(error).split()) or type(error).__name__
        return DecodedPicture(size=size, error=f"cannot be decoded ({detail}); convert it")
    return DecodedPicture(views, size)


def normalised_views(
    views: np.ndarray, factor: float, mean: Sequence[float], deviation: Sequence[float]
) -> np.ndarray:
    """The model's numbers for some views, by the arithmetic of the image processor.

    Args:
        views: uint8 (views, size, size, 3).
        factor: What 0..255 is multiplied with first.
        mean: Of each channel, subtracted then.
        deviation: Of each channel, divided by last.

    Returns:
        float32 (views, 3, size, size).
    """
    values = views.astype(np.float32)
    values *= np.float32(factor)
    values -= np.asarray(mean, np.float32)
    values /= np.asarray(deviation, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
