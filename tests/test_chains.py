"""Chains of degradations: reproducible, of the same size, and worse with every level."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.metrics import structural_similarity

from pfd_iqa_hf.data.chains import _STEPS, CHAIN_STEPS, degrade_by_chain


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    found = [data.astronaut(), data.chelsea(), data.coffee()]
    return [Image.fromarray(values).resize((192, 160)) for values in found]


def _likeness(first: Image.Image, second: Image.Image) -> float:
    return float(structural_similarity(np.asarray(first), np.asarray(second), channel_axis=2))


def test_the_same_arguments_give_the_same_picture(photographs: list[Image.Image]) -> None:
    before = photographs[0].tobytes()
    for seed in range(6):
        first, second = (degrade_by_chain(photographs[0], 3, seed) for _ in range(2))
        assert first.tobytes() == second.tobytes()
        assert first.size == photographs[0].size
        assert first.tobytes() != before
    assert photographs[0].tobytes() == before


def test_stronger_chains_are_further_from_the_original(photographs: list[Image.Image]) -> None:
    right = total = 0
    for number, photograph in enumerate(photographs):
        for seed in range(8):
            likeness = [
                _likeness(photograph, degrade_by_chain(photograph, level, 10 * number + seed))
                for level in (1, 3, 5)
            ]
            right += likeness[0] > likeness[1] > likeness[2]
            total += 1
    assert right >= 0.9 * total


@pytest.mark.parametrize("name", CHAIN_STEPS)
def test_every_step_grows_with_its_strength(name: str, photographs: list[Image.Image]) -> None:
    for seed in range(3):
        likeness = []
        for strength in (0.0, 0.5, 1.0):
            generator = np.random.default_rng(seed)
            likeness.append(
                _likeness(photographs[0], _STEPS[name](photographs[0], strength, generator))
            )
        assert 1 > likeness[0] > likeness[1] > likeness[2]


def test_a_kind_can_be_kept_for_testing(photographs: list[Image.Image]) -> None:
    without = frozenset({"video_codec", "still_codec"})
    different = [
        degrade_by_chain(photographs[1], 4, seed, without).tobytes()
        != degrade_by_chain(photographs[1], 4, seed).tobytes()
        for seed in range(8)
    ]
    assert any(different)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 6}, "unknown level"),
        ({"level": 2, "seed": -1}, "negative"),
        ({"level": 2, "without": frozenset({"rust"})}, "no step 'rust'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: dict[str, object], message: str, photographs: list[Image.Image]
) -> None:
    with pytest.raises(ValueError, match=message):
        degrade_by_chain(photographs[0], **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 16"):
        degrade_by_chain(Image.new("RGB", (15, 40)), 1)
