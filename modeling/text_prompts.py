"""Encode the prompts of both tasks with any text tower of transformers; needed once per model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

__all__ = ["encode_prompts", "load_text_tower"]


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
