"""Training would optimise another loss than documented, or depend on how a run is split."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm, pearsonr

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP
from pfd_iqa_hf.modeling.model_losses import opinion_losses
from pfd_iqa_hf.training.losses import (
    composition_loss,
    correlation_loss,
    map_ranking_loss,
    ranking_loss,
)
from pfd_iqa_hf.training.samples import (
    any_type,
    degraded_triple,
    method_draws,
    random_view,
    sample_generator,
)


def test_correlation_is_one_minus_pearson() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(50, 20, (2, 40))
    ours = float(correlation_loss(torch.tensor(scores), torch.tensor(labels)))
    assert ours == pytest.approx(1 - pearsonr(scores, labels).statistic, abs=1e-5)
    line = torch.linspace(0, 100, 9)
    assert float(correlation_loss(2 * line + 3, line)) == pytest.approx(0, abs=1e-6)
    assert float(correlation_loss(-line, line)) == pytest.approx(2, abs=1e-6)
    assert float(correlation_loss(torch.full((9,), 50.0), line)) == pytest.approx(1)


def test_correlation_within_groups_does_not_see_the_groups_means() -> None:
    generator = np.random.default_rng(3)
    labels, scores = generator.normal(size=(2, 30))
    groups = np.repeat([0, 4, 7], 10)
    apart = labels + 100 * groups, scores - 50 * groups  # groups that differ the other way round

    def off(values: np.ndarray) -> np.ndarray:
        return np.concatenate([part - part.mean() for part in np.split(values, 3)])

    expected = 1 - pearsonr(off(scores), off(labels)).statistic
    tensors = [torch.tensor(values) for values in (apart[1], apart[0], groups)]
    assert float(correlation_loss(*tensors)) == pytest.approx(expected, abs=1e-3)
    assert float(correlation_loss(tensors[0], tensors[1])) > 1.9
    alone = torch.arange(30)
    assert float(correlation_loss(tensors[0], tensors[1], alone)) == pytest.approx(1)


def test_ranking_wants_the_milder_picture_on_top_and_more_so_the_wider_the_gap() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    right, equal, wrong = (
        float(ranking_loss(mild, strong, one))
        for mild, strong in ((one, zero), (zero, zero), (zero, one))
    )
    assert 0 < right < equal < wrong
    assert float(ranking_loss(zero, zero, 4 * one)) > equal
    assert float(ranking_loss(5 * one, -5 * one, one)) == pytest.approx(0, abs=1e-6)


def test_a_composed_map_costs_nothing_and_only_the_mixture_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    mild, strong = torch.randn(2, 3, 4, 4, generator=generator)
    blocks = torch.rand(3, 4, 4, generator=generator)
    mask = blocks.repeat_interleave(7, 1).repeat_interleave(7, 2)  # (3, 28, 28)
    composed = blocks * strong + (1 - blocks) * mild
    assert float(composition_loss(mild, strong, composed, mask)) == pytest.approx(0, abs=1e-9)
    assert float(composition_loss(mild, strong, composed + 2, mask)) == pytest.approx(4, rel=1e-5)
    inputs = [part.clone().requires_grad_() for part in (mild, strong, composed + 1)]
    composition_loss(inputs[0], inputs[1], inputs[2], mask).backward()
    assert inputs[0].grad is None
    assert inputs[1].grad is None
    assert inputs[2].grad is not None


def test_a_map_is_ranked_by_what_was_degraded_in_it() -> None:
    mask = torch.zeros(2, 28, 28)
    mask[:, :14] = 1  # the upper half of a grid of 4 × 4 tokens
    mild = torch.zeros(2, 4, 4)
    inside = torch.cat([torch.ones(2, 2, 4), torch.zeros(2, 2, 4)], dim=1)
    right, equal, wrong = (
        float(map_ranking_loss(mild, factor * inside, mask)) for factor in (-3.0, 0.0, 3.0)
    )
    assert right == pytest.approx(0, abs=1e-4)
    # softplus(4 · margin) / 4 where no token differs from another
    assert equal == pytest.approx(float(torch.nn.functional.softplus(torch.tensor(1.0))) / 4)
    assert wrong == pytest.approx(3.25, abs=1e-3)
    # A part that was darker before is no fault of the degradation: half the loss, not all of it.
    before = float(map_ranking_loss(3 * inside, 3 * inside, mask))
    assert equal < before < wrong
    inputs = [part.clone().requires_grad_() for part in (mild, inside)]
    map_ranking_loss(inputs[0], inputs[1], mask).backward()
    assert inputs[0].grad is None and inputs[1].grad is not None


def test_opinion_losses_follow_their_formulas_and_leave_unrated_pictures_out() -> None:
    scores = torch.tensor([[40.0, 44.0], [90.0, 10.0], [70.0, 55.0]], requires_grad=True)
    deviations = torch.tensor([[5.0, 8.0], [3.0, 3.0], [20.0, 2.0]], requires_grad=True)
    labels = torch.tensor([50.0, float("nan"), 60.0])
    parts = opinion_losses(labels, scores, deviations, (0.0, 100.0))
    error = np.array([0.10, 0.06, 0.10, 0.05])
    smooth = np.where(error < 0.1, error**2 / 0.2, error - 0.05)
    assert float(parts["regression"]) == pytest.approx(smooth.mean(), rel=1e-4)
    likelihood = -norm.logpdf([50, 50, 60, 60], [40, 44, 70, 55], [5, 8, 20, 2]).mean()
    constant = 0.5 * np.log(2 * np.pi)
    assert float(parts["deviation"]) == pytest.approx(likelihood - constant, rel=1e-4)
    parts["deviation"].backward(retain_graph=True)
    assert scores.grad is None  # μ is detached in L_σ
    parts["regression"].backward()
    for tensor in (scores, deviations):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert not tensor.grad[1].any()


def test_a_batch_without_any_label_costs_nothing() -> None:
    scores = torch.full((2, 1), 50.0, requires_grad=True)
    parts = opinion_losses(torch.full((2,), torch.nan), scores, torch.ones(2, 1), (0.0, 100.0))
    assert [float(part.detach()) for part in parts.values()] == [0.0, 0.0]


def _numpy_state() -> list[int]:
    state: Any = np.random.get_state()
    return state[1].tolist()


def _draws(seed: int, epoch: int, index: int) -> dict[str, torch.Tensor]:
    return method_draws(seed, epoch, index, tokens=64, width=4, start_timestep=400)


def test_a_sample_draws_the_same_whatever_was_drawn_before() -> None:
    first = _draws(1, 2, 3)
    for index in (9, 0, 5):
        _draws(1, 2, index)
    np.random.random(7), random.random(), torch.rand(3)
    again = _draws(1, 2, 3)
    assert all(torch.equal(first[key], again[key]) for key in first)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(first["latents"], _draws(*other)["latents"])
    assert not torch.equal(first["latents"], first["diffusion_latents"])


def test_drawing_leaves_the_global_sources_alone() -> None:
    states = random.getstate(), _numpy_state(), torch.get_rng_state()
    _draws(1, 2, 3)
    assert random.getstate() == states[0]
    assert _numpy_state() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_draws_follow_their_laws() -> None:
    draws = [_draws(7, 0, index) for index in range(600)]
    shares = torch.stack([1 - draw["token_mask"].float().mean(1) for draw in draws])
    whole = (shares == 0).all(1).float().mean()
    assert 0.18 < float(whole) < 0.34  # a quarter is unmasked
    # Three quarters of U(0, 0.75): mean 0.28.
    assert float(shares.mean()) == pytest.approx(0.75 * 0.375, abs=0.03)
    levels = torch.stack([draw["timesteps"] for draw in draws])
    assert int(levels.min()) >= 0
    assert int(levels.max()) <= 400
    assert float(levels.float().mean()) == pytest.approx(200, abs=15)
    noise = torch.stack([draw["latents"] for draw in draws])
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


@pytest.fixture
def picture_file(photograph: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(photograph).save(path)
    return path


def test_views_and_degradations_come_from_the_generator_alone(picture_file: Path) -> None:
    for index in range(4):
        first, again = (
            degraded_triple(picture_file, sample_generator(5, 0, index), 56) for _ in "ab"
        )
        assert first.mixed.tobytes() == again.mixed.tobytes()
        assert (first.group, first.mild_level) == (again.group, again.mild_level)
    with Image.open(picture_file) as picture:
        views = [random_view(picture, sample_generator(5, 0, i), 56).tobytes() for i in (1, 1, 2)]
    assert views[0] == views[1] != views[2]


def test_a_composed_triple_has_a_second_distortion_on_its_stronger_view(picture_file: Path) -> None:
    for index in range(8):
        plain, composed = (
            degraded_triple(picture_file, sample_generator(5, 0, index), 56, composed_share=share)
            for share in (0.0, 1.0)
        )
        assert plain.second_group is None and composed.second_group != composed.group
        both = {composed.group, composed.second_group}
        assert None not in both and both != {"overexposure", "underexposure"}


def test_types_may_be_drawn_alike_for_triples() -> None:
    generator = np.random.default_rng(0)
    by_group, alike = (
        [DISTORTION_GROUP[any_type(generator, share)] for _ in range(2000)] for share in (0.0, 1.0)
    )
    # Of eleven groups and 25 types, `underexposure` has one type and `noise` has four.
    for drawn, shares in ((by_group, (1 / 11, 1 / 11)), (alike, (1 / 25, 4 / 25))):
        for group, share in zip(("underexposure", "noise"), shares, strict=True):
            assert drawn.count(group) / 2000 == pytest.approx(share, abs=0.025)


def test_types_may_be_stressed() -> None:
    generator = np.random.default_rng(4)
    drawn = [any_type(generator, 0.5, ("color_shift", "denoise"), 0.6) for _ in range(1000)]
    shares = {name: drawn.count(name) / 1000 for name in ("color_shift", "denoise", "jpeg")}
    assert 0.25 < shares["color_shift"] < 0.4 and 0.25 < shares["denoise"] < 0.4
    assert shares["jpeg"] < 0.1, "the others are still drawn, four times in ten"


def test_a_triple_is_ordered_and_its_mixture_lies_between(picture_file: Path) -> None:
    for index in range(6):
        triple = degraded_triple(picture_file, sample_generator(6, 0, index), 56)
        assert 0 <= triple.mild_level < triple.strong_level <= 5
        assert triple.mask.shape == (56, 56)
        assert triple.mask.min() >= 0
        assert triple.mask.max() <= 1
        mild, strong, mixed = (
            np.asarray(view, np.float32) for view in (triple.mild, triple.strong, triple.mixed)
        )
        share = triple.mask[..., None]
        assert np.abs(mixed - (share * strong + (1 - share) * mild)).max() <= 2.5
