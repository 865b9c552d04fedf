"""Encode the prompts of both tasks with any text tower of transformers; needed once per model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

from .prompt_aggregation import centred_prompts

__all__ = ["check_prompt_fields", "encode_prompts", "load_text_tower", "prompt_embeddings"]

_PROMPT_FIELDS = (
    "distortion_names",
    "distortion_template",
    "pristine_prompt",
    "level_names",
    "level_template",
)


def load_text_tower(checkpoint: str, **kwargs: Any) -> tuple[Any, Any, str]:
    """Load a text tower and its tokenizer from a folder or a Hub id.

    Args:
        checkpoint: A CLIP or SigLIP pair (its text half is taken) or a BERT-like encoder.
        **kwargs: Passed to `from_pretrained`, e.g. `revision`.

    Returns:
        The tower, its tokenizer and the pooling that fits: `"projection"` for CLIP and SigLIP,
        whose pooled output is trained to be compared, `"mean"` for the rest.
    """
    config = AutoConfig.from_pretrained(checkpoint, **kwargs)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, **kwargs)
    if config.model_type in ("clip", "clip_text_model"):
        tower = CLIPTextModelWithProjection.from_pretrained(checkpoint, **kwargs)
        return tower.eval(), tokenizer, "projection"
    tower = AutoModel.from_pretrained(checkpoint, **kwargs)
    if config.model_type in ("siglip", "siglip2"):
        tower = tower.text_model
    pooling = "projection" if "siglip" in config.model_type else "mean"
    return tower.eval(), tokenizer, pooling


@torch.no_grad()
def encode_prompts(tower: Any, tokenizer: Any, prompts: list[str], pooling: str) -> torch.Tensor:
    """Embed prompts.

    Args:
        tower: Text encoder of transformers.
        tokenizer: Its tokenizer.
        prompts: K texts.
        pooling: `"projection"` or `"mean"`, see `PfdIqaConfig.text_pooling`.

    Returns:
        Embeddings of unit length, (K, D_text), fp32.
    """
    # SigLIP was trained on texts padded to its full length; CLIP and BERT mask their padding.
    fixed = "siglip" in tower.config.model_type
    padding = {"padding": "max_length", "max_length": tower.config.max_position_embeddings}
    batch = tokenizer(
        prompts, return_tensors="pt", truncation=True, **(padding if fixed else {"padding": True})
    )
    output = tower(
        **{
            key: batch[key]
            for key in ("input_ids", "attention_mask")
            if key in batch and not (fixed and key == "attention_mask")
        }
    )
    if pooling == "projection":
        embeddings = getattr(output, "text_embeds", None)
        if embeddings is None:
            embeddings = output.pooler_output
    else:
        mask = batch["attention_mask"][..., None].float()
        embeddings = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    return F.normalize(embeddings.float(), dim=-1)


def prompt_embeddings(
    tower: Any, tokenizer: Any, prompts: list[str], pooling: str, width: int
) -> torch.Tensor:
    """Embeddings as a model keeps them: centred over the prompts, of unit length.

    Args:
        tower: As for `encode_prompts`, and so the next three.
        tokenizer: Its tokenizer.
        prompts: K texts.
        pooling: `"projection"` or `"mean"`.
        width: D_text that the model was built for.

    Returns:
        T^m, (K, D_text), fp32.

    Raises:
        ValueError: the tower gives another width.
    """
    embeddings = encode_prompts(tower, tokenizer, prompts, pooling)
    if embeddings.shape[-1] != width:
        raise ValueError(
            f"set_prompts: the text tower gives {embeddings.shape[-1]} numbers a prompt, the model "
            f"was built for {width} ('text_embed_dim')"
        )
    return centred_prompts(embeddings)


def check_prompt_fields(config: Any, fields: Mapping[str, Any]) -> None:
    """Refuse fields that are no prompts, and lists of names of another length.

    Raises:
        ValueError: names the field.
    """
    for key, value in fields.items():
        if key not in _PROMPT_FIELDS:
            raise ValueError(f"set_prompts: '{key}' is no prompt field")
        if key.endswith("_names") and len(value) != len(getattr(config, key)):
            raise ValueError(
                f"set_prompts: '{key}' needs {len(getattr(config, key))} names, got "
                f"{len(value)}; build a new model for another number"
            )
