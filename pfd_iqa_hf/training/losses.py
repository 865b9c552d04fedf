"""Losses over a batch that no single picture has: correlation, ranking, composition (18)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = [
    "composition_loss",
    "correlation_loss",
    "counterfactual_loss",
    "known_score_loss",
    "map_ranking_loss",
    "ranking_loss",
]


def correlation_loss(
    scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor | None = None
) -> torch.Tensor:
    """1 − PLCC of a batch.

    Args:
        scores: Predictions, (B,).
        labels: Opinion scores, (B,).
        groups: Number of each row's subset, (B,); the means of the subsets then do not count.

    Returns:
        A scalar from 0 (perfect) to 2; 1 for constants.
    """
    scores, labels = scores.float(), labels.float()
    if groups is None:
        scores, labels = scores - scores.mean(), labels - labels.mean()
    else:
        scores, labels = _off_the_means(scores, groups), _off_the_means(labels, groups)
    norm = (scores.square().sum() * labels.square().sum()).clamp(min=1e-12).sqrt()
    return 1 - (scores * labels).sum() / norm


def _off_the_means(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Each group's mean taken off its values, (B,)."""
    _, place = groups.unique(return_inverse=True)
    sums = values.new_zeros(len(values)).index_add(0, place, values)
    counts = values.new_zeros(len(values)).index_add(0, place, torch.ones_like(values))
    return values - (sums / counts.clamp(min=1))[place]


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


def map_ranking_loss(
    mild: torch.Tensor, mixed: torch.Tensor, mask: torch.Tensor, margin: float = 0.25
) -> torch.Tensor:
    """A token inside of what was degraded scores lower than one outside, by a margin.

    Each token inside is compared with each outside of the same mixture, once by what the
    degradation took from it and once by its own value, as the map is read.

    Args:
        mild: Token values z_i of the view before, (B, h, w).
        mixed: Those of the mixture, degraded where `mask` is 1.
        mask: (B, H, W), 0 to 1.
        margin: Wanted difference of the token values.
    """
    rows, columns = mixed.shape[-2:]
    share = F.adaptive_avg_pool2d(mask[:, None].float(), (rows, columns)).flatten(1)  # (B, N)
    pairs = share[:, :, None] * (1 - share)[:, None]  # (B, N inside, N outside)
    pairs = pairs / pairs.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    losses = []
    for values in (mixed.flatten(1) - mild.flatten(1).detach(), mixed.flatten(1)):
        short = margin + values[:, :, None] - values[:, None]
        losses.append((pairs * F.softplus(4 * short)).sum(dim=(1, 2)).mean() / 4)
    return 0.5 * (losses[0] + losses[1])


def counterfactual_loss(
    without_own: torch.Tensor, clean: torch.Tensor, without_other: torch.Tensor, own: torch.Tensor
) -> torch.Tensor:
    """Taking a distortion out of the condition undoes it, and taking out another does nothing.

    Args:
        without_own: Logits of degraded views whose distortion is taken out, (B,).
        clean: Logits of the same views before they were degraded, (B,).
        without_other: Logits of the degraded views with another distortion taken out, (B,).
        own: Logits of the degraded views, (B,).
    """
    undone = F.smooth_l1_loss(without_own.sigmoid(), clean.sigmoid().detach(), beta=0.1)
    untouched = F.smooth_l1_loss(without_other.sigmoid(), own.sigmoid().detach(), beta=0.1)
    return undone + untouched


def known_score_loss(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Smooth L1 distance of scores from those that a construction gives.

    Args:
        logits: Logits of views, (R,).
        scores: Their scores from 0 to 1, (R,); NaN where nobody knows.

    Returns:
        A scalar; 0 without known scores.
    """
    known = scores.isfinite()
    if not known.any():
        return logits.sum() * 0.0
    return F.smooth_l1_loss(logits[known].float().sigmoid(), scores[known].float(), beta=0.1)
