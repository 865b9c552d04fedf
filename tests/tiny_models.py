"""Tiny random models of every supported family, and folders as `save_pretrained` leaves them."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizer,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    SiglipModel,
)

from pfd_iqa_hf import PfdIqaConfig, PfdIqaForImageQualityAssessment

__all__ = [
    "BACKBONES",
    "SIDE",
    "TEXT_TOWERS",
    "awake_model",
    "save_backbone",
    "save_text_tower",
    "tiny_config",
    "training_inputs",
]

SIDE = 32
BACKBONES: dict[str, dict[str, Any]] = {
    "clip_vision_model": {"intermediate_size": 20, "projection_dim": 8},
    "dinov2": {},
    "siglip_vision_model": {"intermediate_size": 20},
    "vit": {"intermediate_size": 20},
}
TEXT_TOWERS: dict[str, dict[str, Any]] = {
    "clip_text_model": {"projection_dim": 14},
    "siglip_text_model": {"projection_size": 14},
    "bert": {},
}


def vision_fields(family: str) -> dict[str, Any]:
    """Fields of a backbone with 4 x 4 tokens of width 12 and two layers."""
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "model_type": family,
        "image_size": SIDE,
        "patch_size": 8,
        **sizes,
        **BACKBONES[family],
    }


def text_fields(family: str) -> dict[str, Any]:
    """Fields of a text tower of width 14."""
    return {
        "model_type": family,
        "hidden_size": 14,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "vocab_size": 99,
        **TEXT_TOWERS[family],
    }


def tiny_config(backbone: str = "dinov2", text: str = "bert", **fields: Any) -> PfdIqaConfig:
    """A whole configuration; `fields` replace those of `PfdIqaConfig`."""
    return PfdIqaConfig(
        **{
            "vision_config": vision_fields(backbone),
            "text_config": text_fields(text),
            "text_embed_dim": 14,
            "text_pooling": "mean" if text == "bert" else "projection",
            "feature_levels": [1, 2],
            "prior_rank": 6,
            "denoising_width": 8,
            "condition_heads": 2,
            "head_num_attention_heads": 2,
            **fields,
        }
    )


def awake_model(config: PfdIqaConfig | None = None) -> PfdIqaForImageQualityAssessment:
    """A random model without zero-initialised layers: every box moves the score."""
    torch.manual_seed(0)
    model = PfdIqaForImageQualityAssessment(config or tiny_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def training_inputs(rows: int = 4, tokens: int = 16, width: int = 8) -> dict[str, torch.Tensor]:
    """Everything that the whole loss of a batch needs."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "pixel_values": normal(rows, 3, SIDE, SIDE),
        "labels": torch.linspace(5, 95, rows),
        "token_mask": torch.rand((rows, 2, tokens), generator=generator) > 0.4,
        "latents": normal(rows, tokens, width),
        "timesteps": torch.randint(0, 401, (rows,), generator=generator),
        "diffusion_latents": normal(rows, tokens, width),
        "teacher_features": normal(rows, tokens, width),
        "teacher_distortion_probabilities": normal(rows, 12).softmax(-1),
        "teacher_level_probabilities": normal(rows, 5).softmax(-1),
    }


def save_backbone(family: str, folder: Path) -> Path:
    """A checkpoint as its users have it: of CLIP and SigLIP the pair, of the others the tower."""
    torch.manual_seed(1)
    if family in ("clip_vision_model", "siglip_vision_model"):
        pair = family.split("_")[0]
        _pair(pair).save_pretrained(folder)
    else:
        fields = vision_fields(family)
        AutoModel.from_config(AutoConfig.for_model(**fields)).save_pretrained(folder)
    return folder


def save_text_tower(family: str, folder: Path) -> Path:
    """A text tower and its tokenizer."""
    torch.manual_seed(2)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
    if family == "clip_text_model":
        fields = text_fields(family)
        fields.pop("model_type")
        tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
        vocabulary = {
            token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])
        }
        ends: dict[str, Any] = {"bos_token_id": len(tokens), "eos_token_id": len(tokens) + 1}
        tower = CLIPTextModelWithProjection(CLIPTextConfig(**fields, **ends))
        tower.save_pretrained(folder)
        CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
        return folder
    if family == "siglip_text_model":
        _pair("siglip").save_pretrained(folder)
    else:
        fields = text_fields(family)
        AutoModel.from_config(AutoConfig.for_model(**fields)).save_pretrained(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def _pair(family: str) -> Any:
    fields = {
        "vision_config": vision_fields(f"{family}_vision_model"),
        "text_config": text_fields(f"{family}_text_model"),
    }
    if family == "clip":
        fields["projection_dim"] = 14  # type: ignore[assignment]
    config = AutoConfig.for_model(family, **fields)
    return {"clip": CLIPModel, "siglip": SiglipModel}[family](config)
