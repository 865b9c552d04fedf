"""How far a picture lies from the photographs that the model was trained on, equation (20)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

__all__ = ["Familiarity", "familiarity_feature", "flat_is_unfamiliar"]

_FLAT = 0.05  # largest difference of normalised values in a picture of one colour: three of 255
_FAR = 100.0  # standard deviations


def familiarity_feature(class_tokens: torch.Tensor) -> torch.Tensor:
    """What a picture is compared by: its views' class tokens, normalised, then averaged.

    Args:
        class_tokens: Of one layer of the backbone, (B, V, D).

    Returns:
        (B, D), fp32.
    """
    tokens = class_tokens.float()
    return F.layer_norm(tokens, tokens.shape[-1:]).mean(dim=1)


def flat_is_unfamiliar(distance: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
    """The distance, raised beyond any threshold where a picture is of one colour.

    A black frame's tokens may lie among those of night photographs.

    Args:
        distance: (B,).
        pixel_values: Normalised views, (B, V, 3, H, W).
    """
    most, least = (part(pixel_values, dim=(1, 3, 4)) for part in (torch.amax, torch.amin))  # (B, 3)
    flat = (most - least).amax(dim=1) < _FLAT
    return torch.where(flat, distance.clamp_min(_FAR), distance)


class Familiarity(nn.Module):
    """Distance from the training photographs, as a normal law of few directions knows them.

    Each of the first principal directions is measured in its own standard deviations; what lies
    outside of all of them is one more direction.

    Args:
        width: Width D of the feature.
        directions: Number K of principal directions.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, width: int, directions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(directions, width))  # orthonormal rows
        # Standard deviation along each direction; at the end the root mean square of the rest.
        self.register_buffer("deviations", torch.ones(directions + 1))

    def initialize_parameters(self) -> None:
        """Nothing is known yet: the distance is that from zero."""
        init.zeros_(self.mean)
        init.zeros_(self.directions)
        init.ones_(self.deviations)

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Learn the law of photographs.

        Args:
            features: One row a photograph, (P, D), as `familiarity_feature` gives them.

        Raises:
            ValueError: there are no more photographs than directions, or no more numbers.
        """
        count, (photographs, width) = len(self.directions), features.shape
        if photographs <= count + 1 or width <= count:
            raise ValueError(
                f"{photographs} photographs with {width} numbers each are too few for {count} "
                "directions: give more pictures, or ask for fewer directions"
            )
        values = features.double()
        centred = values - values.mean(dim=0)
        _, sizes, rows = torch.linalg.svd(centred, full_matrices=False)
        variances = sizes.square() / (photographs - 1)
        rest = variances[count:].sum().clamp_min(1e-12)
        deviations = torch.cat([variances[:count].clamp_min(1e-12), rest[None]]).sqrt()
        self.mean.copy_(values.mean(dim=0))
        self.directions.copy_(rows[:count])
        self.deviations.copy_(deviations)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """The distance; about 1.4 for photographs like those of the training.

        Args:
            feature: (B, D), as `familiarity_feature` gives it.

        Returns:
            √(mean square of the coordinates + square of the rest), in standard deviations, (B,).
        """
        centred = feature.float() - self.mean.float()
        directions, deviations = self.directions.float(), self.deviations.float()
        along = F.linear(centred, directions)  # (B, K)
        rest = centred - along @ directions
        inside = (along / deviations[:-1]).square().mean(dim=-1)
        outside = rest.square().sum(dim=-1) / deviations[-1].square()
        return (inside + outside).sqrt()
