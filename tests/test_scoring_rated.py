"""A table of ratings is scored as the pipeline scores its pictures, in bounded memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pfd_iqa_hf import PictureError
from pfd_iqa_hf.data.table import Rating, RatingTable
from pfd_iqa_hf.scoring.rated import score_ratings


@pytest.fixture(scope="module")
def table(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> RatingTable:
    folder = tmp_path_factory.mktemp("rated")
    ratings = []
    for index in range(5):
        noise = np.random.default_rng(index).normal(0, 12 * index, photograph.shape)
        picture = Image.fromarray(np.clip(photograph + noise, 0, 255).astype(np.uint8))
        picture.save(folder / f"{index}.png")
        ratings.append(Rating(folder / f"{index}.png", 90.0 - 15 * index))
    return RatingTable("five", tuple(ratings))


def test_scores_are_the_pipelines_in_any_batch(tiny_pipeline: Any, table: RatingTable) -> None:
    model, processor = tiny_pipeline.model, tiny_pipeline.image_processor
    seen: list[tuple[int, int]] = []
    model.train()
    found = score_ratings(
        model, processor, table, batch_size=2, progress=lambda *counts: seen.append(counts)
    )
    assert model.training  # a validation must not end the training
    model.eval()
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert found.rows.tolist() == [0, 1, 2, 3, 4] and len(found) == 5
    assert found.level_probabilities.shape == (5, 5)
    assert found.distortion_probabilities is not None
    assert found.distortion_probabilities.shape == (5, 12)
    for row, rating in enumerate(table):
        expected = tiny_pipeline(str(rating.image))
        assert found.score[row] == pytest.approx(expected["score"], abs=1e-3)
        assert found.uncertainty[row] == pytest.approx(expected["uncertainty"], abs=1e-3)
    alone = score_ratings(model, processor, table, batch_size=1, device="cpu")
    np.testing.assert_allclose(alone.score, found.score, atol=1e-3)
    half = score_ratings(model, processor, table, dtype=torch.bfloat16)
    assert half.score.dtype == np.float64
    np.testing.assert_allclose(half.score, found.score, atol=5)


def test_a_broken_picture_is_named_or_skipped(
    tiny_pipeline: Any, table: RatingTable, tmp_path: Path
) -> None:
    model, processor = tiny_pipeline.model, tiny_pipeline.image_processor
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    torn = Rating(tmp_path / "torn.jpg", 50.0)
    mixed = RatingTable("mixed", (torn, *table[:2], torn, table[2]))
    with pytest.raises(PictureError, match="torn.jpg"):
        score_ratings(model, processor, mixed)
    found = score_ratings(model, processor, mixed, batch_size=2, skip_bad=True)
    assert found.rows.tolist() == [1, 2, 4]
    assert [error.source for error in found.skipped] == [str(torn.image)] * 2
    whole = score_ratings(model, processor, table)
    np.testing.assert_allclose(found.score, whole.score[:3], atol=1e-3)
    with pytest.raises(PictureError):  # a table of nothing but broken pictures
        score_ratings(model, processor, RatingTable("torn", (torn,)), skip_bad=True)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        score_ratings(model, processor, table, batch_size=0)


def test_no_more_than_some_batches_are_held(tiny_pipeline: Any, table: RatingTable) -> None:
    made = 0
    held: list[int] = []

    def processor(images: list[Path], **options: Any) -> Any:
        nonlocal made
        made += 1
        return tiny_pipeline.image_processor(images=images, **options)

    many = RatingTable("many", table.ratings * 4)
    score_ratings(
        tiny_pipeline.model,
        processor,
        many,
        batch_size=2,
        progress=lambda done, _: held.append(made - done),
    )
    assert made == 20 and max(held) <= 3
