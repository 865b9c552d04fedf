"""The mean of several backbones under the first one's head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.average_backbones import average_backbones, main


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two checkpoints and the backbone of a third."""
    model = awake_model()
    for name in ("first", "second", "third"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model.save_pretrained(tmp_path / name)
    third = PfdIqaForImageQualityAssessment.from_pretrained(tmp_path / "third")
    third.vision_model.save_pretrained(tmp_path / "backbone")
    return [str(tmp_path / name) for name in ("first", "second", "backbone")]


def test_backbones_are_averaged_and_the_head_is_the_first_ones(
    folders: list[str], tmp_path: Path
) -> None:
    weights = ("1", "2", "5")
    named = [f"{folder}={weight}" for folder, weight in zip(folders, weights, strict=True)]
    main([*named, "--output-dir", str(tmp_path / "mean")])
    load = PfdIqaForImageQualityAssessment.from_pretrained
    mean, first, second, third = (
        load(tmp_path / name).state_dict() for name in ("mean", "first", "second", "third")
    )
    for name, value in mean.items():
        wanted = first[name]
        if ".vision_model." in name:
            wanted = (first[name] + 2 * second[name] + 5 * third[name]) / 8
        torch.testing.assert_close(value, wanted, atol=2e-3, rtol=2e-3)  # stored in half precision
    name = "pfd_iqa.vision_model.encoder.layer.0.mlp.fc1.weight"
    assert not torch.allclose(mean[name], first[name], atol=0.1), "the three differ"


def test_whole_models_are_averaged(folders: list[str], tmp_path: Path) -> None:
    main([f"{folders[0]}=1", f"{folders[1]}=3", "--whole", "--output-dir", str(tmp_path / "mean")])
    load = PfdIqaForImageQualityAssessment.from_pretrained
    mean, first, second = (
        load(tmp_path / name).state_dict() for name in ("mean", "first", "second")
    )
    for name, value in mean.items():
        wanted = (first[name] + 3 * second[name]) / 4
        torch.testing.assert_close(value, wanted, atol=4e-3, rtol=4e-3)
    with pytest.raises(OSError, match="nowhere"):
        average_backbones([(folders[0], 1.0), (str(tmp_path / "nowhere"), 1.0)], whole=True)


def test_unusable_folders_are_named(folders: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weight of .*second is 0"):
        average_backbones([(folders[0], 1.0), (folders[1], 0.0)])
    awake_model(tiny_config("siglip_vision_model")).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="other is not of the kind"):
        average_backbones([(folders[0], 1.0), (str(tmp_path / "other"), 1.0)])
    with pytest.raises(SystemExit):
        main([f"{folders[0]}=much", "--output-dir", str(tmp_path / "out")])
