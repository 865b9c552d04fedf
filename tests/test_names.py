"""The distortion task learns true names, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rated_pictures import pristine_ratings
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf import PfdIqaForImageQualityAssessment, PfdIqaImageProcessor
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.training.names import NamedPictures, NamesOptions, fit_names
from pfd_iqa_hf.training.samples import distortion_label

OPTIONS = NamesOptions(pictures=24, views=2, epochs=6, batch_size=8, learning_rate=0.02, workers=0)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> list[Rating]:
    return pristine_ratings(tmp_path_factory.mktemp("pristine"))


def _processor() -> PfdIqaImageProcessor:
    return PfdIqaImageProcessor(size={"height": 32, "width": 32}, short_side=64)


def _model() -> PfdIqaForImageQualityAssessment:
    torch.manual_seed(0)
    return awake_model(tiny_config(num_inference_steps=2))


def test_names_are_learnt_and_nothing_else_moves(pristine: list[Rating]) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = {name: p.requires_grad for name, p in model.named_parameters()}
    short = NamesOptions(**{**vars(OPTIONS), "epochs": 1})
    first = fit_names(_model(), _processor(), pristine, short, lambda line: None)
    lines: list[str] = []
    last = fit_names(model, _processor(), pristine, OPTIONS, lines.append)
    assert last["names"] < first["names"] and np.isfinite(last["moved"])
    assert sum(line.startswith("epoch") for line in lines) == OPTIONS.epochs
    moved = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert moved and all(".distortion_task." in name for name in moved)
    assert not any(".reconstruct." in name for name in moved)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == asked
    assert "student_feature" not in vars(model.pfd_iqa)


def test_holding_keeps_the_scores(pristine: list[Rating]) -> None:
    moved = {}
    for hold in (0.0, 100.0):
        options = NamesOptions(**{**vars(OPTIONS), "hold": hold})
        moved[hold] = fit_names(_model(), _processor(), pristine, options, lambda line: None)
    assert moved[100.0]["moved"] < moved[0.0]["moved"]


def test_every_picture_comes_from_its_index_alone(pristine: list[Rating]) -> None:
    names = tiny_config().distortion_names
    paths = [rating.image for rating in pristine]
    pictures = NamedPictures(paths, _processor(), names, NamesOptions(pictures=40, seed=3))
    drawn = [pictures[index] for index in range(len(pictures))]
    views, label = pictures[7]
    assert torch.equal(views, drawn[7][0]) and torch.equal(label, drawn[7][1])
    assert views.shape == (2, 3, 32, 32)
    labels = torch.stack([label for _, label in drawn])
    torch.testing.assert_close(labels.sum(-1), torch.ones(len(labels)))
    strong = (labels[:, 1:] > 0.25).sum(-1)  # names that a picture certainly has
    assert {0, 1, 2} == set(strong.tolist())


def test_added_photographs_are_degraded_too(pristine: list[Rating], tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    Image.new("RGB", (96, 64), "red").save(red)
    names = tiny_config().distortion_names
    paths = [rating.image for rating in pristine]
    options = NamesOptions(pictures=60, views=1, seed=3)
    without = NamedPictures(paths, _processor(), names, options)
    pictures = NamedPictures(paths, _processor(), names, options, added=[red])
    spread = [float(pictures[index][0].std(dim=(-1, -2)).max()) for index in range(60)]
    # The added one stays of one colour, but where noise comes on top.
    assert 6 <= sum(value < 0.1 for value in spread) <= 30
    assert min(float(without[index][0].std(dim=(-1, -2)).max()) for index in range(60)) > 0.1


def test_types_may_be_drawn_alike(pristine: list[Rating]) -> None:
    names = tiny_config().distortion_names
    paths = [rating.image for rating in pristine]
    shares = []
    for type_share in (0.0, 1.0):
        options = NamesOptions(pictures=150, views=1, seed=3, type_share=type_share)
        options = replace(options, composed_share=0.0)
        pictures = NamedPictures(paths, _processor(), names, options)
        labels = torch.stack([pictures[index][1] for index in range(150)])
        first = labels[:, 1:].argmax(-1) + 1  # the degradation, half hidden or not
        degraded = labels[:, 1:].max(-1).values > 0.1
        noise = first[degraded] == list(names).index("noise")
        shares.append(float(noise.float().mean()))
    assert shares[0] < 0.13 < shares[1]  # one group of eleven, four types of twenty-five


def test_light_varies_a_little_and_is_no_distortion(tmp_path: Path) -> None:
    file = tmp_path / "grey.png"
    Image.new("RGB", (96, 64), (120, 128, 136)).save(file)
    names = tiny_config().distortion_names
    pictures = {
        light: NamedPictures(
            [file], _processor(), names, NamesOptions(pictures=100, views=1, seed=3, light=light)
        )
        for light in (False, True)
    }
    clean = [index for index in range(100) if pictures[True][index][1][0] > 0.97]
    assert len(clean) > 3
    seen = {
        light: torch.stack([these[index][0].mean(dim=(0, 2, 3)) for index in clean])
        for light, these in pictures.items()
    }
    assert float(seen[False].std(dim=0).max()) < 1e-4
    moved = (seen[True] - seen[False]).abs() * 0.225 * 255  # in grey levels
    assert float(seen[True].std(dim=0).min()) > 0.01 and float(moved.max()) < 40


def test_a_mild_level_is_half_hidden() -> None:
    names = ["none", "noise", "blur"]
    assert distortion_label([], names).argmax() == 0
    mild, strong = (distortion_label([("blur", level)], names) for level in (1, 5))
    assert mild[0] > 0.35 and strong[2] > 0.9
    both = distortion_label([("noise", 4), ("blur", 4)], names)
    assert both[1] == both[2] > 0.45 > both[0]


def test_what_cannot_be_fitted_is_told(pristine: list[Rating]) -> None:
    plain = awake_model(tiny_config(prior_discovery=False, denoiser="none"))
    with pytest.raises(ValueError, match="names no distortions"):
        fit_names(plain, _processor(), pristine, OPTIONS)
    with pytest.raises(ValueError, match="--pristine-score"):
        fit_names(_model(), _processor(), [], OPTIONS)
