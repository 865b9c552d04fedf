"""What a step of either stage minimises, as modules: the accelerator wraps them like any model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pfd_iqa_hf.modeling.counterfactuals import view_logits_without
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.outputs import PfdIqaFeatures
from pfd_iqa_hf.modeling.prior_discovery import pseudo_label_divergence
from pfd_iqa_hf.training.losses import (
    composition_loss,
    correlation_loss,
    counterfactual_loss,
    known_score_loss,
    map_ranking_loss,
    ranking_loss,
)
from pfd_iqa_hf.training.teacher import Teacher, soft_levels

__all__ = ["StudentObjective", "TeacherBank", "TeacherObjective", "freeze_unreached"]

_MODEL_INPUTS = ("token_mask", "latents", "timesteps", "diffusion_latents")
Gather = Callable[[torch.Tensor], torch.Tensor]


class TeacherObjective(nn.Module):
    """Type of known distortions, soft levels of opinion scores, vague levels of degraded views.

    Args:
        teacher: What is tuned.
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        """The loss of a batch of `RecipeBatches`, and its parts."""
        distortion, quality = self.teacher.logits(self.teacher.features(batch["pixel_values"]))
        known = batch["known_distortion"].isfinite().all(-1)
        target = batch["known_distortion"][known]
        rated = batch["labels"].isfinite()
        level = batch["level"]
        degraded = level >= 0
        # A degraded photograph has no opinion score; a vague one by its level keeps the order.
        guess = soft_levels(78.0 - 13.0 * level[degraded].float(), spread=15.0)
        parts = {
            "type": _cross_entropy(target, distortion[known]),
            "level": _cross_entropy(soft_levels(batch["labels"][rated]), quality[rated]),
            "vague_level": _cross_entropy(guess, quality[degraded]),
        }
        loss = parts["type"] + parts["level"] + 0.3 * parts["vague_level"]
        right = distortion[known].argmax(-1) == target.argmax(-1)
        parts["type_accuracy"] = right.float().mean() if len(right) else loss.new_zeros(())
        return loss, parts


