"""PDR, before denoising: prior fusion (6) and adaptive noise-level alignment (7)-(8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["NoiseAlignment", "PriorFusion", "matching_weight"]


class PriorFusion(nn.Module):
    """(6): the priors modulate the student feature.

    Args:
        width: Width D of feature and priors.
        rank: Inner width of the modulating network.
        form: `"film"` scales and shifts, `"add"` only shifts.
    """

    def __init__(self, width: int, rank: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(2 * width, rank)
        self.modulate = nn.Linear(rank, 2 * width if form == "film" else width)

    def initialize_parameters(self) -> None:
        """The last layer starts at zero: fusion begins as the identity."""
        init.zeros_(self.modulate.weight)
        init.zeros_(self.modulate.bias)

    def forward(
        self, feature: torch.Tensor, distortion_prior: torch.Tensor, quality_prior: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args: student feature and both priors, each (B, N, D).

        Returns:
            The fused feature F^f (B, N, D) and the modulation (B, N, 2·D or D).
        """
        priors = torch.cat([distortion_prior, quality_prior], dim=-1)  # (B, N, 2·D)
        modulation = self.modulate(F.gelu(self.hidden(priors)))
        if self.form == "add":
            return feature + modulation, modulation
        scale, shift = modulation.chunk(2, dim=-1)
        return torch.addcmul(feature + shift, scale, self.norm(feature)), modulation


class NoiseAlignment(nn.Module):
    """(7)-(8): mixes noise into the feature until its level is the one where denoising starts.

    The weight γ is predicted from the feature itself, as in DiffKD's adapter.

    Args:
        width: Width D of the fused feature.
        target_width: Width D' of the denoised feature.
        rank: Inner width of the bottleneck.
        mix: Whether to mix noise in; off, the projected feature goes straight to the denoiser.
    """

    def __init__(self, width: int, target_width: int, rank: int, mix: bool) -> None:
        super().__init__()
        self.mix = mix
        self.project = nn.Linear(width, target_width)
        if mix:
            self.bottleneck = nn.Linear(width, rank)
            self.weigh = nn.Linear(rank, 2)

    def forward(
        self, feature: torch.Tensor, latents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Align the feature's noise level.

        Args:
            feature: F^f, (B, N, D).
            latents: ε, standard normal, (B or 1, N, D').

        Returns:
            F̂_T (B, N, D'), the clean projection LN(proj F^f) (B, N, D') and γ (B,).
        """
        projected = self.project(feature).float()
        clean = F.layer_norm(projected, projected.shape[-1:])  # unit variance
        if not self.mix:
            return clean, clean, clean.new_ones(clean.shape[0])
        pooled = F.gelu(self.bottleneck(feature)).mean(dim=1)  # (B, r)
        gamma = self.weigh(pooled).float().softmax(-1)[:, 0]  # (7): (B,)
        weight = gamma[:, None, None]
        return torch.lerp(latents, clean, weight), clean, gamma  # (8)


def matching_weight(residual: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    """The γ at which F̂_T has the signal-to-noise ratio that denoising starts from.

    With F = F_0^t + r and Var r = ρ², γF + (1−γ)ε holds the clean feature at γ and noise of
    variance γ²ρ² + (1−γ)²; their ratio is that of ᾱ where ((1−γ)/γ)² = (1−ᾱ)/ᾱ − ρ².

    Args:
        residual: ρ², mean squared difference of LN proj F^f from F_0^t, any shape.
        alpha_bar: ᾱ of the level at which denoising starts.

    Returns:
        γ in (0, 1]; 1 where the feature is noisier than that level already.
    """
    missing = ((1 - alpha_bar) / alpha_bar - residual).clamp(min=0.0)
    return 1 / (1 + missing.sqrt())
