"""What each of the 25 distortions does to a picture, given a strength and a random generator.

Every function takes an RGB picture of at least 8×8 pixels, the strength in its own unit, and the
generator of the call; it returns an RGB picture of the same size. Lengths are in pixels.

Pillow and kornia do the work; Pillow wherever both can, because distortions run inside the training
loop and Pillow is faster on one core. Own code: colour shift, denoise noise level, jitter field,
patches and blocks.
"""

from __future__ import annotations

import io
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

if TYPE_CHECKING:
    import torch

__all__ = [
    "color_block",
    "color_diffusion",
    "color_quantization",
    "color_saturation_hsv",
    "color_saturation_lab",
    "color_shift",
    "contrast_change",
    "denoise",
    "exposure",
    "gaussian_blur",
    "impulse_noise",
    "jitter",
    "jpeg",
    "jpeg2000",
    "lens_blur",
    "mean_shift",
    "motion_blur",
    "multiplicative_noise",
    "non_eccentricity_patch",
    "pixelate",
    "quantization",
    "sharpen",
    "white_noise",
    "white_noise_color_component",
]

_KADID_PIXELS = 512 * 384  # KADID's picture size: its counts of patches are meant for this area


# --- conversions ----------------------------------------------------------------------------------


def _kornia() -> ModuleType:
    try:
        import kornia
    except ImportError as error:
        raise ImportError("this distortion needs kornia: pip install pfd-iqa-hf[train]") from error
    module: ModuleType = kornia
    return module


def _to_array(image: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    return np.asarray(image, dtype=np.float32) / 255.0


def _to_image(array: np.ndarray, mode: str = "RGB") -> Image.Image:
    """From (H, W, 3) in [0, 1], clipped and rounded."""
    rounded = (np.clip(array, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), rounded.tobytes())


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) float32 in [0, 1]."""
    import torch

    return torch.from_numpy(_to_array(image).transpose(2, 0, 1).copy())[None]


def _from_tensor(tensor: torch.Tensor) -> Image.Image:
    return _to_image(tensor[0].permute(1, 2, 0).numpy())


def _reencode(image: Image.Image, **options: object) -> Image.Image:
    """Through an encoder of Pillow and back."""
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def _tone_curve(image: Image.Image, curve: np.ndarray) -> Image.Image:
    """Maps each of the 256 values through `curve`, (256,) in [0, 1], the same in every channel."""
    table = (np.clip(curve, 0.0, 1.0) * 255.0 + 0.5).astype(int).tolist()
    return image.point(table * 3)


def _sign(generator: Generator) -> float:
    return 1.0 if generator.random() < 0.5 else -1.0


# --- blur (1-3) -----------------------------------------------------------------------------------


def gaussian_blur(image: Image.Image, sigma: float, _: Generator) -> Image.Image:
    """A Gaussian of deviation `sigma` pixels."""
    return image.filter(ImageFilter.GaussianBlur(sigma))


def lens_blur(image: Image.Image, radius: float, _: Generator) -> Image.Image:
    """A disc, its rim weighted by cover so that radii between whole pixels differ."""
    import torch

    reach = int(np.ceil(radius))
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    distance = torch.hypot(offset[:, None], offset[None, :])
    disc = (radius + 0.5 - distance).clamp(0.0, 1.0)
    blurred = _kornia().filters.filter2d(
        _to_tensor(image), disc[None], border_type="replicate", normalized=True
    )
    return _from_tensor(blurred)


def motion_blur(image: Image.Image, length: float, generator: Generator) -> Image.Image:
    """A straight line of `length` pixels (odd) at an angle from the seed."""
    angle = float(generator.uniform(0.0, 180.0))
    blurred = _kornia().filters.motion_blur(
        _to_tensor(image),
        int(length),
        angle,
        direction=0.0,
        border_type="replicate",
        mode="bilinear",
    )
    return _from_tensor(blurred)


# --- colour (4-8) ---------------------------------------------------------------------------------


def color_diffusion(image: Image.Image, sigma: float, _: Generator) -> Image.Image:
    """Blurs a* and b*, keeps L*: colour leaks over edges."""
    import torch

    kornia = _kornia()
    lab = kornia.color.rgb_to_lab(_to_tensor(image))
    size = 2 * int(2.5 * sigma) + 1
    chroma = kornia.filters.gaussian_blur2d(
        lab[:, 1:], (size, size), (sigma, sigma), border_type="replicate"
    )
    return _from_tensor(kornia.color.lab_to_rgb(torch.cat([lab[:, :1], chroma], dim=1)))


def color_shift(image: Image.Image, length: float, generator: Generator) -> Image.Image:
    """Moves the green channel by `length` pixels near edges, as a misaligned sensor would."""
    angle = generator.uniform(0.0, 2.0 * np.pi)
    down, right = round(length * np.sin(angle)), round(length * np.cos(angle))
    red, green, blue = image.split()
    padded = np.pad(np.asarray(green), max(abs(down), abs(right)), mode="edge")
    rows = np.arange(image.height) + max(abs(down), abs(right)) - down
    columns = np.arange(image.width) + max(abs(down), abs(right)) - right
    shifted = Image.fromarray(padded[np.ix_(rows, columns)])
    # Flat regions keep their colour: only where the grey picture has structure does the shift show.
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES)
    weight = edges.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(2.0))
    weight = weight.point([min(255, 4 * value) for value in range(256)])
    return Image.merge("RGB", (red, Image.composite(shifted, green, weight), blue))


def color_quantization(image: Image.Image, colors: float, _: Generator) -> Image.Image:
    """The best palette of `colors` colours by median cut, without dither."""
    palette = image.quantize(int(colors), method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return palette.convert("RGB")


def color_saturation_hsv(image: Image.Image, factor: float, _: Generator) -> Image.Image:
    """S × factor with H and V kept; a negative factor turns to the complementary hue, as KADID's.

    In HSV each channel is V − S·k(H), so scaling S is a blend with the picture's V.
    """
    red, green, blue = image.split()
    value = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return Image.blend(Image.merge("RGB", (value, value, value)), image, factor)


def color_saturation_lab(image: Image.Image, factor: float, _: Generator) -> Image.Image:
    """a* and b* × factor, over-saturated."""
    kornia = _kornia()
    lab = kornia.color.rgb_to_lab(_to_tensor(image))
    lab[:, 1:] *= factor
    return _from_tensor(kornia.color.lab_to_rgb(lab))


# --- compression (9, 10) --------------------------------------------------------------------------


def jpeg2000(image: Image.Image, ratio: float, _: Generator) -> Image.Image:
    """Lossy JPEG 2000 at 1 / `ratio` of the raw size."""
    # Each resolution halves the picture; OpenJPEG refuses more than a small picture has.
    resolutions = min(6, int(np.log2(min(image.size))))
    return _reencode(
        image,
        format="JPEG2000",
        irreversible=True,
        quality_mode="rates",
        quality_layers=[ratio],
        num_resolutions=resolutions,
    )


def jpeg(image: Image.Image, quality: float, _: Generator) -> Image.Image:
    """JPEG of Pillow's `quality`."""
    return _reencode(image, format="JPEG", quality=int(quality))


