"""The map's own stage would move scores, touch other parts, or not learn where pictures are bad."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rated_pictures import pristine_ratings
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.training.quality_map import MapOptions, fit_map

OPTIONS = MapOptions(
    mixtures=40, rated=8, epochs=12, batch_size=12, learning_rate=3e-3, workers=0, size=32
)


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> list[Rating]:
    return pristine_ratings(tmp_path_factory.mktemp("photographs"))


def _model() -> PfdIqaForImageQualityAssessment:
    torch.manual_seed(0)
    return awake_model(tiny_config(num_inference_steps=2))


def test_token_values_learn_where_and_nothing_else_moves(ratings: list[Rating]) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines: list[str] = []
    result = fit_map(model, ratings, ratings, OPTIONS, lines.append)
    assert sum(line.startswith("epoch") for line in lines) == OPTIONS.epochs
    assert 0 <= result["before"] <= 1 and 0 <= result["after"] <= 1
    moved = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert moved == {"head.value_hidden.weight", "head.value_hidden.bias", "head.value.weight"}
    again = _model()
    assert fit_map(again, ratings, ratings, OPTIONS, lines.append) == result


def test_a_heavy_hold_keeps_the_scores(ratings: list[Rating]) -> None:
    moved = []
    for hold in (0.0, 300.0):
        options = MapOptions(**{**vars(OPTIONS), "hold": hold})
        moved.append(fit_map(_model(), ratings, ratings, options, lambda line: None)["moved"])
    assert moved[1] < moved[0] / 3


def test_it_runs_without_rated_pictures_and_with_added_ones(
    ratings: list[Rating], tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    options = MapOptions(**{**vars(OPTIONS), "epochs": 1, "mixed_precision": False})
    result = fit_map(_model(), ratings, [], options, print, [tmp_path / "red.png"])
    assert np.isfinite(result["moved"])
    with pytest.raises(ValueError, match="--pristine-score"):
        fit_map(_model(), [], ratings, options)
