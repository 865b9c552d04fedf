"""PDA, prior discovery: two auxiliary tasks find what their prompts speak of, equations (1)-(4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["PriorDiscovery", "PriorGenerator", "pseudo_label_divergence"]


class PriorGenerator(nn.Module):
    """Generator G of (2): rebuilds a task's prior feature from a partly masked student feature.

    Two layers on the token grid, of low rank and with depthwise kernels: a full 3×3 convolution at
    the width of the student costs more than the whole of PDA may.

    Args:
        width: Width D of the student feature.
        rank: Inner width.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.align = nn.Linear(width, rank)
        self.mask_token = nn.Parameter(torch.zeros(rank))
        self.spread = nn.Conv2d(rank, rank, kernel_size=5, padding=2, groups=rank)
        self.hidden = nn.Linear(rank, rank)
        self.generate = nn.Linear(rank, width)

    def initialize_parameters(self) -> None:
        """Start value of the mask token; layers follow the model's common rule."""
        init.normal_(self.mask_token, std=0.02)

    def forward(
        self, feature: torch.Tensor, grid: tuple[int, int], kept: torch.Tensor | None
    ) -> torch.Tensor:
        """Args: feature (B, N, D), its token grid (rows, columns), kept tokens (B, N) or None.

        Returns:
            The prior feature F̂, shape (B, N, D).
        """
        hidden = self.align(feature)  # (B, N, r)
        if kept is not None:
            hidden = torch.where(kept[..., None], hidden, self.mask_token.to(hidden.dtype))
        image = hidden.transpose(1, 2).unflatten(2, grid)  # (B, r, rows, columns)
        spread = F.gelu(self.spread(image)).flatten(2).transpose(1, 2)  # (B, N, r)
        hidden = F.gelu(self.hidden(hidden + spread))
        return self.generate(hidden)


class PriorDiscovery(nn.Module):
    """One auxiliary task of PDA: its prior feature and its soft prediction over the prompts.

    Args:
        width: Width D of the student feature.
        rank: Inner width of the generator.
        text_width: Width D_text of the prompt embeddings.
        target_width: Width D' of the teacher feature that masked tokens are compared with.
        temperature: First value of the learnt temperature τ.
    """

    def __init__(
        self, width: int, rank: int, text_width: int, target_width: int, temperature: float
    ) -> None:
        super().__init__()
        self.first_temperature = temperature
        self.generator = PriorGenerator(width, rank)
        self.project = nn.Linear(width, text_width)  # P of (3)
        self.reconstruct = nn.Linear(width, target_width)  # R of (4)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def initialize_parameters(self) -> None:
        """Start value of the temperature."""
        init.constant_(self.log_temperature, math.log(self.first_temperature))

    def forward(
        self,
        feature: torch.Tensor,
        grid: tuple[int, int],
        prompts: torch.Tensor,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Discover the prior and compare it with the prompts.

        Args:
            feature: Student feature F^s, (B, N, D).
            grid: Rows and columns of the tokens.
            prompts: Centred, normalised prompt embeddings T, (K, D_text).
            kept: True where a token is kept (1), (B, N); None keeps all, as at test time.

        Returns:
            The prior feature F̂ (B, N, D) and the logits of p̂ (B, K).
        """
        prior = self.generator(feature, grid, kept)  # (2)
        pooled = F.normalize(self.project(prior.mean(dim=1)).float(), dim=-1)  # (B, D_text)
        logits = pooled @ prompts.float().T / self.log_temperature.float().exp()  # (3): (B, K)
        return prior, logits

    def reconstruction_loss(
        self, prior: torch.Tensor, target: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """L_rec of (4): mean squared error to the teacher feature on the masked tokens.

        Each view's error is averaged over its own masked tokens, and the views' are averaged: a
        mean over all masked tokens would make a view's weight depend on the rest of its batch.

        Args:
            prior: F̂, (B, N, D).
            target: F_0^t, (B, N, D').
            kept: True where a token was kept, (B, N).
        """
        error = (self.reconstruct(prior).float() - target.float()).square().mean(dim=-1)  # (B, N)
        masked = (~kept).float()
        return ((error * masked).sum(dim=1) / masked.sum(dim=1).clamp(min=1.0)).mean()


def pseudo_label_divergence(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L_KL of (4) for one task: KL(p ‖ p̂), averaged over the batch.

    Args:
        logits: Student's logits of p̂, (B, K).
        target: Teacher's soft pseudo-label p, (B, K), rows sum to 1.
    """
    return F.kl_div(logits.float().log_softmax(-1), target.float(), reduction="batchmean")
