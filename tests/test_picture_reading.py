"""A picture must not change its score with the way it is stored or handed over."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture

Array = np.ndarray


def _pixels(source: object, **options: int) -> Array:
    picture = open_picture(source, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def _bytes(picture: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def picture(photograph: Array) -> Image.Image:
    return Image.fromarray(photograph)


def test_path_bytes_picture_and_array_are_one_picture(
    picture: Image.Image, photograph: Array, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    picture.save(path, quality=90)
    expected = np.asarray(Image.open(path))
    lazily_opened = Image.open(path)
    for source in (path, str(path), path.read_bytes(), lazily_opened, expected):
        np.testing.assert_array_equal(_pixels(source), expected)
    np.testing.assert_array_equal(_pixels(photograph / np.float32(255)), photograph)
    np.testing.assert_array_equal(_pixels(photograph.astype(np.uint16) * 257), photograph)
    np.testing.assert_array_equal(_pixels(np.moveaxis(photograph, -1, 0)), photograph)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turned_picture_is_its_upright_copy(
    picture: Image.Image, orientation: int, format: str
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    stored = _bytes(picture, format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    assert upright is not None
    np.testing.assert_array_equal(_pixels(stored), np.asarray(upright.convert("RGB")))
    reopened = Image.open(io.BytesIO(stored))
    np.testing.assert_array_equal(_pixels(reopened), _pixels(stored))
    np.testing.assert_array_equal(_pixels(open_picture(reopened)), _pixels(stored))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_the_same_colours(picture: Image.Image, mode: str) -> None:
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        other = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
        assert other is not None
    else:
        other = picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    expected = picture if mode in ("LAB", "HSV", "YCbCr") else other.convert("RGB")
    difference = np.abs(_pixels(other).astype(int) - np.asarray(expected))
    assert difference.mean() <= 3.0, "colours of another mode must survive"


def test_grey_is_its_rgb_copy(picture: Image.Image) -> None:
    grey = picture.convert("L")
    expected = _pixels(grey.convert("RGB"))
    np.testing.assert_array_equal(_pixels(grey), expected)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(_pixels(_bytes(grey, "PNG", icc_profile=profile)), expected)
    sixteen = np.asarray(grey).astype(np.uint16) * 257
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(_pixels(_bytes(Image.fromarray(sixteen), format)), expected)
    for scale in (1 / 255, 1.0, 257.0):
        values = np.asarray(grey).astype(np.float32) * np.float32(scale)
        stored = _bytes(Image.fromarray(values), "TIFF")
        np.testing.assert_array_equal(_pixels(stored), expected)
    integers = _bytes(Image.fromarray(np.asarray(grey).astype(np.int32) * 257), "TIFF")
    np.testing.assert_array_equal(_pixels(integers), expected)


def test_floats_outside_every_known_range_are_stretched() -> None:
    values = np.array([[-10.0, 0.0, 10.0], [np.nan, np.inf, -np.inf]], np.float32)
    pixels = _pixels(_bytes(Image.fromarray(values), "TIFF"))[..., 0]
    assert pixels.tolist() == [[0, 128, 255], [0, 255, 0]]
    with pytest.raises(PictureError, match="no finite value"):
        open_picture(np.full((4, 4), np.nan, np.float32))


def test_floats_that_resizing_left_beyond_the_ends_are_cut() -> None:
    ramp = np.linspace(0, 1, 64)[None].repeat(48, 0)
    beyond = ramp.copy()
    beyond[0, :2] = -0.1, 1.12
    for top in (1.0, 255.0):
        read = np.asarray(open_picture(beyond * top)).astype(int)
        whole = np.asarray(open_picture(ramp * top)).astype(int)
        assert (read[1:] == whole[1:]).all() and read[0, :2, 0].tolist() == [0, 255]
    # Centred and whole numbers mean something else: there, no end is passed by accident.
    for values in (ramp - 0.5, 2 * ramp - 1, np.rint(280 * ramp - 20).astype(np.int32)):
        read = np.asarray(open_picture(values))[..., 0].astype(int)
        stretched = np.rint((values - values.min()) * 255.0 / np.ptp(values))
        assert np.abs(read - stretched).max() <= 1 and read.min() == 0 and read.max() == 255


def test_transparency_is_laid_over_white(picture: Image.Image) -> None:
    half = picture.copy()
    half.putalpha(Image.new("L", picture.size, 0))
    assert (_pixels(_bytes(half, "PNG")) == 255).all()
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    pixels = _pixels(_bytes(palette, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [200, 100, 50] and (pixels[1:] == 255).all()


def test_embedded_profile_is_converted_and_a_broken_one_ignored(picture: Image.Image) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = _pixels(_bytes(picture, "PNG"))
    np.testing.assert_array_equal(_pixels(_bytes(picture, "PNG", icc_profile=srgb)), plain)
    np.testing.assert_array_equal(_pixels(_bytes(picture, "PNG", icc_profile=b"broken")), plain)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(_pixels(_bytes(picture, "PNG", icc_profile=lab)), plain)


def test_first_frame_of_an_animation(picture: Image.Image) -> None:
    later = Image.new("RGB", picture.size, "red")
    for format, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        stored = _bytes(picture, format, save_all=True, append_images=[later], **options)
        np.testing.assert_array_equal(_pixels(stored), np.asarray(picture))
    gif = _bytes(picture, "GIF", save_all=True, append_images=[later])
    assert np.abs(_pixels(gif).astype(int) - np.asarray(picture)).mean() < 20


def test_declared_size_is_checked_before_decoding(picture: Image.Image, tmp_path: Path) -> None:
    # A bomb: some kilobytes that declare, and would decode to, 900 million pixels.
    bomb = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(bomb)
    with pytest.raises(PictureError, match=r"bomb\.png: 30000 x 30000 .* over the limit"):
        open_picture(bomb)
    too_many = picture.width * picture.height - 1
    for source in (picture, np.asarray(picture), _bytes(picture, "WEBP")):
        with pytest.raises(PictureError, match="max-pixels"):
            open_picture(source, max_pixels=too_many)


@pytest.mark.filterwarnings("error")
def test_only_our_limit_counts_and_pillows_stays(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    stored = [_bytes(picture, format) for format in ("PNG", "WEBP", "TIFF", "JPEG")]
    threads = [threading.Thread(target=lambda data=data: open_picture(data)) for data in stored * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for data in stored:
        open_picture(data)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_costs_nothing(picture: Image.Image) -> None:
    stored = _bytes(picture, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert _pixels(stored).shape == np.asarray(picture).shape


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "no bytes"),
        (b"not a picture at all", "not a picture"),
        (b"\xff\xd8\xff\xe0 cut", "not a picture|cannot be decoded"),
        ("missing.jpg", "no such file"),
        (".", "folder"),
        ("", "path is empty"),
        ("bad\0name.jpg", "cannot be opened"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((2, 3, 4, 5), np.uint8), "not one picture"),
        (np.zeros((8, 8, 7), np.uint8), "not one picture"),
        (np.array([["a"]]), "values of type"),
    ],
)
def test_reasons(source: object, reason: str) -> None:
    with pytest.raises(PictureError, match=reason) as caught:
        open_picture(source)
    assert caught.value.source in str(caught.value) and caught.value.remedy in str(caught.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_half_a_file_is_damaged(picture: Image.Image, format: str, tmp_path: Path) -> None:
    data = _bytes(picture, format)
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError, match="half: (cannot be decoded|is not a picture)"):
        open_picture(path)


@pytest.mark.parametrize(
    "values",
    [
        np.full((8, 8), 1e30),
        np.full((8, 8), 2**63, np.uint64),
        np.full((8, 8), -1e308),
        np.linspace(-1e-320, 1e-320, 64).reshape(8, 8),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_array_of_one_value_is_one_colour(values: np.ndarray) -> None:
    assert open_picture(values).getcolors(1) is not None


@pytest.mark.filterwarnings("error")
def test_the_widest_range_is_stretched_too() -> None:
    values = 1.7e308 * np.linspace(-1, 1, 256).reshape(16, 16)
    read = np.asarray(open_picture(values))[..., 0]
    assert read.ravel().tolist() == list(range(256))


def test_wrong_type_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="not int"):
        open_picture(7)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PictureError, match=r"^[^(]*pipe\.jpg: is no ordinary file"):
        open_picture(tmp_path / "pipe.jpg")


def _with_scans(scans: int) -> bytes:
    """A progressive JPEG whose last pass over the pixels is repeated."""
    data = _bytes(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused(tmp_path: Path) -> None:
    assert _pixels(_with_scans(900)).shape == (2000, 2000, 3)
    path = tmp_path / "scans.jpg"
    path.write_bytes(_with_scans(50_000))
    for source in (path, path.read_bytes()):
        with pytest.raises(PictureError, match="50,000 scans"):
            open_picture(source)


def test_transparency_keeps_its_colours(photograph: Array) -> None:
    alpha = np.linspace(0, 255, photograph.shape[1]).astype(np.uint8)
    alpha = np.broadcast_to(alpha, photograph.shape[:2])
    opened = _pixels(Image.fromarray(np.dstack([photograph, alpha])))
    share = alpha[..., None] / 255.0
    expected = share * photograph + (1 - share) * 255
    assert np.abs(opened - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory from /proc, in kB")
def test_a_hundred_million_pixels_stay_under_the_memory_limit(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGBA", (10_000, 10_000), (9, 99, 199, 128)).save(path, compress_level=1)
    program = (
        "import sys\n"
        "from pfd_iqa_onnx.shared import open_picture\n"
        "open_picture(sys.argv[1])\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 1.6e9
