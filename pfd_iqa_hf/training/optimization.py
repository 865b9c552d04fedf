"""Optimiser's side of training: what is frozen, learning rates by depth, schedule, average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = [
    "MovingAverage",
    "backbone_layers",
    "freeze_lower_layers",
    "parameter_groups",
    "rate_factor",
]


def backbone_layers(backbone: Any) -> nn.ModuleList:
    """The transformer layers of a vision backbone, first to last.

    Raises:
        ValueError: no list of modules in it is as long as its configuration says.
    """
    count = backbone.config.num_hidden_layers
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(backbone).__name__} has no list of {count} layers")


def freeze_lower_layers(backbone: Any, layers: int) -> None:
    """Keep embeddings and first layers as they are: general features, and no backward pass.

    Args:
        backbone: A transformers vision transformer.
        layers: Number of layers; 0 freezes nothing, not even the embeddings.
    """
    if layers <= 0:
        return
    for name, parameter in backbone.named_parameters():
        if "embeddings" in name or "pre_layrnorm" in name:
            parameter.requires_grad_(False)
    for layer in list(backbone_layers(backbone))[:layers]:
        layer.requires_grad_(False)


def parameter_groups(
    model: nn.Module,
    backbone: Any,
    backbone_rate: float,
    rate: float,
    layer_decay: float,
    weight_decay: float = 0.05,
    own_rates: Iterable[tuple[nn.Module, float]] = (),
) -> list[dict[str, Any]]:
    """Lower learning rates for lower layers; no weight decay on vectors.

    Args:
        model: What is trained.
        backbone: The part of it that was pre-trained; None if no such part is trained.
        backbone_rate: Learning rate of the backbone's last layer.
        rate: Learning rate of everything else.
        layer_decay: Factor from one layer of the backbone to the one below.
        weight_decay: Of tensors with more than one dimension.
        own_rates: Parts of the model outside the backbone with a learning rate of their own.

    Returns:
        Groups for an optimiser; `first_rate` keeps the rate before the schedule.
    """
    layers = [] if backbone is None else list(backbone_layers(backbone))
    named = [] if backbone is None else list(backbone.named_parameters())
    depth_of = {id(p): depth for depth, layer in enumerate(layers) for p in layer.parameters()}
    outside = {id(p) for name, p in named if "embeddings" in name}
    inside = {id(p) for _, p in named}
    own = {id(p): own_rate for part, own_rate in own_rates for p in part.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        learning_rate = own.get(id(parameter), rate)
        if id(parameter) in inside:
            last = len(layers) - 1
            depth = -1 if id(parameter) in outside else depth_of.get(id(parameter), last)
            learning_rate = backbone_rate * layer_decay ** (last - depth)
        decay = weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((learning_rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "first_rate": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


def rate_factor(step: int, steps: int, warm_up: int, kind: str = "cosine") -> float:
    """Share of the first learning rate at a step: linear warm-up, then the schedule.

    Args:
        step: From 0.
        steps: Of the whole run.
        warm_up: Steps of the warm-up.
        kind: "cosine" (half a period to zero), "linear" (to zero) or "constant".
    """
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}.get(kind, 1.0)


class MovingAverage:
    """Exponential average of the trained parameters, with a warm-up of its own.

    Args:
        parameters: Names and parameters; those without gradient are left out.
        decay: Largest share that the average keeps at a step; 0 makes it a copy of the weights.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.parameters = {name: p for name, p in parameters if p.requires_grad}
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step`, from 0."""
        keep = min(self.decay, (step + 1) / (step + 10)) if self.decay else 0.0
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter.to(self.values[name]), 1 - keep)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Overwrite the weights by their average."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.values[name])

    @contextmanager
    def applied(self) -> Any:
        """Within the block the model has the averaged weights."""
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(current[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages by name."""
        return self.values

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take over saved averages, on the parameters' own devices."""
        for name, parameter in self.parameters.items():
            self.values[name] = state[name].to(parameter.device)
