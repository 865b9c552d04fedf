"""PDA, perceptual prompt aggregation (5): soft predictions weigh the prompts into a condition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["PromptAggregation", "centred_prompts"]


def centred_prompts(embeddings: torch.Tensor) -> torch.Tensor:
    """Prompt embeddings T (K, D_text): centred over the prompts, then of unit length.

    Prompts of one template are nearly parallel; uncentred, every mixture of them would be almost
    the same vector and the condition a constant.
    """
    embeddings = embeddings.float()
    return F.normalize(embeddings - embeddings.mean(dim=0, keepdim=True), dim=-1)


class PromptAggregation(nn.Module):
    """The condition c: one token per task, a mixture of its prompts.

    Args:
        text_width: Width D_text of the prompts.
        width: Width D' of the denoiser.
        source: `"both"`, `"distortion"`, `"quality"` or `"none"`: which tokens carry their prompts.
        weights: `"soft"` mixes by probability, `"hard"` takes the most probable prompt.
    """

    def __init__(self, text_width: int, width: int, source: str, weights: str) -> None:
        super().__init__()
        self.source = source
        self.weights = weights
        self.project = nn.Linear(text_width, width)
        self.task_embedding = nn.Parameter(torch.zeros(2, width))

    def initialize_parameters(self) -> None:
        """Start values; prompts have unit length, so a unit deviation keeps their scale."""
        init.normal_(self.project.weight, std=1.0)
        init.normal_(self.task_embedding, std=0.02)

    def forward(
        self,
        distortion_probabilities: torch.Tensor,
        quality_probabilities: torch.Tensor,
        distortion_prompts: torch.Tensor,
        quality_prompts: torch.Tensor,
    ) -> torch.Tensor:
        """Aggregate the prompts.

        Args:
            distortion_probabilities: p̂^d, (B, K_d).
            quality_probabilities: p̂^q, (B, K_q).
            distortion_prompts: T^d, (K_d, D_text).
            quality_prompts: T^q, (K_q, D_text).

        Returns:
            The condition c, (B, 2, D'): distortion token, quality token.
        """
        tokens = []
        for name, probabilities, prompts in (
            ("distortion", distortion_probabilities, distortion_prompts),
            ("quality", quality_probabilities, quality_prompts),
        ):
            if self.weights == "hard":
                probabilities = F.one_hot(probabilities.argmax(-1), probabilities.shape[-1])
            mixture = probabilities.to(prompts.dtype) @ prompts  # (5): (B, D_text)
            if self.source not in ("both", name):
                mixture = torch.zeros_like(mixture)
            tokens.append(mixture)
        stacked = torch.stack(tokens, dim=1).to(self.project.weight.dtype)  # (B, 2, D_text)
        return self.project(stacked) + self.task_embedding
