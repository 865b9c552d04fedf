"""Scores known by construction: of degraded photographs, and of views that show nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data

from pfd_iqa_hf.data.pseudo_scores import (
    gradient_similarity_deviation,
    meaningless_picture,
    pseudo_score,
)
from pfd_iqa_hf.training.losses import known_score_loss
from pfd_iqa_hf.training.samples import degraded_triple


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((224, 224))


@pytest.fixture(scope="module")
def photograph_file(photograph: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "astronaut.png"
    photograph.resize((300, 300)).save(path)
    return path


def test_the_measure_grows_with_the_damage(photograph: Image.Image) -> None:
    blurred = [photograph.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2, 4, 8)]
    found = [gradient_similarity_deviation(photograph, picture) for picture in blurred]
    assert gradient_similarity_deviation(photograph, photograph) == 0
    assert found == sorted(found) and 0.02 < found[0] and found[-1] < 0.35
    with pytest.raises(ValueError, match="cannot be compared"):
        gradient_similarity_deviation(photograph, photograph.resize((64, 64)))


def test_the_score_falls_from_the_photographs_own(photograph: Image.Image) -> None:
    assert pseudo_score(81, photograph, photograph) == 81
    ruined = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8))
    assert 0 < pseudo_score(81, photograph, ruined) < 25
    assert pseudo_score(2, photograph, ruined) == 2, "never above its own, never below the worst"


def test_meaningless_pictures_are_many_and_seeded() -> None:
    made = [meaningless_picture(np.random.default_rng(seed), 64) for seed in range(40)]
    again = [meaningless_picture(np.random.default_rng(seed), 64) for seed in range(40)]
    assert [picture.tobytes() for picture in made] == [picture.tobytes() for picture in again]
    assert {(picture.size, picture.mode) for picture in made} == {((64, 64), "RGB")}
    deviations = [np.asarray(picture).std((0, 1)).max() for picture in made]
    assert min(deviations) == 0 and max(deviations) > 60


def test_triples_carry_scores_where_they_are_known(photograph_file: Path) -> None:
    def triple(**shares: Any) -> list[tuple[float, float]]:
        return [
            degraded_triple(
                photograph_file, np.random.default_rng(seed), 64, score=80.0, **shares
            ).scores
            for seed in range(12)
        ]

    assert np.isnan(triple()).all(), "one of the 25 types: the measure does not see them all"
    chained = np.array(triple(chain_share=1.0))
    assert np.isfinite(chained).all() and chained.max() <= 80
    assert (chained[:, 1] <= chained[:, 0]).all() and chained[:, 1].min() < 60
    assert triple(meaningless_share=1.0) == [(80.0, 3.0)] * 12


def test_the_loss_leaves_unknown_scores_out() -> None:
    logits = torch.tensor([0.0, 3.0, -1.0], requires_grad=True)
    unknown = torch.tensor([0.5, torch.nan, torch.nan])
    assert known_score_loss(logits, unknown) == 0
    known_score_loss(logits, torch.tensor([0.9, torch.nan, 0.1])).backward()
    assert logits.grad is not None
    assert logits.grad[0] < 0 and logits.grad[1] == 0 and logits.grad[2] > 0
    assert known_score_loss(logits, torch.full((3,), torch.nan)) == 0
