"""What the two models return; the letters of the shapes stand in `modeling_pfd_iqa.py`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from transformers.utils import ModelOutput

__all__ = ["PfdIqaFeatures", "PfdIqaOutput", "in_declared_order"]

Output = TypeVar("Output", bound=ModelOutput)


def in_declared_order(output: Output) -> Output:
    """The same output with its entries in the order of the class, which a tuple of it shows.

    A `ModelOutput` otherwise lists what was set later at its end: the loss would not come first.
    """
    names = [field.name for field in fields(output)]  # type: ignore[arg-type]
    return type(output)(**{name: getattr(output, name) for name in names})


@dataclass
class PfdIqaFeatures(ModelOutput):
    """Everything between backbone and head, for R = B·V views.

    Args:
        refined: Refined feature F̂_0, (R, N, D').
        student: Student feature F^s, (R, N, D).
        fused: Fused feature F^f, (R, N, D).
        aligned: Noise-aligned feature F̂_T, (R, N, D').
        distortion_prior: F̂^d, (R, N, D).
        quality_prior: F̂^q, (R, N, D).
        distortion_logits: Logits of p̂^d, (R, K_d).
        quality_logits: Logits of p̂^q, (R, K_q).
        condition: c, (R, 2, D').
        alignment_weight: γ, (R,).
        modulation: Scale and shift of the prior fusion, (R, N, 2·D).
        class_token: Raw class token of the backbone, or the token mean without one, (R, D).
        familiarity_token: Raw class token of `familiarity_level`, (R, D); only where there is one.
        losses: Method losses by name, scalars; only with teacher targets.
        hidden_states: Backbone's hidden states, on request.
        attentions: Backbone's attention weights, on request.
    """

    refined: torch.Tensor | None = None
    student: torch.Tensor | None = None
    fused: torch.Tensor | None = None
    aligned: torch.Tensor | None = None
    distortion_prior: torch.Tensor | None = None
    quality_prior: torch.Tensor | None = None
    distortion_logits: torch.Tensor | None = None
    quality_logits: torch.Tensor | None = None
    condition: torch.Tensor | None = None
    alignment_weight: torch.Tensor | None = None
    modulation: torch.Tensor | None = None
    class_token: torch.Tensor | None = None
    familiarity_token: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class PfdIqaOutput(ModelOutput):
    """Quality of B pictures.

    Args:
        loss: Weighted sum of the losses; only with labels.
        logits: Score μ, 0 to 100, higher is better, (B,).
        uncertainty: Calibrated standard deviation σ in score points, (B,).
        level_probabilities: Mass of each quality band, worst first, (B, 5).
        distortion_probabilities: p̂^d, mean over the views, (B, K_d).
        distortion_costs: Points gained without each distortion, (B, K_d); on request.
        familiarity_distance: Distance from the training photographs, see `Familiarity`, (B,); only
            of a model that was fitted to tell it.
        quality_map: What each token alone would score, 0 to 100, (B, V, h, w); on request.
        view_logits: z of each view before the sigmoid, (B, V).
        view_deviations: σ_v of each view in score points, (B, V).
        token_values: z_i of (14), (B, V, h, w); on request.
        features: Intermediate features; on request.
        loss_parts: Unweighted losses by name; only with labels.
        hidden_states: Backbone's hidden states, on request.
        attentions: Backbone's attention weights, on request.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    uncertainty: torch.Tensor | None = None
    level_probabilities: torch.Tensor | None = None
    distortion_probabilities: torch.Tensor | None = None
    distortion_costs: torch.Tensor | None = None
    familiarity_distance: torch.Tensor | None = None
    quality_map: torch.Tensor | None = None
    view_logits: torch.Tensor | None = None
    view_deviations: torch.Tensor | None = None
    token_values: torch.Tensor | None = None
    features: PfdIqaFeatures | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
