"""DDIM for features: the noise schedule (10) and the deterministic refinement steps (12)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

__all__ = ["FeatureDDIMScheduler", "FeatureDDIMSchedulerOutput"]


@dataclass
class FeatureDDIMSchedulerOutput(BaseOutput):
    """What a step returns.

    Args:
        prev_sample: The feature one step nearer to clean, shape of `sample`.
        pred_original_sample: The clean feature that this step foresees, shape of `sample`.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class FeatureDDIMScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Deterministic DDIM (eta = 0, noise prediction, no clipping) that starts at a low noise level.

    Its coefficients are Python numbers, not tensors: they survive construction on the meta device,
    are never cast to half precision, and leave no data-dependent branch in a compiled graph.

    | symbol of (12) | here |
    |---|---|
    | β_t | linear from `beta_start` to `beta_end` over `num_train_timesteps` |
    | ᾱ_t | `alphas_cumprod[t]`; 1 after the last step |
    | ε_θ | `model_output` |
    | F̂_t, F̂_{t'} | `sample`, `prev_sample` |

    Args:
        num_train_timesteps: Length of the schedule.
        beta_start: β at t = 0.
        beta_end: β at the last t.
        start_timestep: Level at which `"fixed_start"` begins, whatever the number of steps.
        timestep_spacing: `"fixed_start"`: t_i = start·(1 − i/S), i < S; steps can be compared.
            `"diffkd"`: the second half of what diffusers' `DDIMScheduler` visits in 2·S leading
            steps, as DiffKD does.

    Example:
        >>> scheduler = FeatureDDIMScheduler()
        >>> scheduler.set_timesteps(5)
        >>> scheduler.timesteps.tolist()
        [400, 320, 240, 160, 80]
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        start_timestep: int = 400,
        timestep_spacing: str = "fixed_start",
    ) -> None:
        if timestep_spacing not in ("fixed_start", "diffkd"):
            raise ValueError(
                f"'timestep_spacing' must be 'fixed_start' or 'diffkd', got {timestep_spacing!r}"
            )
        if not 0 < start_timestep < num_train_timesteps:
            raise ValueError(
                f"'start_timestep' must lie between 0 and {num_train_timesteps}, "
                f"got {start_timestep}"
            )
        self._start, self._total, self._spacing = (
            start_timestep,
            num_train_timesteps,
            timestep_spacing,
        )
        # fp32 on the CPU, as diffusers computes them, so that both agree to the last bit.
        betas = torch.linspace(
            beta_start, beta_end, num_train_timesteps, dtype=torch.float32, device="cpu"
        )
        self.alphas_cumprod: list[float] = torch.cumprod(1.0 - betas, dim=0).tolist()
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self.timesteps = torch.empty(0, dtype=torch.int64, device="cpu")
        self._previous: dict[int, int] = {}

    def schedule(self, num_inference_steps: int) -> list[tuple[int, int]]:
        """Pairs (t, t') of the refinement, noisiest first; t' = −1 stands for the clean end.

        Stateless, so that threads may share a scheduler.

        Args:
            num_inference_steps: Number of steps S, at least 1.

        Raises:
            ValueError: more steps than the spacing has distinct levels for.
        """
        steps = num_inference_steps
        start, total = self._start, self._total
        limit = start if self._spacing == "fixed_start" else total // 2
        if not 1 <= steps <= limit:
            raise ValueError(
                f"'num_inference_steps' must be from 1 to {limit} for spacing "
                f"'{self._spacing}', got {steps}"
            )
        if self._spacing == "fixed_start":
            levels = [round(start * (1 - i / steps)) for i in range(steps)]
        else:
            ratio = total // (2 * steps)
            levels = [i * ratio for i in reversed(range(2 * steps))][steps:]
            # leading spacing goes on to t − ratio, which is below 0 only after the last step
        return list(zip(levels, [*levels[1:], -1], strict=True))

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None
    ) -> None:
        """Choose the number of steps for `step`; see `schedule` for the levels."""
        pairs = self.schedule(num_inference_steps)
        self.num_inference_steps = num_inference_steps
        self._previous = dict(pairs)
        self.timesteps = torch.tensor([t for t, _ in pairs], dtype=torch.int64, device=device)

    def alpha_bar(self, timestep: int) -> float:
        """ᾱ_t; 1 for the clean end (t = −1)."""
        return 1.0 if timestep < 0 else self.alphas_cumprod[timestep]

    def alpha_bars(self, timesteps: torch.Tensor) -> torch.Tensor:
        """ᾱ of a batch of levels t, (B,) integers; (B,) fp32."""
        table = torch.tensor(self.alphas_cumprod, dtype=torch.float32, device=timesteps.device)
        return table[timesteps]

    def move(
        self, model_output: torch.Tensor, timestep: int, previous: int, sample: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of (12) from `timestep` to `previous`; stateless and free of branches.

        Returns:
            The next feature and the clean feature foreseen, both of `sample`'s shape.
        """
        alpha, alpha_previous = self.alpha_bar(timestep), self.alpha_bar(previous)
        clean = (sample - math.sqrt(1 - alpha) * model_output) / math.sqrt(alpha)
        noise_part = math.sqrt(1 - alpha_previous)
        return math.sqrt(alpha_previous) * clean + noise_part * model_output, clean

    def turn(
        self, velocity: torch.Tensor, timestep: int, previous: int, sample: torch.Tensor
    ) -> torch.Tensor:
        """One step of (12) by the velocity v = √ᾱ ε − √(1−ᾱ) F_0 instead of the noise.

        Sample and velocity are clean feature and noise, turned by the angle whose cosine is √ᾱ;
        with η = 0 a step turns them back by the difference of two such angles.

        Returns:
            What `move` returns first for the noise of that velocity.
        """
        angle = math.acos(math.sqrt(self.alpha_bar(timestep)))
        back = angle - math.acos(math.sqrt(self.alpha_bar(previous)))
        return torch.add(math.cos(back) * sample, velocity, alpha=-math.sin(back))

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> FeatureDDIMSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One refinement step after `set_timesteps`, the interface of diffusers' schedulers.

        Args:
            model_output: Predicted noise ε_θ, any shape.
            timestep: Current level t, one of `timesteps`.
            sample: Current feature F̂_t, shape of `model_output`.
            return_dict: Return a `FeatureDDIMSchedulerOutput` instead of a tuple.

        Raises:
            ValueError: `set_timesteps` was not called, or `timestep` is none of its levels.
        """
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps(num_inference_steps) before step()")
        level = int(timestep)
        if level not in self._previous:
            raise ValueError(f"timestep {level} is none of {list(self._previous)}")
        previous, clean = self.move(model_output, level, self._previous[level], sample)
        if not return_dict:
            return previous, clean
        return FeatureDDIMSchedulerOutput(prev_sample=previous, pred_original_sample=clean)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """(10): the teacher feature at level t.

        Args:
            original_samples: Clean features F_0, shape (B, …).
            noise: Standard normal ε of the same shape.
            timesteps: Levels t, shape (B,), integers.

        Returns:
            √ᾱ_t F_0 + √(1−ᾱ_t) ε, shape (B, …).
        """
        alpha = self.alpha_bars(timesteps.to(original_samples.device)).reshape(
            -1, *[1] * (original_samples.dim() - 1)
        )
        noisy = alpha.sqrt() * original_samples + (1 - alpha).sqrt() * noise
        return noisy.to(original_samples.dtype)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | None = None) -> torch.Tensor:
        """DDIM needs no scaling of its input; here for interchange with other schedulers."""
        return sample

    def __len__(self) -> int:
        """Length of the training schedule."""
        return self._total
