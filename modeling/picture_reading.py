"""Read one picture, whatever it is, as upright 8-bit sRGB; numpy and Pillow only.

Always by the same rule, so that a path, its bytes and its opened picture give identical pixels:

- first frame of an animation, first page of a TIFF; orientation from EXIF is applied;
- an embedded RGB or CMYK profile is converted to sRGB (relative colorimetric, black point
  compensation); sRGB, grey and broken profiles are ignored, CMYK without a profile is converted
  by Pillow's formula;
- transparency is composited over white;
- 16 bits are divided by 257; integers and floats of 32 bits are read as 0..1, 0..255 or 0..65535,
  whichever is the smallest range that holds all values (0..1 for floats only), and stretched from
  their minimum to their maximum when none does; NaN counts as the minimum;
- floats that pass the ends of such a range by up to a quarter of it, and reach its upper half, are
  cut to it: bicubic resizing leaves them so.

JPEG's reduced-size decoding is never used: it would score a path unlike the opened picture.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

__all__ = ["DEFAULT_MAX_PIXELS", "PictureError", "may_never_end", "open_picture", "picture_name"]

DEFAULT_MAX_PIXELS = 100_000_000
_ROWS_AT_ONCE = 256
_LONGEST_NAME = 4096
_OVERSHOOT = 0.25  # of a range; sharp edges pass its ends by a tenth when they are resized

_ORIENTATION_TAG = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW_LIMIT_LOCK = threading.RLock()

_HUGE_PIXELS = 32_000_000
_ONE_HUGE = threading.Lock()

_START_OF_SCAN = b"\xff\xda"
_SMALL_PIXELS = 4_000_000
_MOST_SCANNED_PIXELS = 4_000_000_000  # some ten seconds of decoding


class PictureError(ValueError):
    """A picture that cannot be scored: which one, why, and what to do about it.

    Attributes:
        source: The file, address, or a placeholder such as `<bytes>`.
        reason: What is wrong with it.
        remedy: What to do.
    """

    def __init__(self, source: str, reason: str, remedy: str) -> None:
        """Keep the three parts; `str()` joins them."""
        super().__init__(source, reason, remedy)
        self.source = source
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        """Source, reason and remedy in one line."""
        return f"{self.source}: {self.reason}; {self.remedy}"


def picture_name(source: Any) -> str:
    """Name of a source in messages: its path, or a placeholder for what lies in memory."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        # Longer than any path: a picture's content passed as text, say.
        return text if len(text) <= _LONGEST_NAME else f"{text[:80]}… ({len(text):,} characters)"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    if isinstance(source, np.ndarray):
        return "<array>"
    return str(getattr(source, "filename", "") or "<picture>")


