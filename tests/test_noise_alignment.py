"""Denoising would start from a feature at another noise level than (8) says."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from pfd_iqa_hf.modeling.noise_alignment import NoiseAlignment, PriorFusion, matching_weight


def _tokens(seed: int, width: int = 10) -> torch.Tensor:
    return torch.randn(2, 9, width, generator=torch.Generator().manual_seed(seed))


def test_alignment_mixes_clean_feature_and_noise_by_gamma() -> None:
    torch.manual_seed(0)
    module = NoiseAlignment(10, 6, 4, mix=True)
    feature, noise = _tokens(1), _tokens(2, 6)
    aligned, clean, gamma = (part.detach().numpy() for part in module(feature, noise))
    projected = module.project(feature).detach().numpy()
    centred = projected - projected.mean(-1, keepdims=True)
    expected = centred / np.sqrt(projected.var(-1, keepdims=True) + 1e-5)
    assert clean == pytest.approx(expected, abs=1e-5)
    hidden = torch.nn.functional.gelu(module.bottleneck(feature)).mean(1)
    weights = softmax(module.weigh(hidden).detach().numpy(), axis=-1)[:, 0]
    assert gamma == pytest.approx(weights, abs=1e-6)
    mixed = weights[:, None, None] * expected + (1 - weights[:, None, None]) * noise.numpy()
    assert aligned == pytest.approx(mixed, abs=1e-5)


def test_clean_feature_has_unit_variance_and_gamma_is_a_share() -> None:
    module = NoiseAlignment(10, 32, 4, mix=True)
    _, clean, gamma = module(50 * _tokens(1), _tokens(2, 32))
    assert torch.allclose(clean.var(-1, correction=0), torch.ones(2, 9), atol=1e-3)
    assert ((gamma > 0) & (gamma < 1)).all()


def test_without_alignment_no_noise_enters() -> None:
    module = NoiseAlignment(10, 6, 4, mix=False)
    aligned, clean, gamma = module(_tokens(1), torch.full((2, 9, 6), torch.nan))
    assert torch.equal(aligned, clean)
    assert torch.equal(gamma, torch.ones(2))


@pytest.mark.parametrize("form", ["film", "add"])
def test_fusion_starts_as_the_identity_and_follows_its_equation(form: str) -> None:
    torch.manual_seed(0)
    module = PriorFusion(10, 4, form)
    feature, priors = _tokens(1), (_tokens(2), _tokens(3))
    module.initialize_parameters()
    assert torch.equal(module(feature, *priors)[0], feature)
    torch.nn.init.normal_(module.modulate.weight)
    fused, modulation = module(feature, *priors)
    if form == "add":
        assert torch.allclose(fused, feature + modulation)
        return
    scale, shift = modulation[..., :10], modulation[..., 10:]
    mean, deviation = feature.mean(-1, keepdim=True), feature.var(-1, correction=0, keepdim=True)
    norm = (feature - mean) / (deviation + 1e-5).sqrt()  # LN starts without gain and bias
    assert torch.allclose(fused, feature + scale * norm + shift, atol=1e-4)
    assert not torch.allclose(fused, module(feature, priors[1], priors[0])[0])


@pytest.mark.parametrize("residual", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("alpha_bar", [0.194, 0.3])
def test_matching_weight_gives_the_ratio_of_the_first_level(
    residual: float, alpha_bar: float
) -> None:
    clean, noise = _tokens(1, 4000), _tokens(2, 4000)
    rest = residual**0.5 * _tokens(3, 4000)
    weight = float(matching_weight(torch.tensor(residual), alpha_bar))
    mixed = weight * (clean + rest) + (1 - weight) * noise
    found = float((weight * clean).var() / (mixed - weight * clean).var())
    assert found == pytest.approx(alpha_bar / (1 - alpha_bar), rel=0.02)


def test_a_feature_noisier_than_the_first_level_gets_no_noise() -> None:
    weights = matching_weight(torch.tensor([0.0, 4.0, 5.0, 50.0]), 0.194)
    assert weights[0] == pytest.approx(0.329, abs=1e-3)  # method's orientation for a clean feature
    assert torch.equal(weights[2:], torch.ones(2))
    assert (weights.diff() >= 0).all()
