"""Losses over a batch that no single picture has: correlation, ranking, composition (18)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["composition_loss", "correlation_loss", "ranking_loss"]


def correlation_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 − PLCC of a batch.

    Args:
        scores: Predictions, (B,).
        labels: Opinion scores, (B,).

    Returns:
        A scalar from 0 (perfect) to 2; 1 for constants.
    """
    scores, labels = scores.float() - scores.float().mean(), labels.float() - labels.float().mean()
    norm = (scores.square().sum() * labels.square().sum()).clamp(min=1e-12).sqrt()
    return 1 - (scores * labels).sum() / norm


def ranking_loss(
    mild: torch.Tensor, strong: torch.Tensor, gap: torch.Tensor, margin: float = 0.25
) -> torch.Tensor:
    """The stronger degradation must score lower, by a margin that grows with the levels between.

    Args:
        mild: Logits of the milder degradation, (B,).
        strong: Logits of the stronger one, (B,).
        gap: Levels between, (B,), at least 1.
        margin: Wanted difference of the logits per level.
    """
    return F.softplus(4 * (margin * gap - (mild - strong))).mean() / 4


def composition_loss(
    mild: torch.Tensor, strong: torch.Tensor, mixed: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """(18): the map of a composition is the composition of the maps.

    Args:
        mild: Token values z_i of the milder view, (B, h, w).
        strong: Those of the stronger view.
        mixed: Those of the mixture.
        mask: Share of the stronger view in the mixture, (B, H, W), 0 to 1.
    """
    rows, columns = mixed.shape[-2:]
    share = F.adaptive_avg_pool2d(mask[:, None].float(), (rows, columns))[:, 0]  # (B, h, w)
    target = (share * strong + (1 - share) * mild).detach()
    return (mixed - target).square().mean()
