"""Load a vision and a text checkpoint, and tell the configuration of a model built on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModel, CLIPVisionModel, SiglipVisionModel

from .text_prompts import encode_prompts, load_text_tower

__all__ = ["load_pair"]

_VISION_HALVES: dict[str, Any] = {"clip": CLIPVisionModel, "siglip": SiglipVisionModel}


def load_pair(
    vision: str, text: str, config: Mapping[str, Any], **kwargs: Any
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Load both towers.

    Args:
        vision: Folder or Hub id of the backbone; of a CLIP or SigLIP pair the image half, of a
            PFD-IQA checkpoint its backbone.
        text: Folder or Hub id of the text tower; of a pair the text half.
        config: Fields of `PfdIqaConfig` that differ from the defaults.
        **kwargs: Passed to every `from_pretrained`, e.g. `revision`.

    Returns:
        The backbone, the text tower, its tokenizer, and all fields of the configuration.
    """
    vision_type = AutoConfig.from_pretrained(vision, **kwargs).model_type
    backbone = _VISION_HALVES.get(vision_type, AutoModel).from_pretrained(vision, **kwargs)
    if vision_type == "pfd_iqa":
        backbone = backbone.vision_model
    tower, tokenizer, pooling = load_text_tower(text, **kwargs)
    fields: dict[str, Any] = dict(config)
    fields.setdefault("text_pooling", pooling)
    layers = backbone.config.num_hidden_layers
    # Of twelve layers 4, 8, 10 and 12; of others the ones at the same depth.
    levels = sorted({-(-layers * share // 12) for share in (4, 8, 10, 12)})
    fields.setdefault("feature_levels", levels)
    probe = encode_prompts(tower, tokenizer, ["a photo"], fields["text_pooling"])
    fields |= {
        "vision_config": backbone.config.to_dict(),
        "text_config": tower.config.to_dict(),
        "text_embed_dim": probe.shape[-1],
    }
    return backbone, tower, tokenizer, fields