# --- noise (11-15) --------------------------------------------------------------------------------


def _normal(image: Image.Image, generator: Generator) -> np.ndarray:
    """Standard normal, (H, W, 3) float32."""
    return generator.standard_normal((image.height, image.width, 3), dtype=np.float32)


def white_noise(image: Image.Image, deviation: float, generator: Generator) -> Image.Image:
    """Adds Gaussian noise of this deviation, white being 1, in each channel by itself."""
    return _to_image(_to_array(image) + deviation * _normal(image, generator))


def white_noise_color_component(
    image: Image.Image, deviation: float, generator: Generator
) -> Image.Image:
    """Adds Gaussian noise of this deviation in YCbCr."""
    noisy = _to_array(image.convert("YCbCr")) + deviation * _normal(image, generator)
    return _to_image(noisy, mode="YCbCr").convert("RGB")


def impulse_noise(image: Image.Image, density: float, generator: Generator) -> Image.Image:
    """Salt and pepper, in each channel by itself."""
    draw = generator.random((image.height, image.width, 3), dtype=np.float32)
    array = np.array(image)
    array[draw < density / 2] = 0
    array[draw > 1.0 - density / 2] = 255
    return Image.fromarray(array)


def multiplicative_noise(image: Image.Image, deviation: float, generator: Generator) -> Image.Image:
    """Multiplies by 1 + Gaussian noise of this deviation (speckle)."""
    return _to_image(_to_array(image) * (1.0 + deviation * _normal(image, generator)))


