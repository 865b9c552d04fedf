"""From the refined feature to score, map, deviation and levels, equations (14)-(17)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["QualityHead", "ViewQuality", "level_probabilities"]

_LEAST_DEVIATION = 0.5  # score points, the floor of (15)


@dataclass
class ViewQuality:
    """What the head says of B views.

    Args:
        logit: z of (14), (B,).
        token_values: z_i of (14), what token i alone would say, (B, N), without the bias.
        token_weights: mean panel attention on token i, (B, N), rows sum to 1.
        deviation: σ_v of (15) in score points, (B,).
    """

    logit: torch.Tensor
    token_values: torch.Tensor
    token_weights: torch.Tensor
    deviation: torch.Tensor


class QualityHead(nn.Module):
    """Panel of queries over refined tokens; the score's logit is a weighted sum of token values.

    Because z = Σ_i w_i z_i + b, the quality map is the set of z_i and no afterthought.

    Args:
        width: Width D' of the refined feature.
        queries: Number of panel members.
        heads: Attention heads of the decoder layer.
        class_width: Width of the raw class token if it is fed to the panel, else None.
    """

    def __init__(self, width: int, queries: int, heads: int, class_width: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.memory_norm = nn.LayerNorm(width)
        self.panel = nn.Parameter(torch.zeros(queries, width))
        self.pooled_query = nn.Linear(width, width)
        self.class_query = nn.Linear(class_width, width) if class_width else None
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = nn.Linear(width, 3 * width)
        self.self_output = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_query = nn.Linear(width, width)
        self.cross_key_value = nn.Linear(width, 2 * width)
        self.cross_output = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_expand = nn.Linear(width, 2 * width)
        self.feed_contract = nn.Linear(2 * width, width)
        self.final_norm = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, width)
        self.value_hidden = nn.Linear(width, width)
        self.value = nn.Linear(width, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(()))
        self.deviation_norm = nn.LayerNorm(2 * width + 1)
        self.deviation_hidden = nn.Linear(2 * width + 1, width)
        self.deviation = nn.Linear(width, 1)

    def initialize_parameters(self) -> None:
        """Different panel members, and a first deviation of about ten points."""
        init.normal_(self.panel, std=1.0)
        init.zeros_(self.bias)
        init.zeros_(self.deviation.weight)
        init.constant_(self.deviation.bias, 9.5)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        split = [
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        ]
        return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def forward(
        self, feature: torch.Tensor, class_token: torch.Tensor | None = None
    ) -> ViewQuality:
        """Judge views.

        Args:
            feature: Refined feature F̂_0, (B, N, D').
            class_token: Raw class token (B, D), read only with `head_class_query`.
        """
        memory = self.memory_norm(feature)  # (B, N, D')
        panel = self.panel + self.pooled_query(feature.mean(dim=1))[:, None]  # (B, J, D')
        if self.class_query is not None and class_token is not None:
            panel = panel + self.class_query(class_token)[:, None]
        query, key, value = self.self_attention(self.self_norm(panel)).chunk(3, dim=-1)
        panel = panel + self.self_output(self._attend(query, key, value))
        key, value = self.cross_key_value(memory).chunk(2, dim=-1)
        query = self.cross_query(self.cross_norm(panel))
        panel = panel + self.cross_output(self._attend(query, key, value))
        panel = panel + self.feed_contract(F.gelu(self.feed_expand(self.feed_norm(panel))))
        panel = self.final_norm(panel)

        scores = self.weigh(panel) @ memory.transpose(1, 2) / math.sqrt(memory.shape[-1])
        weights = scores.softmax(-1).mean(dim=1)  # mean over the panel: (B, N)
        values = self.values_of(memory)  # z_i: (B, N)
        logit = (weights * values).sum(dim=-1) + self.bias  # (14): (B,)

        evidence = torch.cat([memory.mean(dim=1), panel.mean(dim=1), logit[:, None]], dim=-1)
        return ViewQuality(logit, values, weights, self.deviation_of(evidence.detach()))

    def values_of(self, memory: torch.Tensor) -> torch.Tensor:
        """z_i of (14), (…, N), from normalised tokens of the refined feature, (…, N, D')."""
        values: torch.Tensor = self.value(F.gelu(self.value_hidden(memory)))[..., 0]
        return values

    def deviation_of(self, evidence: torch.Tensor) -> torch.Tensor:
        """(15): σ_v in score points, (…), from mean token, mean panel and z, (…, 2·D' + 1)."""
        hidden = F.gelu(self.deviation_hidden(self.deviation_norm(evidence)))
        return F.softplus(self.deviation(hidden)[..., 0]) + _LEAST_DEVIATION


def level_probabilities(
    score: torch.Tensor, deviation: torch.Tensor, borders: list[float]
) -> torch.Tensor:
    """(17): the mass of a normal law around the score in each band.

    Args:
        score: μ in score points, (B,).
        deviation: σ in score points, (B,), positive.
        borders: Inner borders of the bands, ascending.

    Returns:
        Probabilities, worst band first, (B, len(borders) + 1); rows sum to 1.
    """
    limits = score.new_tensor(borders)
    inner = torch.special.ndtr((limits - score[:, None]) / deviation[:, None])
    ends = torch.cat([torch.zeros_like(inner[:, :1]), inner, torch.ones_like(inner[:, :1])], dim=-1)
    return ends[:, 1:] - ends[:, :-1]
