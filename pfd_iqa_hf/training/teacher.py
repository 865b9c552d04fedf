"""The teacher: image tower and prompts, tuned as LIQE tunes CLIP; needed in training only.

Untuned features describe content, which is the very noise the method removes.  So the tower is
tuned first, on degraded pristine photographs (type of the distortion) and on opinion scores (soft
quality levels); then it is frozen and hands out pseudo-labels p and pseudo-features F_0^t.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pfd_iqa_hf.training.arguments import UsageError
from pfd_iqa_hf.training.optimization import backbone_layers

__all__ = ["Teacher", "load_teacher", "soft_levels"]

_AFTER_THE_LAYERS = {"layernorm", "post_layernorm", "pooler", "head"}


def soft_levels(scores: torch.Tensor, levels: int = 5, spread: float = 9.0) -> torch.Tensor:
    """Soft quality levels of opinion scores: a normal law around the score over the bands.

    Args:
        scores: Opinion scores, 0 to 100, (B,).
        levels: Number of equal bands.
        spread: Standard deviation in score points, about that of a mean of few opinions.

    Returns:
        Probabilities, worst band first, (B, levels).
    """
    borders = torch.linspace(0, 100, levels + 1, device=scores.device)
    borders[0], borders[-1] = -torch.inf, torch.inf
    cumulative = torch.special.ndtr((borders - scores.float()[:, None]) / spread)
    return cumulative[:, 1:] - cumulative[:, :-1]


class Teacher(nn.Module):
    """Image tower with several fused levels, compared with the prompts of both tasks.

    Args:
        vision_model: A transformers vision transformer, cut off after the last fused layer.
        distortion_prompts: T^d, centred and normalised, (K_d, D_text).
        quality_prompts: T^q, likewise, (K_q, D_text).
        target_width: D', width of the pseudo-features.
        levels: Layers of the tower that are fused.
    """

    distortion_prompts: torch.Tensor
    quality_prompts: torch.Tensor
    encoder: torch.Tensor
    encoder_mean: torch.Tensor

    def __init__(
        self,
        vision_model: Any,
        distortion_prompts: torch.Tensor,
        quality_prompts: torch.Tensor,
        target_width: int,
        levels: tuple[int, ...] = (4, 7, 10),
    ) -> None:
        super().__init__()
        self.vision_model: Any = vision_model
        self.levels = levels
        width = vision_model.config.hidden_size
        self.level_norms = nn.ModuleList(nn.LayerNorm(width) for _ in levels)
        self.level_projections = nn.ModuleList(nn.Linear(width, width) for _ in levels)
        self.feature_norm = nn.LayerNorm(width)
        self.embed_hidden = nn.Linear(2 * width, width)
        self.embed = nn.Linear(width, 2 * distortion_prompts.shape[-1])
        self.log_scale = nn.Parameter(torch.tensor(2.3))
        self.register_buffer("distortion_prompts", distortion_prompts.clone())
        self.register_buffer("quality_prompts", quality_prompts.clone())
        # E of (9): set by `fit_encoder`, the best linear autoencoder of the tuned features.
        self.register_buffer("encoder", torch.zeros(width, target_width))
        self.register_buffer("encoder_mean", torch.zeros(width))

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """F^t: fused patch tokens, (R, N_t, D_t)."""
        states = self.vision_model(
            pixel_values=pixel_values, output_hidden_states=True
        ).hidden_states
        patch = self.vision_model.config.patch_size
        tokens = (pixel_values.shape[-2] // patch) * (pixel_values.shape[-1] // patch)
        parts = [
            project(norm(states[level][:, -tokens:]))
            for level, norm, project in zip(
                self.levels, self.level_norms, self.level_projections, strict=True
            )
        ]
        return self.feature_norm(torch.stack(parts).sum(0))

    def logits(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits s·⟨e^t, T_k⟩ of both tasks, (R, K_d) and (R, K_q), from F^t (R, N_t, D_t)."""
        mean = features.mean(dim=1)
        deviation = (features - mean[:, None]).square().mean(dim=1).clamp(min=1e-6).sqrt()
        hidden = F.gelu(self.embed_hidden(torch.cat([mean, deviation], dim=-1)))
        first, second = self.embed(hidden).float().chunk(2, dim=-1)
        scale = self.log_scale.exp()
        return (
            scale * F.normalize(first, dim=-1) @ self.distortion_prompts.T,
            scale * F.normalize(second, dim=-1) @ self.quality_prompts.T,
        )

    @torch.no_grad()
    def fit_encoder(self, features: torch.Tensor) -> float:
        """Set E to the linear map that reconstructs F^t best: its leading principal directions.

        Args:
            features: Sample of tuned tokens, (M, D_t).

        Returns:
            Share of variance that E keeps, 0 to 1.
        """
        self.encoder_mean.copy_(features.float().mean(0))
        centred = features.float() - self.encoder_mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        keep = self.encoder.shape[1]
        # Equal variances: LN would otherwise let three directions rule the target.
        leading = values[-keep:].clamp(min=1e-8)
        self.encoder.copy_(vectors[:, -keep:] * (leading.mean() / leading).sqrt().sqrt())
        return float(values[-keep:].sum() / values.sum())

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        """Pseudo-labels and pseudo-features of views.

        Args:
            pixel_values: Normalised views, (R, 3, H, W).

        Returns:
            `teacher_features` F_0^t (R, N, D'), `teacher_distortion_probabilities` (R, K_d) and
            `teacher_level_probabilities` (R, K_q), named as the model takes them.
        """
        features = self.features(pixel_values)
        distortion, quality = self.logits(features)
        encoded = (features.float() - self.encoder_mean) @ self.encoder
        return {
            "teacher_features": F.layer_norm(encoded, encoded.shape[-1:]),  # (9)
            "teacher_distortion_probabilities": distortion.softmax(-1),
            "teacher_level_probabilities": quality.softmax(-1),
        }

    @classmethod
    def from_student(cls, student: Any, **kwargs: Any) -> Teacher:
        """A teacher on a copy of a student's still untuned backbone, with its prompts and width.

        Args:
            student: A new `PfdIqaForImageQualityAssessment`.
            **kwargs: `levels`, as for the class; default: 4, 7 and 10 twelfths of the depth.
        """
        tower = copy.deepcopy(student.vision_model)
        depth = tower.config.num_hidden_layers
        levels = sorted({-(-depth * share // 12) for share in (4, 7, 10)})
        kwargs.setdefault("levels", tuple(levels))
        layers = backbone_layers(tower)
        del layers[kwargs["levels"][-1] :]
        tower.config.num_hidden_layers = len(layers)
        tower.requires_grad_(True)
        for name, parameter in tower.named_parameters():
            # What comes after the last fused layer is run but not read.
            if "mask_token" in name or name.split(".")[0] in _AFTER_THE_LAYERS:
                parameter.requires_grad_(False)
        return cls(
            tower,
            student.pfd_iqa.distortion_prompts,
            student.pfd_iqa.quality_prompts,
            student.config.denoising_width,
            **kwargs,
        )


def load_teacher(path: str, student: Any) -> Teacher:
    """The frozen teacher of an earlier training.

    Args:
        path: Its `checkpoints/teacher.safetensors`.
        student: A model on the same towers.

    Raises:
        UsageError: the file is missing, or of other towers or widths.
    """
    teacher = Teacher.from_student(student)
    try:
        teacher.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"--teacher {path} does not fit ({error}); give checkpoints/teacher.safetensors of a "
            "training from scratch with the same towers and widths"
        ) from error
    return teacher.eval().requires_grad_(False)