def denoise(image: Image.Image, deviation: float, generator: Generator) -> Image.Image:
    """White noise removed again by an edge-keeping filter: blotches left, fine texture gone."""
    noisy = _to_tensor(white_noise(image, deviation, generator))
    smooth = _kornia().filters.guided_blur(
        noisy, noisy, kernel_size=7, eps=2.0 * deviation**2, border_type="replicate"
    )
    return _from_tensor(smooth)


# --- exposure (16-18) and contrast (25) -----------------------------------------------------------


def exposure(image: Image.Image, stops: float, _: Generator) -> Image.Image:
    """Scales linear light by 2**stops; what passes white is clipped, as on a sensor."""
    encoded = np.arange(256) / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    scaled = np.clip(linear * 2.0**stops, 0.0, 1.0)
    curve = np.where(scaled <= 0.0031308, scaled * 12.92, 1.055 * scaled ** (1 / 2.4) - 0.055)
    return _tone_curve(image, curve)


def mean_shift(image: Image.Image, amount: float, generator: Generator) -> Image.Image:
    """Adds ± amount to every value; the sign comes from the seed."""
    return _tone_curve(image, np.arange(256) / 255.0 + _sign(generator) * amount)


def contrast_change(image: Image.Image, amount: float, generator: Generator) -> Image.Image:
    """Contrast divided or multiplied by (1 + amount); which of them comes from the seed."""
    factor = (1.0 + amount) ** _sign(generator)
    return ImageEnhance.Contrast(image).enhance(factor)


# --- spatial (19-21, 23) --------------------------------------------------------------------------


def jitter(image: Image.Image, deviation: float, generator: Generator) -> Image.Image:
    """Every pixel is fetched from a random place about `deviation` pixels away."""
    import torch

    height, width = image.height, image.width
    offset = deviation * generator.standard_normal((2, height, width), dtype=np.float32)
    columns = torch.from_numpy(offset[0] + np.arange(width, dtype=np.float32))
    rows = torch.from_numpy(offset[1] + np.arange(height, dtype=np.float32)[:, None])
    moved = _kornia().geometry.transform.remap(
        _to_tensor(image), columns[None], rows[None], padding_mode="border", align_corners=True
    )
    return _from_tensor(moved)


def non_eccentricity_patch(image: Image.Image, count: float, generator: Generator) -> Image.Image:
    """Replaces small patches by their surroundings a patch away; `count` is for KADID's area."""
    height, width = image.height, image.width
    side = min(16, min(height, width) // 4)
    number = max(1, round(count * height * width / _KADID_PIXELS * (16 / side) ** 2))
    source, result = np.asarray(image), np.array(image)
    for _ in range(number):
        row, column = generator.integers(0, height - side), generator.integers(0, width - side)
        down, right = generator.integers(-side, side + 1, size=2)
        from_row = int(np.clip(row + down, 0, height - side))
        from_column = int(np.clip(column + right, 0, width - side))
        result[row : row + side, column : column + side] = source[
            from_row : from_row + side, from_column : from_column + side
        ]
    return Image.fromarray(result)


def pixelate(image: Image.Image, scale: float, _: Generator) -> Image.Image:
    """Reduces to `scale` of the sides and enlarges again by repeating pixels."""
    small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    reduced = image.resize(small, Image.Resampling.BOX)
    return reduced.resize(image.size, Image.Resampling.NEAREST)


def color_block(image: Image.Image, count: float, generator: Generator) -> Image.Image:
    """Blocks of one random colour, a twelfth of the shorter side wide (32 pixels on KADID's)."""
    side = max(2, round(min(image.size) / 12))
    result = image.copy()
    for _ in range(int(count)):
        left = int(generator.integers(0, image.width - side))
        top = int(generator.integers(0, image.height - side))
        red, green, blue = (int(value) for value in generator.integers(0, 256, size=3))
        result.paste((red, green, blue), (left, top, left + side, top + side))
    return result


# --- quantisation (22) and sharpening (24) --------------------------------------------------------


def quantization(image: Image.Image, steps: float, _: Generator) -> Image.Image:
    """Every channel in `steps` even steps."""
    curve = np.round(np.arange(256) / 255.0 * (steps - 1)) / (steps - 1)
    return _tone_curve(image, curve)


def sharpen(image: Image.Image, percent: float, _: Generator) -> Image.Image:
    """An unsharp mask of radius 2."""
    return image.filter(ImageFilter.UnsharpMask(radius=2, percent=int(percent), threshold=0))
