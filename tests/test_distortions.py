"""Training ranks pictures by these levels: a level out of order would teach the model nonsense."""

import builtins
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, LEVELS, distort

PROMPT_GROUPS = {  # KADID's type numbers
    "blur": {1, 2, 3},
    "color": {4, 5, 7, 8},
    "jpeg2000 compression": {9},
    "jpeg compression": {10},
    "noise": {11, 12, 13, 14},
    "overexposure": {16},
    "underexposure": {17},
    "spatial": {19, 20, 21, 23},
    "quantization": {6, 22},
    "contrast": {25},
    "other": {15, 18, 24},
}


def _square(array: np.ndarray, side: int = 256) -> Image.Image:
    picture = Image.fromarray(array)
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    return picture.crop((left, top, left + edge, top + edge)).resize((side, side))


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [_square(array) for array in (data.astronaut(), data.coffee(), data.chelsea())]


def test_groups_follow_kadids_numbering() -> None:
    assert len(DISTORTION_TYPES) == 25
    assert set(DISTORTION_GROUP) == set(DISTORTION_TYPES)
    for group, numbers in PROMPT_GROUPS.items():
        expected = {DISTORTION_TYPES[number - 1] for number in numbers}
        assert {name for name, its_group in DISTORTION_GROUP.items() if its_group == group} == (
            expected
        )


@pytest.mark.parametrize("name", DISTORTION_TYPES)
def test_every_level_is_worse_than_the_one_before(
    name: str, photographs: list[Image.Image]
) -> None:
    for seed, photograph in enumerate(photographs):
        before = np.asarray(photograph)
        levels = [np.asarray(distort(photograph, name, level, seed)) for level in LEVELS]
        peak_ratios = [peak_signal_noise_ratio(before, after) for after in levels]
        similarities = [structural_similarity(before, after, channel_axis=2) for after in levels]
        assert peak_ratios == sorted(peak_ratios, reverse=True)
        assert similarities == sorted(similarities, reverse=True)
        assert len(set(peak_ratios)) == len(LEVELS)
        assert similarities[0] > 0.65  # mild …
        assert similarities[-1] < 0.97  # … to severe
        assert np.array_equal(np.asarray(photograph), before)  # the argument is left alone


def _numpy_state() -> np.ndarray:
    state: Any = np.random.get_state()
    return state[1].copy()


@pytest.mark.parametrize("name", DISTORTION_TYPES)
def test_result_depends_on_the_arguments_only(name: str, photographs: list[Image.Image]) -> None:
    torch = pytest.importorskip("torch")
    photograph = photographs[0]
    np.random.seed(1)
    torch.manual_seed(1)
    first = distort(photograph, name, 3, seed=7)
    np.random.seed(2)
    torch.manual_seed(2)
    state = torch.get_rng_state(), _numpy_state()
    assert distort(photograph, name, 3, seed=7).tobytes() == first.tobytes()
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(_numpy_state(), state[1])


@pytest.mark.parametrize(
    "name",
    [
        "motion_blur",
        "color_shift",
        "white_noise",
        "white_noise_color_component",
        "impulse_noise",
        "multiplicative_noise",
        "denoise",
        "jitter",
        "non_eccentricity_patch",
        "color_block",
    ],
)
def test_seed_chooses_the_pattern(name: str, photographs: list[Image.Image]) -> None:
    outputs = {distort(photographs[0], name, 4, seed).tobytes() for seed in range(4)}
    assert len(outputs) > 1


@pytest.mark.parametrize("name", ["brighten", "darken", "mean_shift", "contrast_change"])
def test_signed_types_keep_their_sign_over_the_levels(
    name: str, photographs: list[Image.Image]
) -> None:
    measure = np.std if name == "contrast_change" else np.mean
    signs_seen = set()
    for seed in range(12):
        before = measure(np.asarray(photographs[1]))
        signs = {
            float(np.sign(measure(np.asarray(distort(photographs[1], name, level, seed))) - before))
            for level in LEVELS
        }
        assert len(signs) == 1
        signs_seen |= signs
    assert signs_seen == {"brighten": {1.0}, "darken": {-1.0}}.get(name, {-1.0, 1.0})


@pytest.mark.parametrize("name", DISTORTION_TYPES)
@pytest.mark.parametrize("size", [(8, 8), (8, 120), (131, 9)])
def test_small_and_narrow_pictures(name: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for level in LEVELS:
        result = distort(Image.fromarray(pixels), name, level)
        assert (result.size, result.mode) == (size, "RGB")


def test_wrong_arguments_name_the_choices(photographs: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="gaussian_blur.*contrast_change"):
        distort(photographs[0], "blurr", 1)
    with pytest.raises(ValueError, match="1, 2, 3, 4, 5"):
        distort(photographs[0], "jpeg", 6)
    with pytest.raises(ValueError, match="negative"):
        distort(photographs[0], "jpeg", 1, seed=-1)
    with pytest.raises(ValueError, match="7×20"):
        distort(Image.new("RGB", (7, 20)), "jpeg", 1)


def test_missing_kornia_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, photographs: list[Image.Image]
) -> None:
    real_import = builtins.__import__

    def without_kornia(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "kornia":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_kornia)
    with pytest.raises(ImportError, match=r"pip install pfd-iqa-hf\[train\]"):
        distort(photographs[0], "lens_blur", 2)
    assert distort(photographs[0], "jpeg", 2).size == (256, 256)  # Pillow is enough for the rest


def test_a_callers_autocast_changes_nothing(photograph: np.ndarray) -> None:
    picture = Image.fromarray(photograph)
    with torch.autocast("cpu", torch.bfloat16):
        inside = distort(picture, "color_diffusion", 3)
    assert inside.tobytes() == distort(picture, "color_diffusion", 3).tobytes()
