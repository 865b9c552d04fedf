"""A model built on someone's own pair of checkpoints would not use them."""

from pathlib import Path

import pytest
import torch
from tiny_models import BACKBONES, SIDE, TEXT_TOWERS, save_backbone, save_text_tower
from transformers import AutoModel, AutoTokenizer, CLIPTextModelWithProjection

from pfd_iqa_hf import PfdIqaForImageQualityAssessment

FIELDS = {
    "prior_rank": 6,
    "denoising_width": 8,
    "condition_heads": 2,
    "head_num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    for name in (*BACKBONES, *TEXT_TOWERS):
        (root / name).mkdir()
    return {
        **{name: save_backbone(name, root / name) for name in BACKBONES},
        **{name: save_text_tower(name, root / name) for name in TEXT_TOWERS},
    }


def _build(folders: dict[str, Path], vision: str, text: str) -> PfdIqaForImageQualityAssessment:
    torch.manual_seed(0)
    return PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
        str(folders[vision]), str(folders[text]), config=FIELDS
    )


@pytest.mark.parametrize("text", TEXT_TOWERS)
@pytest.mark.parametrize("vision", BACKBONES)
def test_any_pair_builds_scores_and_is_saved(
    vision: str, text: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = _build(folders, vision, text)
    assert model.config.vision_config.model_type == vision
    assert model.config.text_config.model_type == text
    assert model.config.text_pooling == ("mean" if text == "bert" else "projection")

    # The backbone is the one of the folder, tensor by tensor.
    original = AutoModel.from_pretrained(folders[vision])
    if vision in ("clip_vision_model", "siglip_vision_model"):
        original = original.vision_model
    saved = {name.removeprefix("vision_model."): t for name, t in original.state_dict().items()}
    ours = model.vision_model.state_dict()
    for name, tensor in ours.items():
        if "mask_token" not in name:
            assert torch.equal(tensor, saved[name.removeprefix("vision_model.")]), name

    views = torch.randn(2, 1, 3, SIDE, SIDE)
    model.save_pretrained(tmp_path)
    loaded, info = PfdIqaForImageQualityAssessment.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(model(views).logits, loaded(views).logits)
    assert torch.equal(loaded.pfd_iqa.distortion_prompts, model.pfd_iqa.distortion_prompts)
    for folder in (folders[vision], folders[text]):
        assert str(folder) not in (tmp_path / "config.json").read_text()


def test_prompts_are_those_of_the_text_tower(folders: dict[str, Path]) -> None:
    folder = folders["clip_text_model"]
    model = _build(folders, "dinov2", "clip_text_model")
    tower = CLIPTextModelWithProjection.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():  # one prompt at a time: padding must not matter
        rows = [
            tower(**tokenizer([f"a photo with {name} quality"], return_tensors="pt")).text_embeds[0]
            for name in ("bad", "poor", "fair", "good", "excellent")
        ]
    embeddings = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    centred = embeddings - embeddings.mean(0)
    expected = torch.nn.functional.normalize(centred, dim=-1)
    assert torch.allclose(model.pfd_iqa.quality_prompts, expected, atol=1e-4)


def test_mean_pooling_ignores_padding(folders: dict[str, Path]) -> None:
    folder = folders["bert"]
    model = _build(folders, "dinov2", "bert")
    tower, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [
            tower(**tokenizer([prompt], return_tensors="pt")).last_hidden_state[0].mean(0)
            for prompt in model.config.distortion_prompts
        ]
    embeddings = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    expected = torch.nn.functional.normalize(embeddings - embeddings.mean(0), dim=-1)
    assert torch.allclose(model.pfd_iqa.distortion_prompts, expected, atol=1e-4)


def test_new_prompts_change_the_buffers_and_the_configuration(folders: dict[str, Path]) -> None:
    model = _build(folders, "dinov2", "bert")
    levels = model.pfd_iqa.quality_prompts.clone()
    distortions = model.pfd_iqa.distortion_prompts.clone()
    model.set_prompts(str(folders["bert"]), level_template="the {} picture")
    assert model.config.level_prompts[0] == "the bad picture"
    assert not torch.allclose(model.pfd_iqa.quality_prompts, levels)
    assert torch.allclose(model.pfd_iqa.distortion_prompts, distortions, atol=1e-5)


def test_prompts_that_do_not_fit_leave_the_model_as_it_was(folders: dict[str, Path]) -> None:
    model = _build(folders, "dinov2", "bert")
    before = model.pfd_iqa.quality_prompts.clone()
    for fields, message in (
        ({"level_names": ["bad", "good"]}, "level_names.*5.*2"),
        ({"distortion_names": ["none"]}, "distortion_names.*12.*1"),
        ({"level_names": ["bad"] * 5}, "level_names"),
        ({"level_template": "no place"}, "level_template"),
        ({"levels": ["a"]}, "levels"),
    ):
        with pytest.raises(Exception, match=message):
            model.set_prompts(str(folders["bert"]), **fields)
    with pytest.raises(ValueError, match="text_embed_dim"):
        wide = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
            str(folders["dinov2"]), str(folders["bert"]), config=FIELDS
        )
        wide.pfd_iqa.quality_prompts = torch.zeros(5, 99)
        wide.set_prompts(str(folders["bert"]))
    assert model.config.level_names == ["bad", "poor", "fair", "good", "excellent"]
    assert model.config.level_template == "a photo with {} quality"
    assert torch.equal(model.pfd_iqa.quality_prompts, before)


def test_the_backbone_of_a_trained_model_serves_again(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    first = _build(folders, "dinov2", "bert")
    first.save_pretrained(tmp_path)
    second = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
        str(tmp_path), str(folders["bert"]), config=FIELDS
    )
    assert second.config.vision_config.to_dict() == first.config.vision_config.to_dict()
    ours = second.vision_model.state_dict()
    for name, tensor in first.vision_model.state_dict().items():
        assert torch.equal(tensor, ours[name]), name
