"""The denoiser would not be the cross-attention network that its documentation describes."""

import math

import pytest
import torch
from torch import nn

from pfd_iqa_hf.modeling.feature_unet import (
    ConditionAttention,
    FeatureUNet,
    TimeEmbedding,
    noise_from_velocity,
)


def _awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters everywhere, zero-initialised ones included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def test_folded_attention_is_multi_head_attention() -> None:
    width, heads = 12, 3
    ours = ConditionAttention(width, heads)
    _awake(ours)
    reference = nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        weights = [ours.query.weight, ours.key.weight, ours.value.weight]
        reference.in_proj_weight.copy_(torch.cat(weights))
        reference.in_proj_bias.zero_()
        reference.out_proj.weight.copy_(ours.output.weight)
        reference.out_proj.bias.copy_(ours.output.bias)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 7, width, generator=generator)
    condition = torch.randn(2, 2, width, generator=generator)
    attended, _ = reference(ours.norm(tokens), condition, condition)
    assert torch.allclose(ours(tokens, *ours.fold(condition)), tokens + attended, atol=1e-5)


def test_one_level_for_all_rows_is_that_level_of_each() -> None:
    unet = FeatureUNet(8, 2, 2, 1)
    _awake(unet)
    generator = torch.Generator().manual_seed(5)
    feature = torch.randn(3, 12, 8, generator=generator)
    folded = unet.fold(torch.randn(3, 2, 8, generator=generator))
    shared = unet(feature, torch.tensor([150]), (3, 4), folded)
    each = unet(feature, torch.tensor([150, 150, 150]), (3, 4), folded)
    assert torch.allclose(shared, each, atol=1e-5)


def test_time_embedding_reads_sinusoids_of_the_level() -> None:
    embedding = TimeEmbedding(8)
    with torch.no_grad():
        for layer in (embedding.first, embedding.second):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    angles = torch.tensor([37 / 10_000 ** (i / 4) for i in range(4)])
    waves = torch.cat([angles.cos(), angles.sin()])
    expected = waves * torch.sigmoid(waves)  # SiLU between two identities
    assert torch.allclose(embedding(torch.tensor([37]))[0], expected, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2])
def test_a_new_denoiser_is_the_best_linear_one(levels: int) -> None:
    unet = FeatureUNet(8, 2, 2, levels)
    unet.initialize_parameters()
    feature = torch.randn(2, 12, 8)
    velocity = unet(feature, torch.tensor([100.0]), (3, 4), unet.fold(torch.randn(2, 2, 8)))
    assert not velocity.any()
    # Of noise and a feature of unit variance: E[ε | F_t] = √(1−ᾱ) F_t.
    assert torch.allclose(noise_from_velocity(velocity, feature, 0.36), 0.8 * feature)


def test_the_true_velocity_gives_the_true_noise() -> None:
    generator = torch.Generator().manual_seed(4)
    clean, noise = torch.randn(2, 3, 5, 8, generator=generator).unbind(0)
    alpha_bar = torch.tensor([0.1, 0.5, 0.99])[:, None, None]
    noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
    velocity = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    assert torch.allclose(noise_from_velocity(velocity, noisy, alpha_bar), noise, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 3), (4, 4), (7, 2)])
def test_any_grid(grid: tuple[int, int], levels: int) -> None:
    unet = FeatureUNet(8, 1, 2, levels)
    _awake(unet)
    feature = torch.randn(3, math.prod(grid), 8)
    out = unet(feature, torch.tensor([7, 70, 300]), grid, unet.fold(torch.randn(3, 2, 8)))
    assert out.shape == feature.shape
    assert torch.isfinite(out).all()


def test_rows_levels_and_conditions_are_independent() -> None:
    unet = FeatureUNet(8, 1, 2, 2)
    _awake(unet)
    generator = torch.Generator().manual_seed(3)
    feature = torch.randn(2, 15, 8, generator=generator)
    condition = torch.randn(2, 2, 8, generator=generator)
    levels = torch.tensor([20, 380])
    together = unet(feature, levels, (5, 3), unet.fold(condition))
    for row in range(2):
        part = slice(row, row + 1)
        alone = unet(feature[part], levels[part], (5, 3), unet.fold(condition[part]))
        assert torch.allclose(alone, together[part], atol=1e-5)
    swapped = unet(feature, levels, (5, 3), unet.fold(condition.flip(0)))
    assert (swapped - together).abs().max() > 1e-3
    other = unet(feature, levels.flip(0), (5, 3), unet.fold(condition))
    assert (other - together).abs().max() > 1e-3
