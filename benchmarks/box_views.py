"""Validation views behind the backbone: run once, then judged again with one box changed.

Everything above the backbone costs a sixth of it, so its hidden states are kept (1.6 MB a view of a
ViT-S in float32), and the model's own forward pass runs on them for every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear
from pfd_iqa_hf.modeling.feature_unet import noise_from_velocity
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.ablations import StoredBackbone
from pfd_iqa_hf.training.batches import normalise
from pfd_iqa_hf.training.teacher import Teacher
from pfd_iqa_hf.training.validation import centre_crop, within_group_srcc

SIDE = 224
Inputs = Callable[[slice], dict[str, Any]]


@dataclass
class Kept:
    """What the unchanged model makes of all n views, float32.

    Args:
        scores: Scores in points, (n,).
        student: F^s, mean over the tokens, (n, D).
        clean: LN proj F^f of (8), (n, N, D').
        aligned: F̂_T, (n, N, D').
        condition: c, (n, 2, D').
        gamma: γ, (n,).
        scale_rms: Root mean square of the fusion's scale.
        prior_alignment: CKA of F̂^d and F̂^q over all tokens.
    """

    scores: np.ndarray
    student: torch.Tensor
    clean: torch.Tensor
    aligned: torch.Tensor
    condition: torch.Tensor
    gamma: torch.Tensor
    scale_rms: float
    prior_alignment: float


class BoxViews:
    """Centre crops of rated pictures, as `validate` sees them, behind the backbone and the teacher.

    Args:
        model: The model; its backbone is replaced by the stored states.
        teacher: Its teacher; None leaves `targets` None.
        ratings: The pictures.
        batch_size: Views at once.
        dtype: Type to compute in, by autocast; float32 is that of the weights.
    """

    def __init__(
        self,
        model: Any,
        teacher: Teacher | None,
        ratings: Sequence[Rating],
        batch_size: int,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.base, self.ratings = model, model.pfd_iqa, list(ratings)
        self.batch_size, self.dtype = batch_size, dtype
        patch = self.base.patch_size
        self.grid = (SIDE // patch[0], SIDE // patch[1])
        self.latents = self.base._latents_for(self.grid)
        levels = model.config.feature_levels
        states, targets = [], []
        for rows in tqdm(self.batches(), unit=" batches"):
            pixels = torch.stack(
                [normalise(centre_crop(open_picture(r.image))) for r in self.ratings[rows]]
            )
            with self.computing():
                output = self.base.vision_model(pixel_values=pixels, output_hidden_states=True)
                states.append(torch.stack([output.hidden_states[level] for level in levels], 1))
                if teacher is not None:
                    targets.append(teacher(pixels)["teacher_features"].float())
        self.states = torch.cat(states)  # (n, levels, 1 + N, D)
        self.targets: Any = torch.cat(targets) if targets else None  # F_0^t, (n, N, D')
        self.backbone = StoredBackbone(self.base.vision_model, levels)
        self.base.vision_model = self.backbone

    def batches(self) -> list[slice]:
        """Rows of each batch."""
        starts = range(0, len(self.ratings), self.batch_size)
        return [slice(start, min(start + self.batch_size, len(self.ratings))) for start in starts]

    def computing(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        if self.dtype == torch.float32:
            return cpu_linear(self.model)
        return torch.autocast("cpu", self.dtype)

    def outputs(self, inputs: Inputs | None = None) -> Iterator[tuple[slice, Any]]:
        """The model's output for each batch, with further inputs of its forward pass."""
        for rows in self.batches():
            self.backbone.states = self.states[rows]
            pixels = torch.zeros(1, 3, SIDE, SIDE).expand(rows.stop - rows.start, -1, -1, -1)
            with self.computing():
                further = inputs(rows) if inputs is not None else {}
                yield rows, self.model(pixels, output_features=True, **further)

    def scores(self, inputs: Inputs | None = None) -> np.ndarray:
        """Scores in points, (n,)."""
        found = [output.logits.float() for _, output in self.outputs(inputs)]
        return torch.cat(found).numpy()

    def judged(self, refined: torch.Tensor) -> np.ndarray:
        """Scores in points that the head gives refined features (R, N, D'), (R,)."""
        with torch.autocast("cpu", enabled=False):
            logit = self.model.head(refined.float()).logit
        return (100 * logit.sigmoid()).numpy()

    def rescored(self, aligned: torch.Tensor, condition: torch.Tensor) -> np.ndarray:
        """Scores after denoising and head from other F̂_T (n, N, D') or c (n, 2, D')."""
        found = []
        for rows in self.batches():
            with self.computing():
                refined = self.base.denoise(aligned[rows], self.grid, condition[rows])
                found.append(self.judged(refined))
        return np.concatenate(found)

    def noise_losses(self, condition: torch.Tensor, levels: Sequence[int]) -> np.ndarray:
        """(11) at each level for a condition (n, 2, D'); ε is the same in every call."""
        generator = torch.Generator().manual_seed(1)
        losses = np.zeros((len(self.batches()), len(levels)))
        for number, rows in enumerate(self.batches()):
            target = self.targets[rows]
            with self.computing():
                folded = self.base.denoiser.fold(condition[rows])
                for place, level in enumerate(levels):
                    epsilon = torch.randn(target.shape, generator=generator)
                    times = torch.full((len(target),), level)
                    noisy = self.base.scheduler.add_noise(target, epsilon, times)
                    velocity = self.base.denoiser(noisy, times, self.grid, folded)
                    alpha_bar = self.base.scheduler.alpha_bar(level)
                    predicted = noise_from_velocity(velocity, noisy, alpha_bar)
                    losses[number, place] = float((predicted - epsilon).square().mean())
        sizes = [rows.stop - rows.start for rows in self.batches()]
        return np.average(losses, axis=0, weights=sizes)

    def scores_after_steps(self, kept: Kept) -> dict[str, np.ndarray]:
        """Scores of the state and of the foreseen clean feature after each step, (steps, n)."""
        found: dict[str, list[list[np.ndarray]]] = {"state": [], "foreseen": []}
        schedule = self.base.scheduler.schedule(self.model.config.num_inference_steps)
        for rows in self.batches():
            after: dict[str, list[np.ndarray]] = {"state": [], "foreseen": []}
            with self.computing():
                folded = self.base.denoiser.fold(kept.condition[rows])
                state = kept.aligned[rows]
                for level, previous in schedule:
                    time = torch.full((1,), float(level))
                    velocity = self.base.denoiser(state, time, self.grid, folded)
                    alpha_bar = self.base.scheduler.alpha_bar(level)
                    noise = noise_from_velocity(velocity, state, alpha_bar)
                    state, clean = self.base.scheduler.move(noise, level, previous, state)
                    after["state"].append(self.judged(state))
                    after["foreseen"].append(self.judged(clean))
            for name, scores in after.items():
                found[name].append(scores)
        return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}

    def within(self, scores: np.ndarray) -> float:
        """Mean SRCC within the subsets."""
        return within_group_srcc(scores, self.ratings)

    def kept(self) -> Kept:
        """One pass of the unchanged model."""
        parts: dict[str, list[torch.Tensor]] = {}
        squares, entries = 0.0, 0
        alignment = LinearAlignment()
        for _, output in self.outputs():
            features = output.features
            gamma = features.alignment_weight.float()
            weight = gamma[:, None, None]
            aligned = features.aligned.float()
            for name, values in {
                "scores": output.logits,
                "student": features.student.mean(dim=1),
                # (8), the other way round
                "clean": (aligned - (1 - weight) * self.latents) / weight,
                "aligned": aligned,
                "condition": features.condition,
                "gamma": gamma,
            }.items():
                parts.setdefault(name, []).append(values.float())
            if features.modulation is not None:
                scale = features.modulation.float().chunk(2, dim=-1)[0]
                squares += float(scale.square().sum())
                entries += scale.numel()
            alignment.add(features.distortion_prior, features.quality_prior)
        whole = {name: torch.cat(values) for name, values in parts.items()}
        return Kept(
            scores=whole.pop("scores").numpy(),
            scale_rms=(squares / max(entries, 1)) ** 0.5,
            prior_alignment=alignment.value(),
            **whole,
        )


class LinearAlignment:
    """Linear CKA of two features over all tokens, from sums that batches are added to."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Any] = [0.0] * 5

    def add(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Two features of the same tokens, (R, N, D) each."""
        x, y = first.double().flatten(0, 1), second.double().flatten(0, 1)
        self.count += len(x)
        new = (x.sum(0), y.sum(0), x.T @ y, x.T @ x, y.T @ y)
        self.sums = [old + part for old, part in zip(self.sums, new, strict=True)]

    def value(self) -> float:
        """‖Xᵀ Y‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) of the centred features: 0 to 1."""
        x, y, xy, xx, yy = self.sums
        cross = xy - torch.outer(x, y) / self.count
        own = [part - torch.outer(mean, mean) / self.count for part, mean in ((xx, x), (yy, y))]
        return float(cross.square().sum() / (own[0].norm() * own[1].norm()))
