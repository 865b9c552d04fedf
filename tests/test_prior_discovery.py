"""PDA would find priors that do not follow equations (1) to (4)."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from pfd_iqa_hf.modeling.prior_discovery import PriorDiscovery, pseudo_label_divergence

GRID = (3, 4)


@pytest.fixture
def task() -> PriorDiscovery:
    torch.manual_seed(0)
    return PriorDiscovery(width=10, rank=6, text_width=7, target_width=5, temperature=0.07)


def _feature(seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(seed))


def test_probabilities_are_a_softmax_of_cosines_over_the_temperature(task: PriorDiscovery) -> None:
    prompts = torch.nn.functional.normalize(torch.randn(4, 7), dim=-1)
    prior, logits = task(_feature(), GRID, prompts)
    pooled = task.project(prior.mean(dim=1)).detach().numpy()
    texts = prompts.numpy()
    cosines = pooled @ texts.T / np.linalg.norm(pooled, axis=1, keepdims=True)
    expected = softmax(cosines / 0.07, axis=1)
    assert logits.softmax(-1).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_a_masked_token_is_not_seen(task: PriorDiscovery) -> None:
    kept = torch.ones(2, 12, dtype=torch.bool)
    kept[:, [2, 7]] = False
    changed = _feature()
    changed[:, [2, 7]] += 5
    prompts = torch.randn(4, 7)
    first, second = (task(x, GRID, prompts, kept) for x in (_feature(), changed))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    open_first, open_second = (task(x, GRID, prompts) for x in (_feature(), changed))
    assert not torch.equal(open_first[0], open_second[0])


def test_no_mask_is_a_mask_that_keeps_all(task: PriorDiscovery) -> None:
    prompts = torch.randn(4, 7)
    every = torch.ones(2, 12, dtype=torch.bool)
    assert torch.equal(
        task(_feature(), GRID, prompts)[1], task(_feature(), GRID, prompts, every)[1]
    )


def test_reconstruction_counts_masked_tokens_only(task: PriorDiscovery) -> None:
    prior, target = _feature(2), torch.randn(2, 12, 5)
    kept = torch.rand(2, 12, generator=torch.Generator().manual_seed(4)) > 0.4
    kept[1, :4] = True  # the views have unlike numbers of masked tokens, and the same weight
    with torch.no_grad():
        error = (task.reconstruct(prior) - target).square().mean(-1).numpy()
        loss = task.reconstruction_loss(prior, target, kept)
        none = task.reconstruction_loss(prior, target, torch.ones_like(kept))
    each = [row[~keep].mean() for row, keep in zip(error, kept.numpy(), strict=True)]
    assert float(loss) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(none) == 0.0


def test_divergence_is_that_of_scipy() -> None:
    logits = torch.randn(6, 12, generator=torch.Generator().manual_seed(5))
    target = torch.randn(6, 12, generator=torch.Generator().manual_seed(6)).softmax(-1)
    expected = entropy(target.numpy(), softmax(logits.numpy(), axis=1), axis=1).mean()
    assert float(pseudo_label_divergence(logits, target)) == pytest.approx(expected, rel=1e-4)
    same = pseudo_label_divergence(target.log(), target)
    assert float(same) == pytest.approx(0, abs=1e-6)
    # A teacher that is sure gives exact zeros.
    assert math.isfinite(float(pseudo_label_divergence(logits, torch.eye(12)[:6])))
