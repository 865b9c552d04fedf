"""Views decide what the model sees: nothing of a picture may be lost, moved or invented."""

import resource
import time

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_hf.modeling.views import (
    VIEW_STRATEGIES,
    assemble_map,
    is_low_resolution,
    picture_views,
    view_boxes,
)

SIZES = [(1, 1), (1, 4000), (4000, 1), (20_000, 50), (50, 20_000), (223, 224), (224, 224)]
SIZES += [(512, 512), (640, 480), (1200, 500), (500, 1250), (1024, 512), (3000, 2000)]


def _gradient(width: int, height: int) -> Image.Image:
    """Red is the column and green the row, as fractions of the picture: a pixel says its place."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.rint((np.arange(width) + 0.5) / width * 255)
    pixels[..., 1] = np.rint((np.arange(height) + 0.5) / height * 255)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("strategy", VIEW_STRATEGIES)
@pytest.mark.parametrize("size", SIZES)
def test_boxes_say_where_the_views_are(size: tuple[int, int], strategy: str) -> None:
    views, boxes = picture_views(_gradient(*size), strategy)
    assert views.shape == (VIEW_STRATEGIES[strategy], 224, 224, 3) and views.dtype == np.uint8
    np.testing.assert_allclose(boxes, view_boxes(*size, strategy))
    assert boxes.min() >= -1e-9 and boxes.max() <= 1 + 1e-9
    centre = views[:, 111:113, 111:113].mean((1, 2)) / 255
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    allowed = 0.01 + 0.5 / np.array(size)
    assert (np.abs(centre[:, :2] - middle) <= allowed).all()


def test_tiles_of_a_training_sized_picture_cover_it() -> None:
    boxes = view_boxes(512, 512)
    expected = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    np.testing.assert_allclose(boxes[1:], expected)


def test_tiles_of_a_small_picture_are_its_own_pixels(photograph: np.ndarray) -> None:
    small = photograph[:300, :400]
    views, _ = picture_views(Image.fromarray(small))
    corners = [small[:224, :224], small[:224, -224:], small[-224:, :224], small[-224:, -224:]]
    np.testing.assert_array_equal(views[1:], corners)


@pytest.mark.parametrize(
    "size, order",
    [((300, 260), [2, 1, 4, 3]), ((640, 480), [2, 1, 4, 3]), ((1004, 375), [4, 3, 2, 1])],
)
def test_a_mirrored_picture_has_the_same_four_tiles(
    size: tuple[int, int], order: list[int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    views, boxes = picture_views(Image.fromarray(noise), "thorough")
    mirrored, _ = picture_views(Image.fromarray(noise[:, ::-1].copy()), "thorough")
    assert (boxes[:, 0] > boxes[:, 2]).tolist() == [False, False, True, False, True, False]
    difference = np.abs(mirrored[order].astype(int) - views[1:5])
    assert difference.max() <= 1, "the filter's rounding"
    for middle in (0, 5):
        assert np.abs(mirrored[middle][:, ::-1].astype(int) - views[middle]).max() <= 1
    standard, fast = (
        picture_views(Image.fromarray(noise), name)[0] for name in ("standard", "fast")
    )
    np.testing.assert_array_equal(views[[0, 1, 3]], standard[[0, 1, 3]])
    np.testing.assert_array_equal(views[[2, 4], :, ::-1], standard[[2, 4]])
    np.testing.assert_array_equal(views[5], fast[1])


def test_a_wide_picture_is_cropped_along_its_long_axis() -> None:
    boxes = view_boxes(2048, 512)
    assert boxes[1:, 0].tolist() == sorted(boxes[1:, 0].tolist())
    assert boxes[1, 0] == 0 and boxes[4, 2] == 1 and len(set(boxes[1:, 1])) == 1
    whole = boxes[0]
    assert (whole[2] - whole[0]) * 2048 == pytest.approx(1.5 * 512), "squashed up to 1.5:1 only"
    turned = view_boxes(512, 2048)
    np.testing.assert_allclose(turned[:, [1, 0, 3, 2]], boxes)


def test_large_pictures_are_seen_at_a_short_side_of_512() -> None:
    boxes = view_boxes(4000, 3000)
    assert (boxes[1, 3] - boxes[1, 1]) * 512 == pytest.approx(256)
    assert is_low_resolution(223, 900) and not is_low_resolution(224, 224)


def test_downscaling_is_antialiased() -> None:
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    views, _ = picture_views(Image.fromarray(stripes))
    assert abs(views.astype(float).mean() - 127.5) < 1 and views.std() < 8


def test_unknown_strategy_names_the_field() -> None:
    with pytest.raises(ValueError, match="view_strategy.*'bogus'"):
        picture_views(_gradient(8, 8), "bogus")


def test_extreme_pictures_take_little_memory_and_time() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for size in [(1, 4000), (20_000, 50), (1, 60_000), (65_000, 1)]:
        picture_views(Image.new("RGB", size))
    assert time.process_time() - started < 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kibibytes"


@pytest.mark.parametrize("size", SIZES)
def test_map_of_a_constant_is_that_constant(size: tuple[int, int]) -> None:
    width, height = size
    boxes = view_boxes(width, height)
    values = assemble_map(np.full((5, 16, 16), 37.5), boxes, height, width)
    assert values.shape == (height, width) and values.dtype == np.float32
    np.testing.assert_allclose(values, 37.5, atol=1e-4)


@pytest.mark.parametrize("strategy", ["standard", "thorough"])
@pytest.mark.parametrize("size", [(640, 480), (512, 512), (300, 260)])
def test_map_of_a_ramp_is_the_ramp_where_views_look(size: tuple[int, int], strategy: str) -> None:
    width, height = size
    boxes = view_boxes(width, height, strategy)
    places = (np.arange(16) + 0.5) / 16
    maps = np.stack(
        [np.tile(left + places * (right - left), (16, 1)) for left, _, right, _ in boxes]
    )
    values = assemble_map(maps, boxes, height, width)
    columns = (np.arange(width) + 0.5) / width
    error = np.abs(values - columns)
    # Half a token at a view's edge cannot be interpolated; the rest is exact.
    assert error[:, width // 8 : -width // 8].max() < 0.04
    assert np.abs(np.diff(values, axis=1)).max() < 0.02, "no seam"
    assert values.min() >= maps.min() - 1e-6 and values.max() <= maps.max() + 1e-6


def test_one_bad_corner_is_found_by_the_map() -> None:
    boxes = view_boxes(512, 512)
    maps = np.full((5, 16, 16), 80.0)
    maps[1] = 20.0  # the upper left crop
    maps[0, :8, :8] = 20.0
    values = assemble_map(maps, boxes, 512, 512)
    quadrants = [values[:256, :256], values[:256, 256:], values[256:, :256], values[256:, 256:]]
    assert int(np.argmin([part.mean() for part in quadrants])) == 0
    assert values[10:60, 10:60].mean() < 25 and values[-60:, -60:].mean() > 75
