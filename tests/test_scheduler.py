"""The refinement would walk another path than the one the denoiser was trained on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from pfd_iqa_hf.modeling.feature_unet import noise_from_velocity
from pfd_iqa_hf.modeling.scheduling_feature_ddim import FeatureDDIMScheduler


def _features(seed: int) -> torch.Tensor:
    return torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(seed))


def _diffusers(steps: int) -> Any:
    scheduler: Any = DDIMScheduler(
        1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="leading",
        steps_offset=0,
    )
    scheduler.set_timesteps(2 * steps)
    return scheduler


def _alpha_bars() -> torch.Tensor:
    """ᾱ_t in double precision."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)


@pytest.mark.parametrize("steps", range(1, 51))
def test_diffkd_agrees_with_diffusers(steps: int) -> None:
    ours = FeatureDDIMScheduler(timestep_spacing="diffkd")
    ours.set_timesteps(steps)
    theirs = _diffusers(steps)
    assert ours.timesteps.tolist() == theirs.timesteps[steps:].tolist()
    mix = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(9)))[0]
    mine = other = _features(steps)
    for t in ours.timesteps:
        sample, noise = 3 * _features(1000 + int(t)), _features(2000 + int(t))
        expected = theirs.step(noise, t, sample).prev_sample
        limit = 1e-6 * max(1.0, float(sample.abs().max()))
        assert (ours.step(noise, t, sample).prev_sample - expected).abs().max() <= limit
        # The loop, with a denoiser that depends on state and level.
        level = 0.5 + float(t) / 1000
        mine = ours.step(torch.tanh(level * mine @ mix), t, mine).prev_sample
        other = theirs.step(torch.tanh(level * other @ mix), t, other).prev_sample
    assert mine.dtype == torch.float32
    assert (mine - other).abs().max() <= 2e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 8, 50])
def test_fixed_start_follows_the_closed_form(steps: int) -> None:
    scheduler = FeatureDDIMScheduler()
    scheduler.set_timesteps(steps)
    levels = [round(400 * (1 - i / steps)) for i in range(steps)]
    assert scheduler.timesteps.tolist() == levels
    bars = _alpha_bars()
    # A denoiser that knows the clean feature leads to it exactly, whatever the steps between.
    clean, noise = _features(1).double(), _features(2).double()
    state = bars[400].sqrt() * clean + (1 - bars[400]).sqrt() * noise
    for i, t in enumerate(levels):
        bar = bars[t]
        predicted = (state - bar.sqrt() * clean) / (1 - bar).sqrt()
        out = scheduler.step(predicted, t, state)
        after = bars[levels[i + 1]] if i + 1 < steps else torch.ones((), dtype=torch.float64)
        expected = after.sqrt() * clean + (1 - after).sqrt() * predicted
        assert torch.allclose(out.prev_sample, expected, atol=1e-5)
        assert torch.allclose(out.pred_original_sample, clean, atol=1e-5)
        state = out.prev_sample
    assert torch.allclose(state, clean, atol=1e-5)


def test_five_steps_are_those_of_the_method() -> None:
    for spacing, levels in (
        ("fixed_start", [400, 320, 240, 160, 80]),
        ("diffkd", [400, 300, 200, 100, 0]),
    ):
        scheduler = FeatureDDIMScheduler(timestep_spacing=spacing)
        scheduler.set_timesteps(5)
        assert scheduler.timesteps.tolist() == levels
        assert scheduler.schedule(5) == list(zip(levels, [*levels[1:], -1], strict=True))


def test_noise_is_added_by_the_closed_form() -> None:
    scheduler = FeatureDDIMScheduler()
    clean, noise = _features(3), _features(4)
    timesteps = torch.tensor([0, 400])
    bar = _alpha_bars()[timesteps][:, None, None]
    expected = bar.sqrt() * clean + (1 - bar).sqrt() * noise
    noisy = scheduler.add_noise(clean, noise, timesteps)
    assert torch.allclose(noisy, expected.float(), atol=1e-5)
    assert torch.allclose(noisy, _diffusers(5).add_noise(clean, noise, timesteps), atol=1e-6)


def test_half_precision_keeps_its_type_and_full_coefficients() -> None:
    scheduler = FeatureDDIMScheduler()
    scheduler.set_timesteps(5)
    state, noise = _features(5).bfloat16(), _features(6).bfloat16()
    assert scheduler.add_noise(state, noise, torch.tensor([3, 99])).dtype == torch.bfloat16
    assert scheduler.step(noise, 400, state).prev_sample.dtype == torch.bfloat16
    assert scheduler.alpha_bar(400) == pytest.approx(float(_alpha_bars()[400]), rel=1e-5)
    assert scheduler.alpha_bar(-1) == 1.0


def test_configuration_survives_a_folder(tmp_path: Path) -> None:
    saved = FeatureDDIMScheduler(
        num_train_timesteps=500,
        beta_start=2e-4,
        beta_end=0.03,
        start_timestep=200,
        timestep_spacing="diffkd",
    )
    saved.save_pretrained(tmp_path)
    loaded = FeatureDDIMScheduler.from_pretrained(tmp_path)
    assert loaded.alphas_cumprod == saved.alphas_cumprod
    assert loaded.schedule(7) == saved.schedule(7)
    assert len(loaded) == 500
    again = FeatureDDIMScheduler.from_config(saved.config)
    assert again.schedule(3) == saved.schedule(3)


def test_construction_on_the_meta_device_leaves_a_working_scheduler() -> None:
    with torch.device("meta"):
        scheduler = FeatureDDIMScheduler()
        scheduler.set_timesteps(5, device="cpu")
    plain = FeatureDDIMScheduler()
    plain.set_timesteps(5)
    out = scheduler.step(_features(7), 400, _features(8)).prev_sample
    assert torch.equal(out, plain.step(_features(7), 400, _features(8)).prev_sample)


def test_a_tuple_on_request() -> None:
    scheduler = FeatureDDIMScheduler()
    scheduler.set_timesteps(2)
    full = scheduler.step(_features(1), 400, _features(2))
    bare = scheduler.step(_features(1), 400, _features(2), return_dict=False)
    assert torch.equal(full.prev_sample, bare[0])
    assert torch.equal(full.pred_original_sample, bare[1])


def test_errors_name_the_value() -> None:
    with pytest.raises(ValueError, match="timestep_spacing.*'leading'"):
        FeatureDDIMScheduler(timestep_spacing="leading")
    for start in (0, 1000):
        with pytest.raises(ValueError, match=f"start_timestep.*{start}"):
            FeatureDDIMScheduler(start_timestep=start)
    scheduler = FeatureDDIMScheduler()
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.step(_features(1), 400, _features(1))
    for steps in (0, -1, 401):
        with pytest.raises(ValueError, match=f"num_inference_steps.*{steps}"):
            scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match="num_inference_steps.*501"):
        FeatureDDIMScheduler(timestep_spacing="diffkd").schedule(501)
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="timestep 399"):
        scheduler.step(_features(1), 399, _features(1))


@pytest.mark.parametrize(("level", "previous"), [(400, 320), (80, -1), (37, 5)])
def test_a_turn_by_velocity_is_a_step_by_noise(level: int, previous: int) -> None:
    scheduler = FeatureDDIMScheduler()
    sample, velocity = _features(6), _features(7)
    noise = noise_from_velocity(velocity, sample, scheduler.alpha_bar(level))
    expected, _ = scheduler.move(noise, level, previous, sample)
    assert torch.allclose(scheduler.turn(velocity, level, previous, sample), expected, atol=1e-5)
