"""What a score would be without one distortion: its weight is taken out of the aggregation (5)."""

from __future__ import annotations

from typing import Any

import torch

from .outputs import PfdIqaFeatures

__all__ = ["distortion_costs", "view_logits_without"]


def view_logits_without(
    model: Any,
    features: PfdIqaFeatures,
    grid: tuple[int, int],
    removed: torch.Tensor,
    num_inference_steps: int | None = None,
) -> torch.Tensor:
    """z of views whose condition does not name some distortions.

    The other distortions' weights are scaled up to a sum of one; denoising and head run again, from
    the same aligned feature.

    Args:
        model: A `PfdIqaForImageQualityAssessment` with priors and denoiser.
        features: What its `PfdIqaModel` returned for the R views.
        grid: Rows and columns of the tokens.
        removed: True for the distortions to take out, (R, K_d) or (1, K_d).
        num_inference_steps: Steps; None takes the configured number.

    Returns:
        Logits before the sigmoid, (R,).
    """
    base = model.pfd_iqa
    distortion, quality, class_token = _needed(features)
    kept = distortion.float().softmax(-1).masked_fill(removed, 0.0)
    condition = base.aggregation(
        kept / kept.sum(-1, keepdim=True).clamp_min(1e-6),
        quality.float().softmax(-1),
        base.distortion_prompts,
        base.quality_prompts,
    )
    refined = base.denoise(features.aligned, grid, condition, num_inference_steps)
    head_type = model.head.bias.dtype
    query = None if model.head.class_query is None else class_token.to(head_type)
    logit: torch.Tensor = model.head(refined.to(head_type), query).logit
    return logit


def distortion_costs(
    model: Any,
    features: PfdIqaFeatures,
    grid: tuple[int, int],
    score: torch.Tensor,
    num_inference_steps: int | None = None,
) -> torch.Tensor:
    """Points that a picture would gain without each distortion.

    Args:
        model: A `PfdIqaForImageQualityAssessment` with priors and denoiser.
        features: What its `PfdIqaModel` returned for the R = B·V views.
        grid: Rows and columns of the tokens.
        score: μ, (B,).
        num_inference_steps: Steps; None takes the configured number.

    Returns:
        Score without the distortion minus score, (B, K_d); 0 for the first, which is `none`.
    """
    low, high = model.config.score_range
    pictures = len(score)
    count = len(model.config.distortion_names)
    costs = score.new_zeros(pictures, count)
    for place in range(1, count):
        removed = torch.zeros(1, count, dtype=torch.bool, device=score.device)
        removed[0, place] = True
        logits = view_logits_without(model, features, grid, removed, num_inference_steps)
        without = low + (high - low) * logits.unflatten(0, (pictures, -1)).sigmoid().mean(dim=1)
        costs[:, place] = without - score
    return costs


def _needed(features: PfdIqaFeatures) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = features.distortion_logits, features.quality_logits, features.class_token
    if found[0] is None or found[1] is None or found[2] is None:
        raise ValueError("a model without priors has no condition that a distortion could leave")
    return found[0], found[1], found[2]