class StudentObjective(nn.Module):
    """The model's own loss, and those that need several pictures: correlation, ranking, (18).

    Args:
        model: What is trained.
        rated: Rows with an opinion score, which come first in a batch.
        weights: Of "correlation", "within_group" (the same within subsets), "ranking", "map",
            "map_ranking", "names", "counterfactual" and "pseudo_score"; 0 where one is missing.
        gather: Joins a tensor over all processes along its first dimension.
        process: Number of this process.
    """

    def __init__(
        self,
        model: PfdIqaForImageQualityAssessment,
        rated: int,
        weights: dict[str, float],
        gather: Gather | None = None,
        process: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.rated = rated
        self.weights = weights
        self._gather = gather
        self._process = process

    def forward(
        self, batch: dict[str, torch.Tensor], targets: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The whole loss of a batch, and its parts.

        Args:
            batch: From `RecipeBatches`.
            targets: What a `Teacher` returned for the batch; None trains on opinions alone.
        """
        # Without a teacher masks and noise are drawn only if the run asks for them.
        inputs: dict[str, Any] = {name: batch[name] for name in _MODEL_INPUTS if name in batch}
        if targets is not None:
            inputs |= targets
            known = batch["known_distortion"]
            # Where the distortion is known by construction, it corrects the teacher's opinion.
            inputs["teacher_distortion_probabilities"] = torch.where(
                known.isfinite(), known, targets["teacher_distortion_probabilities"].float()
            )
        triples = len(batch["gap"]) > 0
        # Untouched views beside degraded ones, of which the only distortion is known.
        known = batch["known_distortion"][self.rated + 1 :: 3].amax(-1) > 0.5
        untouched = ((batch["level"][self.rated :: 3] == 0) & known).nonzero()[:, 0]
        counterfactual = self.weights.get("counterfactual", 0.0) if len(untouched) else 0.0
        output = self.model(
            batch["pixel_values"],
            labels=batch["labels"],
            output_quality_map=triples,
            output_features=bool(counterfactual or self.weights.get("names")),
            **inputs,
        )
        parts = dict(output.loss_parts)
        loss = output.loss
        correlations = {
            name: self.weights.get(name, 0.0) for name in ("correlation", "within_group")
        }
        if any(correlations.values()):
            scores, labels, groups, worlds = self._over_all_processes(
                output.logits[: self.rated],
                batch["labels"][: self.rated],
                batch["group"][: self.rated],
            )
            for name, weight in correlations.items():
                within = groups if name == "within_group" else None
                parts[name] = correlation_loss(scores, labels, within)
                # The processes' gradients are averaged, and each holds its own rows' share alone.
                loss = loss + weight * worlds * parts[name]
        if triples:
            triple = output.view_logits[self.rated :, 0].unflatten(0, (-1, 3))
            mild, strong, _ = triple.unbind(1)
            maps = output.token_values[self.rated :, 0].unflatten(0, (-1, 3))
            parts["ranking"] = ranking_loss(mild, strong, batch["gap"])
            parts["map"] = composition_loss(maps[:, 0], maps[:, 1], maps[:, 2], batch["mask"])
            loss = loss + self.weights["ranking"] * parts["ranking"]
            loss = loss + self.weights["map"] * parts["map"]
            if self.weights.get("map_ranking"):
                parts["map_ranking"] = map_ranking_loss(maps[:, 0], maps[:, 2], batch["mask"])
                loss = loss + self.weights["map_ranking"] * parts["map_ranking"]
            if self.weights.get("pseudo_score"):
                parts["pseudo_score"] = known_score_loss(
                    output.view_logits[:, 0], batch["pseudo_score"] / 100
                )
                loss = loss + self.weights["pseudo_score"] * parts["pseudo_score"]
        if self.weights.get("names"):
            parts |= self._names(output.features, batch)
            loss = loss + self.weights["names"] * (parts["names"] + parts["levels"])
        if counterfactual:
            rows = self.rated + 3 * untouched
            parts["counterfactual"] = self._counterfactual(output, batch, rows)
            loss = loss + counterfactual * parts["counterfactual"]
        return loss, parts

    def _names(
        self, features: PfdIqaFeatures, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Divergence of both tasks from what is known: degradations made here, people's levels."""
        known = batch["known_distortion"].isfinite().all(-1)
        rated = batch["labels"].isfinite()
        distortion, quality = features.distortion_logits, features.quality_logits
        assert distortion is not None and quality is not None
        levels = soft_levels(batch["labels"][rated], quality.shape[-1])
        return {
            "names": pseudo_label_divergence(distortion[known], batch["known_distortion"][known])
            if known.any()
            else distortion.sum() * 0.0,
            "levels": pseudo_label_divergence(quality[rated], levels),
        }

    def _counterfactual(
        self, output: Any, batch: dict[str, torch.Tensor], clean: torch.Tensor
    ) -> torch.Tensor:
        """The loss over pairs of views: rows `clean` and, one further, their degraded copies."""
        rows = clean + 1
        features = PfdIqaFeatures(
            aligned=output.features.aligned[rows],
            distortion_logits=output.features.distortion_logits[rows],
            quality_logits=output.features.quality_logits[rows],
            class_token=output.features.class_token[rows],
        )
        known = batch["known_distortion"][rows]
        count = known.shape[-1]
        own = F.one_hot(known.argmax(-1), count).bool()
        rest = output.features.distortion_logits[rows].detach().masked_fill(own, -torch.inf)
        rest[:, 0] = -torch.inf  # `none`
        other = F.one_hot(rest.argmax(-1), count).bool()
        height, width = batch["pixel_values"].shape[-2:]
        patch = self.model.pfd_iqa.patch_size
        grid = (height // patch[0], width // patch[1])
        logits = output.view_logits[:, 0]
        return counterfactual_loss(
            view_logits_without(self.model, features, grid, own),
            logits[clean],
            view_logits_without(self.model, features, grid, other),
            logits[rows],
        )

    def _over_all_processes(
        self, scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Scores of every process, with a gradient to this one's, and all else; their number."""
        if self._gather is None:
            return scores, labels, groups, 1
        everyone = list(self._gather(scores.detach()).split(len(scores)))
        everyone[self._process] = scores
        return torch.cat(everyone), self._gather(labels), self._gather(groups), len(everyone)


class TeacherBank:
    """A teacher's answers to fixed views, kept on disk: it looks at each view once.

    Answers are stored and returned in half precision, the first time too, so that a run that goes
    on reads what it would have computed.

    Args:
        teacher: The frozen teacher.
        folder: Where the answers lie.
        views: Number of fixed views.
        tokens: N of a view.
    """

    def __init__(self, teacher: Teacher, folder: Path, views: int, tokens: int) -> None:
        self.teacher = teacher
        folder.mkdir(parents=True, exist_ok=True)
        self._shapes = {
            "teacher_features": (tokens, teacher.encoder.shape[1]),
            "teacher_distortion_probabilities": (len(teacher.distortion_prompts),),
            "teacher_level_probabilities": (len(teacher.quality_prompts),),
        }
        self._stores = {
            name: _open(folder / f"{name}.f16", np.float16, (views, *shape))
            for name, shape in self._shapes.items()
        }
        self._known = _open(folder / "known.u1", np.uint8, (views,))

    def __call__(self, pixel_values: torch.Tensor, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Targets of views, as `Teacher` returns them.

        Args:
            pixel_values: Normalised views, (R, 3, H, W).
            keys: Number of each fixed view, (R,); −1 for a view that will not come again.
        """
        places = keys.cpu().numpy()
        fixed = places >= 0
        new = ~fixed | (self._known[np.maximum(places, 0)] == 0)
        rows = torch.from_numpy(np.flatnonzero(new)).to(pixel_values.device)
        answers = {
            name: torch.zeros(len(places), *shape, dtype=torch.float16)
            for name, shape in self._shapes.items()
        }
        if len(rows):
            fresh = self.teacher(pixel_values[rows])
            stored = places[new & fixed]
            for name, values in fresh.items():
                half = values.half().cpu()
                answers[name][rows.cpu()] = half
                self._stores[name][stored] = half[torch.from_numpy(fixed[new])].numpy()
            self._known[stored] = 1
        old = np.flatnonzero(~new)
        for name, store in self._stores.items():
            if len(old):
                answers[name][torch.from_numpy(old)] = torch.from_numpy(store[places[old]])
        return {name: values.float().to(pixel_values.device) for name, values in answers.items()}


def freeze_unreached(objective: nn.Module, batch: dict[str, Any], *arguments: Any) -> list[str]:
    """Freeze parameters that the loss does not reach; distributed training would wait for them.

    Args:
        objective: Returns (loss, parts).
        batch: Any batch of the run.
        *arguments: Passed on to the objective.

    Returns:
        Names of the parameters.
    """
    loss, _ = objective(batch, *arguments)
    trained = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [p for _, p in trained], allow_unused=True)
    unreached = [(name, p) for (name, p), g in zip(trained, gradients, strict=True) if g is None]
    for _, parameter in unreached:
        parameter.requires_grad_(False)
    return [name for name, _ in unreached]


def _cross_entropy(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Mean over rows of −Σ p log q; 0 without rows."""
    if len(target) == 0:
        return logits.sum() * 0.0
    return -(target.float() * logits.float().log_softmax(-1)).sum(-1).mean()


def _open(path: Path, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    exists = path.exists() and path.stat().st_size == np.dtype(kind).itemsize * int(np.prod(shape))
    store = np.memmap(path, dtype=kind, mode="r+" if exists else "w+", shape=shape)
    if hasattr(os, "posix_fallocate"):
        # A hole that finds the disk full when it is filled ends the process with SIGBUS.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, store.nbytes)
    return store
