"""PDR, denoiser: a two-level UNet-lite on the token grid with cross-attention to the condition.

The network predicts the velocity v = √ᾱ ε − √(1−ᾱ) F_0 (Salimans and Ho, arXiv 2202.00512), from
which ε_θ = √ᾱ v + √(1−ᾱ) F_t follows.  At its zero start ε_θ is then already the best that a linear
denoiser can say, and a short training goes into what is better than that.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["ConditionAttention", "FeatureUNet", "TimeEmbedding", "noise_from_velocity"]

# Of one condition: difference of the folded keys (B, h, D'), of the folded values (B, h, D'), and
# what all tokens receive (B, 1, D').
FoldedCondition = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def noise_from_velocity(
    velocity: torch.Tensor, feature: torch.Tensor, alpha_bar: torch.Tensor | float
) -> torch.Tensor:
    """ε_θ = √ᾱ v_θ + √(1−ᾱ) F_t.

    Args:
        velocity: v_θ, (B, N, D').
        feature: F_t, (B, N, D').
        alpha_bar: ᾱ_t, a number or (B, 1, 1).
    """
    return alpha_bar**0.5 * velocity + (1 - alpha_bar) ** 0.5 * feature


class TimeEmbedding(nn.Module):
    """Sinusoids of the noise level and a small MLP.

    Args:
        width: Width of the embedding, even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = width // 2
        self.first = nn.Linear(2 * self.frequencies, width)
        self.second = nn.Linear(width, width)

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Args: noise levels (B,). Returns: embeddings (B, width)."""
        exponent = (
            torch.arange(self.frequencies, dtype=torch.float32, device=timesteps.device)
            / self.frequencies
        )
        angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.first.weight.dtype)
        return self.second(F.silu(self.first(waves)))


class ConditionAttention(nn.Module):
    """Cross-attention from N tokens to the two condition tokens.

    With so few keys the query and output projections are folded into keys and values: per head,
    (W_q x)·k = x·(W_qᵀ k).  And a softmax over two keys is the sigmoid of their difference: head by
    head the second value is given to all tokens, and what the first has more to those that attend
    to it.  The result is that of ordinary multi-head attention; the cost falls from N·2·D'² to
    N·2·h·D' multiplications, and what is folded serves all denoising steps.

    Args:
        width: Width D' of tokens and condition.
        heads: Number h of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def fold(self, condition: torch.Tensor) -> FoldedCondition:
        """Args: condition (B, 2, D'). Returns: what `forward` takes beside the tokens."""
        heads, depth = self.heads, condition.shape[-1] // self.heads
        key = self.key(condition).unflatten(-1, (heads, depth))  # (B, 2, h, d)
        value = self.value(condition).unflatten(-1, (heads, depth))
        query = self.query.weight.unflatten(0, (heads, depth))  # (h, d, D')
        output = self.output.weight.unflatten(1, (heads, depth))  # (D', h, d)
        keys = torch.einsum("bhd,hde->bhe", key[:, 0] - key[:, 1], query) / math.sqrt(depth)
        values = torch.einsum("bhd,ehd->bhe", value[:, 0] - value[:, 1], output)
        shared = self.output(value[:, 1].flatten(1))[:, None]
        return keys, values, shared

    def forward(
        self, tokens: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, shared: torch.Tensor
    ) -> torch.Tensor:
        """Args: tokens (B, N, D') and what `fold` returned. Returns: tokens (B, N, D')."""
        first = (self.norm(tokens) @ keys.transpose(1, 2)).sigmoid()  # (B, N, h)
        return tokens + torch.baddbmm(shared, first, values)


class DenoisingBlock(nn.Module):
    """Depthwise convolution, pointwise MLP modulated by the noise level, cross-attention.

    Args:
        width: Width D'.
        expansion: Inner width of the MLP over D'.
        heads: Heads of the cross-attention.
    """

    def __init__(self, width: int, expansion: int, heads: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.time = nn.Linear(width, 2 * width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.attention = ConditionAttention(width, heads)

    def initialize_parameters(self) -> None:
        """The block starts as the identity."""
        init.zeros_(self.contract.weight)
        init.zeros_(self.contract.bias)

    def forward(
        self,
        tokens: torch.Tensor,
        grid: tuple[int, int],
        time: torch.Tensor,
        folded: FoldedCondition,
    ) -> torch.Tensor:
        """Args: tokens (B, N, D'), their grid, time embedding (B or 1, D'), folded condition."""
        image = tokens.transpose(1, 2).unflatten(2, grid)  # (B, D', rows, columns)
        spread = self.spread(image).flatten(2).transpose(1, 2)  # (B, N, D')
        scale, shift = self.time(F.silu(time))[:, None].chunk(2, dim=-1)  # (B or 1, 1, D')
        hidden = self._expand(self.norm(spread), scale, shift)
        tokens = tokens + self.contract(F.gelu(hidden))
        return self.attention(tokens, *folded)

    def _expand(
        self, normed: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        """W((1 + scale) ⊙ x + shift) + b; one level for all rows goes into the small matrix."""
        if len(scale) > 1:
            return self.expand(normed * (1 + scale) + shift)
        weight, bias = self.expand.weight, self.expand.bias
        return F.linear(normed, weight * (1 + scale[0]), bias + weight @ shift[0, 0])


class FeatureUNet(nn.Module):
    """v_θ(F_t, t, c): predicts the velocity of a noisy feature, shape (B, N, D').

    Args:
        width: Width D'.
        expansion: Inner width of the blocks over D'.
        heads: Heads of the cross-attention.
        levels: 2 is the UNet-lite (two blocks on the halved grid, one on the full grid, which also
            sees the input directly), 1 the bottleneck form (two blocks without resampling).
    """

    def __init__(self, width: int, expansion: int, heads: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.time_embedding = TimeEmbedding(width)
        if levels == 1:
            self.entry = DenoisingBlock(width, expansion, heads)
        else:
            self.down = nn.Conv2d(width, width, kernel_size=2, stride=2)
            self.middle = nn.ModuleList(DenoisingBlock(width, expansion, heads) for _ in range(2))
            self.up = nn.Linear(width, width)
        self.exit = DenoisingBlock(width, expansion, heads)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)

    def initialize_parameters(self) -> None:
        """The first prediction is zero velocity."""
        init.zeros_(self.output.weight)
        init.zeros_(self.output.bias)

    def _blocks(self) -> list[DenoisingBlock]:
        first = list(self.middle) if self.levels == 2 else [self.entry]
        return [*first, self.exit]

    def fold(self, condition: torch.Tensor) -> list[FoldedCondition]:
        """What every block needs of a condition (B, 2, D'); once for all steps."""
        return [block.attention.fold(condition) for block in self._blocks()]

    def forward(
        self,
        feature: torch.Tensor,
        timesteps: torch.Tensor,
        grid: tuple[int, int],
        folded: list[FoldedCondition],
    ) -> torch.Tensor:
        """Predict the velocity; `noise_from_velocity` turns it into noise.

        Args:
            feature: F_t, (B, N, D').
            timesteps: Noise levels, (B,) or (1,) for all.
            grid: Rows and columns of the tokens.
            folded: What `fold` returned for the condition.

        Returns:
            v_θ, (B, N, D').
        """
        tokens = feature.to(self.output.weight.dtype)
        time = self.time_embedding(timesteps)
        if self.levels == 1:
            tokens = self.entry(tokens, grid, time, folded[0])
        else:
            # An odd grid is padded at its end and cropped again on the way up.
            rows, columns = grid
            image = tokens.transpose(1, 2).unflatten(2, grid)
            if rows % 2 or columns % 2:
                image = F.pad(image, (0, columns % 2, 0, rows % 2))
            low = self.down(image)  # (B, D', rows/2, columns/2)
            low_grid = (low.shape[2], low.shape[3])
            low_tokens = low.flatten(2).transpose(1, 2)
            for block, its_condition in zip(self.middle, folded[:-1], strict=True):
                low_tokens = block(low_tokens, low_grid, time, its_condition)
            image = self.up(low_tokens).transpose(1, 2).unflatten(2, low_grid)
            image = F.interpolate(image, scale_factor=2, mode="nearest")
            tokens = tokens + image[:, :, :rows, :columns].flatten(2).transpose(1, 2)
        tokens = self.exit(tokens, grid, time, folded[-1])
        return self.output(self.norm(tokens)).to(feature.dtype)