def open_picture(source: Any, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read one picture as upright 8-bit RGB; the rules stand at the top of this file.

    Args:
        source: A path, the bytes of a file, a Pillow picture (left unchanged; returned itself when
            there is nothing to convert) or an array (height, width), (height, width, channels) or
            (channels, height, width) with 1 to 4 channels; two and four channels end in alpha.
        max_pixels: Largest width x height; the declared size is checked before anything is decoded.

    Raises:
        PictureError: The picture is missing, unreadable, damaged, no picture, or too large.
        TypeError: `source` is none of the above.
    """
    name = picture_name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, name, max_pixels)
    stream: Any = source
    if isinstance(source, (bytes, bytearray, memoryview)):
        stream = io.BytesIO(source)
        if not len(source):
            raise PictureError(name, "there are no bytes", "fetch the picture again")
    elif isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):
            raise PictureError("''", "the path is empty", "name a picture")
        _check_file(Path(source), name)
    else:
        raise TypeError(
            "a picture is a path, bytes, a Pillow picture or an array, not "
            f"{type(source).__name__} ({name})"
        )
    try:
        # Pillow's own limit is a global that warns, or raises at its double; ours is an argument.
        with _pillow_limit_lifted():
            picture = Image.open(stream)
    except UnidentifiedImageError:
        raise PictureError(
            name,
            "is not a picture that Pillow can read",
            "convert it to JPEG or PNG, or fetch it again if it should be one",
        ) from None
    except Exception as error:
        raise _damaged(name, error) from error
    with picture:
        if picture.format in ("JPEG", "MPO"):
            _check_scans(picture, name)
        if picture.format == "EPS":  # Pillow would start Ghostscript on it
            raise PictureError(
                name, "is a PostScript program, which is not run", "convert it to PNG"
            )
        return _decode(picture, name, max_pixels)


def _check_file(path: Path, name: str) -> None:
    try:
        about = os.stat(path)
        if may_never_end(about.st_mode):
            raise PictureError(name, "is no ordinary file", "save the picture to a file first")
        with open(path, "rb"):
            pass
        empty = about.st_size == 0
    except PictureError:
        raise
    except FileNotFoundError:
        raise PictureError(name, "there is no such file", "check the path") from None
    except IsADirectoryError:
        raise PictureError(name, "is a folder", "name a picture in it") from None
    except PermissionError:
        reason = "is a folder" if path.is_dir() else "may not be read"
        raise PictureError(name, reason, "check its permissions") from None
    except (OSError, ValueError) as error:
        raise PictureError(name, f"cannot be opened ({error})", "check the path") from error
    if empty:
        raise PictureError(name, "the file is empty", "fetch it again")


def may_never_end(mode: int) -> bool:
    """Whether a file of this mode is a pipe or the like: to open one may take for ever."""
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_scans(picture: Image.Image, name: str) -> None:
    """Refuse a JPEG whose scans would keep the decoder busy: each is a pass over all pixels.

    A progressive file has about ten; a few megabytes can hold a hundred thousand.
    """
    file: Any = picture.fp  # type: ignore[attr-defined]
    scans, last = 0, b""
    try:
        place = file.tell()
        file.seek(0)
        while block := file.read(1 << 20):
            scans += (last + block).count(_START_OF_SCAN)
            last = block[-1:]
        file.seek(place)
    except OSError as error:
        raise _damaged(name, error) from error
    if scans * max(picture.width * picture.height, _SMALL_PIXELS) > _MOST_SCANNED_PIXELS:
        raise PictureError(
            name, f"is a JPEG in {scans:,} scans, more than any camera writes", "save it again"
        )


def _pillow_limit() -> float:
    with _PILLOW_LIMIT_LOCK:  # while it is held, the limit may be lifted
        return float("inf") if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


@contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    with _PILLOW_LIMIT_LOCK:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _damaged(name: str, error: Exception) -> PictureError:
    detail = " ".join(str(error).split()) or type(error).__name__
    return PictureError(
        name, f"cannot be decoded ({detail})", "the file is damaged or incomplete: fetch it again"
    )


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            name,
            f"{width} x {height} is {width * height:,} pixels, over the limit of {max_pixels:,}",
            "raise max_pixels (--max-pixels) if the file can be trusted",
        )
    if width * height == 0:
        raise PictureError(name, "has no pixels", "fetch it again")


def _decode(picture: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(*picture.size, name, max_pixels)
    # One huge picture at a time in a process, which bounds its memory.
    huge = picture.width * picture.height > _HUGE_PIXELS
    with _ONE_HUGE if huge else nullcontext():
        return _decoded(picture, name, max_pixels)


def _decoded(picture: Image.Image, name: str, max_pixels: int) -> Image.Image:
    try:
        if picture.width * picture.height > _pillow_limit():
            # Some formats ask Pillow's limit again while they decode.
            with _pillow_limit_lifted():
                picture.load()
        else:
            picture.load()
        # The embedded size of an icon or a turned TIFF is known only now.
        _check_size(*picture.size, name, max_pixels)
        orientation = _orientation(picture)
        rgb = _eight_bit_rgb(picture, name)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        if rgb is not picture:
            # Orientation and profile are spent: reading the result again must not apply them.
            rgb.info = {}
    except PictureError:
        raise
    except MemoryError:
        raise PictureError(
            name, "does not fit into memory", "lower max_pixels (--max-pixels) or the batch size"
        ) from None
    except Exception as error:
        raise _damaged(name, error) from error
    return rgb


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata must not cost the picture its score
        return 1


def _eight_bit_rgb(picture: Image.Image, name: str) -> Image.Image:
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(picture), name)).convert("RGB")
    if picture.mode == "CMYK":
        return _through_profile(picture, profile, "CMYK") or picture.convert("RGB")
    if picture.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return _transform(picture, ImageCms.ImageCmsProfile(lab))
    alpha = None
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        straight = picture.convert("LA") if picture.mode == "La" else picture
        with_alpha = straight if straight.mode == "RGBA" else straight.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        rgb = with_alpha.convert("RGB")
        del with_alpha
    else:
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    rgb = _through_profile(rgb, profile, "RGB") or rgb
    if alpha is not None:
        ground = Image.new("RGB", rgb.size, "white")
        ground.paste(rgb, mask=alpha)
        return ground
    return rgb


def _through_profile(picture: Image.Image, icc: Any, space: str) -> Image.Image | None:
    """The picture in sRGB, or None where its profile is absent, sRGB, unfit or broken."""
    if not isinstance(icc, bytes) or not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != space:
            return None
        if "srgb" in (profile.profile.profile_description or "").lower():
            return None
        return _transform(picture, profile)
    except (ImageCms.PyCMSError, AttributeError, ImportError, OSError, TypeError, ValueError):
        return None


def _transform(picture: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        picture,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # only the in-place form returns nothing
    converted.info.pop("icc_profile", None)
    return converted


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    if array.dtype.kind not in "buif":
        raise PictureError(name, f"has values of type {array.dtype}", "pass uint8 or float 0..1")
    if array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4) and array.shape[0] in (1, 2, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise PictureError(
            name,
            f"an array of shape {array.shape} is not one picture",
            "pass (height, width), (height, width, channels) or (channels, height, width)",
        )
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    values = np.ascontiguousarray(_to_eight_bits(array, name))
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    return _eight_bit_rgb(Image.fromarray(values), name)


def _to_eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Map the values to 0..255 by the rule at the top of this file, some rows at a time."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = 0.0, 65535.0
    if values.dtype.kind != "u" or values.dtype.itemsize != 2:  # of either byte order
        low, high = _range(values, name)
    # Of the largest numbers the difference would be infinite.
    shrink = 0.25 if max(abs(low), abs(high)) > 1e300 else 1.0
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = values[start : start + _ROWS_AT_ONCE].astype(np.float64)
        rows = np.nan_to_num(rows, nan=low, posinf=high, neginf=low)
        scaled = (rows * shrink - low * shrink) * (255.0 / (high * shrink - low * shrink))
        result[start : start + _ROWS_AT_ONCE] = np.clip(np.rint(scaled), 0, 255)
    return result


def _range(values: np.ndarray, name: str) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = values[start : start + _ROWS_AT_ONCE]
        finite = rows[np.isfinite(rows)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise PictureError(name, "has no finite value", "NaN and infinity are no picture")
    real = values.dtype.kind == "f"
    for top in (1.0, 255.0, 65535.0) if real else (255.0, 65535.0):
        beyond = _OVERSHOOT * top if real and high > 0.5 * top else 0.0
        if low >= -beyond and high <= top + beyond:
            return 0.0, top
    # What differs by less than its own rounding, or by next to nothing, is one colour.
    least = max(abs(low), abs(high), 1e-290) * 1e-15
    return (low, high) if high - low > least else (low, low + max(1.0, abs(low)))
