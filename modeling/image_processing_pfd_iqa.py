"""Image processor of PFD-IQA: pictures of any kind become normalised views."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs
from transformers.utils import TensorType, is_torch_tensor

from .views import (
    DEFAULT_MAX_PIXELS,
    VIEW_STRATEGIES,
    PictureError,
    is_low_resolution,
    open_picture,
    picture_name,
    picture_views,
)

__all__ = ["PfdIqaImageProcessor", "PfdIqaImageProcessorKwargs"]


class PfdIqaImageProcessorKwargs(ImagesKwargs, total=False):
    """What a processor is configured with beyond the usual fields.

    Attributes:
        view_strategy: A key of `VIEW_STRATEGIES`.
        short_side: Pictures with a longer short side are downscaled to it before crops are cut.
        max_pixels: Larger pictures raise `PictureError`.
    """

    view_strategy: str | None
    short_side: int | None
    max_pixels: int | None


class PfdIqaImageProcessor(PilBackend):
    """Cut the views of each picture and normalise them; a function of the picture alone.

    Accepts paths, bytes, Pillow pictures, arrays and tensors, one or a list, and returns
    `pixel_values`, float32 (batch, views, 3, size, size), and `low_resolution`, bool (batch,), true
    for a picture that had to be upscaled.

    Args:
        size: Side of a square view, `{"height": 224, "width": 224}`.
        short_side: Pictures with a longer short side are downscaled to it.
        view_strategy: `"standard"` (five views), `"fast"` (two) or `"thorough"` (six).
        max_pixels: Pictures with more pixels raise `PictureError`.
        image_mean: Mean of each channel after rescaling.
        image_std: Standard deviation of each channel after rescaling.
        rescale_factor: Factor from 0..255 to what `image_mean` is given in.

    Raises:
        ValueError: a field has an impossible value; the message names it.
        PictureError: a picture cannot be read.
    """

    valid_kwargs = PfdIqaImageProcessorKwargs
    model_input_names = ["pixel_values", "low_resolution"]

    size: Any = {"height": 224, "width": 224}
    short_side = 512
    view_strategy = "standard"
    max_pixels = DEFAULT_MAX_PIXELS
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    rescale_factor = 1 / 255
    do_rescale = True
    do_normalize = True

    def __init__(self, **kwargs: Any) -> None:
        """Take the fields above; what is not given keeps its default."""
        super().__init__(**kwargs)
        self._check_fields(self.size, self.short_side, self.view_strategy, self.max_pixels)
        self._check_scale(self.rescale_factor, self.image_mean, self.image_std)

    @staticmethod
    def _check_fields(size: SizeDict, short_side: int, strategy: str, max_pixels: int) -> None:
        if strategy not in VIEW_STRATEGIES:
            known = ", ".join(sorted(VIEW_STRATEGIES))
            raise ValueError(f"'view_strategy' must be one of {known}, got {strategy!r}")
        side = size.height
        if not isinstance(side, int) or side < 1 or side != size.width:
            raise ValueError(f"'size' must be a square height and width, got {dict(size)}")
        for name, value, least in (("short_side", short_side, side), ("max_pixels", max_pixels, 1)):
            if not isinstance(value, int) or value < least:
                wanted = f"a whole number of at least {least}"
                raise ValueError(f"{name!r} must be {wanted}, got {value!r}")

    @staticmethod
    def _check_scale(rescale_factor: Any, image_mean: Any, image_std: Any) -> None:
        for name, value, above, shapes in (
            ("rescale_factor", rescale_factor, 0.0, [()]),
            ("image_mean", image_mean, -np.inf, [(), (3,)]),
            ("image_std", image_std, 0.0, [(), (3,)]),
        ):
            if value is None:  # a step that is not taken
                continue
            numbers = np.asarray(value)
            if numbers.dtype.kind not in "iuf" or numbers.shape not in shapes:
                wish = "a number" if len(shapes) == 1 else "a number or three"
                raise ValueError(f"{name!r} must be {wish}, got {value!r}")
            if not ((numbers > above) & np.isfinite(numbers)).all():
                wish = "finite" if above else "above 0"
                raise ValueError(f"{name!r} must be {wish}, got {value!r}")

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:  # type: ignore[override]
        self._check_scale(kwargs["rescale_factor"], kwargs["image_mean"], kwargs["image_std"])
        super()._validate_preprocess_kwargs(**kwargs)
        self._check_fields(
            kwargs["size"], kwargs["short_side"], kwargs["view_strategy"], kwargs["max_pixels"]
        )

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        """One flat list of pictures; a stack of arrays or tensors counts as a list of them."""
        if isinstance(images, (list, tuple)):
            parts = [self._prepare_images_structure(part, expected_ndims) for part in images]
            return [picture for part in parts for picture in part]
        if getattr(images, "ndim", 0) == expected_ndims + 1:
            return list(images)
        return [images]

    def process_image(  # type: ignore[override]
        self,
        image: Any,
        input_data_format: str | ChannelDimension | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        **kwargs: Any,
    ) -> Image.Image:
        """Turn one path, bytes, Pillow picture, array or tensor into an upright RGB picture."""
        if is_torch_tensor(image):
            image = _array_of(image)
            if image.ndim == 3 and image.shape[0] in (1, 2, 3, 4) and input_data_format is None:
                input_data_format = ChannelDimension.FIRST  # the convention of tensors
        if isinstance(image, np.ndarray) and image.ndim == 3 and input_data_format is not None:
            if ChannelDimension(input_data_format) is ChannelDimension.FIRST:
                image = np.moveaxis(image, 0, -1)
        return open_picture(image, max_pixels)

    def _preprocess(  # type: ignore[override]
        self,
        images: list[Image.Image],
        size: SizeDict,
        short_side: int,
        view_strategy: str,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        side = int(size["height"])
        pixel_values, low_resolution = [], []
        for image in images:
            views, _ = picture_views(image, view_strategy, side, short_side)
            values = views.astype(np.float32)  # views, size, size, 3
            if do_rescale:
                values *= np.float32(rescale_factor)
            if do_normalize:
                values -= np.asarray(image_mean, np.float32)
                values /= np.asarray(image_std, np.float32)
            # views, 3, size, size
            pixel_values.append(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
            low_resolution.append(is_low_resolution(*image.size, side))
        return BatchFeature(
            data={
                "pixel_values": pixel_values,
                "low_resolution": np.array(low_resolution, dtype=bool),
            },
            tensor_type=return_tensors,
        )


def _array_of(tensor: Any) -> np.ndarray:
    """A tensor of any device as an array; PictureError for one without plain values."""
    try:
        values = tensor.detach().cpu()
        found: np.ndarray = (values.float() if values.is_floating_point() else values).numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:  # sparse, meta, quantised
        kind = f"{tensor.layout} on {tensor.device}"
        raise PictureError(
            picture_name(tensor), f"its values cannot be read ({kind})", "give a dense tensor"
        ) from error
    return found
