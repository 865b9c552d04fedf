"""The loss of one batch: the method's (4), (11), (13) and those of the head, (14) and (15)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .feature_unet import noise_from_velocity
from .noise_alignment import matching_weight
from .outputs import PfdIqaFeatures
from .prior_discovery import pseudo_label_divergence

__all__ = ["method_losses", "opinion_losses"]


def method_losses(
    model: Any,
    features: PfdIqaFeatures,
    grid: tuple[int, int],
    *,
    clean: torch.Tensor | None = None,
    token_mask: torch.Tensor | None,
    timesteps: torch.Tensor | None,
    diffusion_latents: torch.Tensor | None,
    teacher_features: torch.Tensor | None,
    teacher_distortion_probabilities: torch.Tensor | None,
    teacher_level_probabilities: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Losses of PDA and PDR: those that the given targets allow.

    Args:
        model: The `PfdIqaModel` that made `features`.
        features: What it returned so far.
        grid: Rows and columns of the tokens.
        clean: LN proj F^f of (8), (R, N, D').
        token_mask: (1), True keeps a token, (R, 2, N).
        timesteps: t of (10), (R,).
        diffusion_latents: ε of (10), (R, N, D').
        teacher_features: F_0^t of (9), (R, N, D').
        teacher_distortion_probabilities: p^d, (R, K_d).
        teacher_level_probabilities: p^q, (R, K_q).

    Returns:
        Unweighted scalars by name: `kl`, `reconstruction`, `alignment`, `feature`,
        `diffusion`.
    """
    losses: dict[str, torch.Tensor] = {}
    for logits, labels in (
        (features.distortion_logits, teacher_distortion_probabilities),
        (features.quality_logits, teacher_level_probabilities),
    ):
        if logits is not None and labels is not None:
            divergence = pseudo_label_divergence(logits, labels)  # (4)
            losses["kl"] = losses["kl"] + divergence if "kl" in losses else divergence
    if teacher_features is None:
        return losses
    target = teacher_features.detach().float()
    if model.has_priors and token_mask is not None:
        kept = token_mask.unbind(1)
        losses["reconstruction"] = model.distortion_task.reconstruction_loss(
            features.distortion_prior, target, kept[0]
        ) + model.quality_task.reconstruction_loss(features.quality_prior, target, kept[1])
    if model.has_denoiser and features.refined is not None:
        weight = features.alignment_weight
        if clean is not None and weight is not None and model.config.noise_alignment == "mix":
            residual = (clean.detach() - target).square().mean(dim=(1, 2))  # ρ², (R,)
            start = model.scheduler.alpha_bar(model.config.start_timestep)
            losses["alignment"] = (weight - matching_weight(residual, start)).square().mean()
        losses["feature"] = (features.refined - target).square().mean()  # (13)
        if timesteps is not None and diffusion_latents is not None:
            noisy = model.scheduler.add_noise(target, diffusion_latents, timesteps)  # (10)
            folded = model.denoiser.fold(features.condition)
            velocity = model.denoiser(noisy, timesteps, grid, folded)
            alpha_bar = model.scheduler.alpha_bars(timesteps)[:, None, None]
            predicted = noise_from_velocity(velocity, noisy, alpha_bar)
            losses["diffusion"] = (predicted - diffusion_latents).square().mean()  # (11)
    return losses


def opinion_losses(
    labels: torch.Tensor,
    view_scores: torch.Tensor,
    deviations: torch.Tensor,
    score_range: tuple[float, float],
) -> dict[str, torch.Tensor]:
    """Losses against opinion scores; every view answers for its picture's score.

    Args:
        labels: Opinion scores in score points, (B,); NaN marks a picture without one.
        view_scores: μ_v in score points, (B, V).
        deviations: σ_v in score points, (B, V).
        score_range: Lowest and highest score.

    Returns:
        `regression`, SmoothL1 of scores mapped to 0..1, and `deviation`, L_σ of (15).
    """
    low, high = score_range
    labels = labels.to(view_scores.dtype)
    known = torch.isfinite(labels)[:, None].expand_as(view_scores)
    # NaN must not meet the scores: its gradient would be NaN even where `known` leaves it out.
    target = torch.where(known, labels[:, None], low)  # (B, V)
    count = known.sum().clamp(min=1)
    error = F.smooth_l1_loss(
        (view_scores - low) / (high - low),
        (target - low) / (high - low),
        beta=0.1,
        reduction="none",
    )
    likelihood = F.gaussian_nll_loss(
        view_scores.detach(), target, deviations.square(), reduction="none"
    )
    return {
        "regression": torch.where(known, error, 0.0).sum() / count,
        "deviation": torch.where(known, likelihood, 0.0).sum() / count,
    }
