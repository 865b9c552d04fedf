"""The deviation learns how wrong scores are, and scores stay."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf import PfdIqaForImageQualityAssessment, PfdIqaImageProcessor
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.training.uncertainty import fit_uncertainty, main


def _processor() -> PfdIqaImageProcessor:
    return PfdIqaImageProcessor(size={"height": 32, "width": 32}, short_side=64)


def _scores(model: PfdIqaForImageQualityAssessment, ratings: list[Rating]) -> torch.Tensor:
    pictures = [Image.open(rating.image).convert("RGB") for rating in ratings]
    with torch.no_grad():
        return model(_processor()(images=pictures, return_tensors="pt")["pixel_values"]).logits


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> list[Rating]:
    """Dark pictures whose scores are right within a point, bright ones that are off by thirty."""
    folder = tmp_path_factory.mktemp("rated")
    rated = []
    for number in range(60):
        random = np.random.default_rng(number)
        bright = number % 2
        values = (
            random.integers(150, 256, (40, 48, 3))
            if bright
            else random.integers(0, 90, (40, 48, 3))
        )
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{number:02}.png")
        rated.append(
            Rating(folder / f"{number:02}.png", 50.0, group="bright" if bright else "dark")
        )
    torch.manual_seed(0)
    scores = _scores(awake_model(tiny_config(num_inference_steps=2)), rated)
    wrong = [30.0 * (-1) ** (n // 2) if n % 2 else 1.0 for n in range(len(rated))]
    return [
        Rating(r.image, float(score) + error, group=r.group)
        for r, score, error in zip(rated, scores, wrong, strict=True)
    ]


def test_the_deviation_learns_and_scores_stay(ratings: list[Rating]) -> None:
    torch.manual_seed(0)
    model = awake_model(tiny_config(num_inference_steps=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines: list[str] = []
    found = fit_uncertainty(
        model, _processor(), ratings, epochs=80, learning_rate=0.02, report=lines.append
    )
    assert found["after"] < found["before"] and found["epoch"] > 0 and lines
    moved = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert moved and all(name.startswith("head.deviation") for name in moved)
    assert all(p.requires_grad for p in model.head.parameters())
    pictures = [Image.open(rating.image).convert("RGB") for rating in ratings]
    with torch.no_grad():
        output = model(_processor()(images=pictures, return_tensors="pt")["pixel_values"])
    bright = torch.tensor([rating.group == "bright" for rating in ratings])
    assert output.uncertainty[bright].mean() > 2 * output.uncertainty[~bright].mean()


def test_too_few_pictures_are_told(ratings: list[Rating]) -> None:
    model = awake_model(tiny_config())
    with pytest.raises(ValueError, match="39 pictures are too few"):
        fit_uncertainty(model, _processor(), ratings[:39])


def test_other_views_are_calibrated_and_weights_stay(
    ratings: list[Rating], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = awake_model(tiny_config(num_inference_steps=2))
    model.save_pretrained(tmp_path / "model")
    _processor().save_pretrained(tmp_path / "model")
    with (tmp_path / "rated.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *((r.image, r.mos) for r in ratings)])
    words = ["--dataset", str(tmp_path / "rated.csv"), "--score-range", "-200", "200"]
    words += ["--validation-share", "0.5", "--model", str(tmp_path / "model")]
    words += ["--output-dir", str(tmp_path / "out"), "--views", "thorough", "--calibrate-only"]
    main([*words, "--fp32"])
    assert "'pictures': 30" in capsys.readouterr().out
    shipped = PfdIqaForImageQualityAssessment.from_pretrained(tmp_path / "out")
    assert shipped.config.view_strategy == "thorough"
    assert set(shipped.config.interval_factors) == {"0.5", "0.8", "0.95"}
    assert PfdIqaImageProcessor.from_pretrained(tmp_path / "out").view_strategy == "thorough"
    for name, value in shipped.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().to(value)), name
