"""Validation, the bypass test of every box, and the calibration of the uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.evaluation.correlation import srcc
from pfd_iqa_hf.modeling.feature_unet import noise_from_velocity
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import BYPASSES, PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.batches import normalise
from pfd_iqa_hf.training.teacher import Teacher

__all__ = [
    "SMALLEST_GROUP",
    "calibrate",
    "centre_crop",
    "validate",
    "views_of",
    "within_group_srcc",
]

_CHECKED_LEVELS = (100, 200, 300, 400)
_PICTURES_AT_ONCE = 8
SMALLEST_GROUP = 5


def centre_crop(picture: Image.Image, size: int = 224) -> Image.Image:
    """The centre crop; black around a smaller picture."""
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def within_group_srcc(scores: np.ndarray, ratings: Sequence[Rating]) -> float:
    """Mean SRCC within the subsets of a set whose subsets differ in mean.

    Subsets of fewer than five pictures, or with one label, say nothing and are left out; without
    two that do it is the plain SRCC. NaN if all pictures have one score.
    """
    groups = np.array([rating.group or "" for rating in ratings])
    labels = np.array([rating.mos for rating in ratings])
    inside = [groups == name for name in np.unique(groups)]
    large = [rows for rows in inside if rows.sum() >= SMALLEST_GROUP and np.ptp(labels[rows]) > 0]
    if len(large) < 2 or np.ptp(scores) == 0:
        return srcc(scores, labels)
    found = [srcc(scores[rows], labels[rows]) for rows in large if np.ptp(scores[rows]) > 0]
    return float(np.mean(found)) if found else srcc(scores, labels)


@torch.inference_mode()
def validate(
    model: PfdIqaForImageQualityAssessment,
    ratings: Sequence[Rating],
    teacher: Teacher | None,
    dtype: torch.dtype | None = torch.bfloat16,
) -> dict[str, Any]:
    """Score one centre crop a picture, then again with each box bypassed.

    Args:
        model: The model.
        ratings: Validation pictures.
        teacher: Gives the clean features of the denoising loss; None leaves that loss out.
        dtype: Type to compute in; None takes that of the weights.

    Returns:
        `srcc`, `within`; for each box `without_<box>` (within-subset SRCC) and `moved_<box>` (RMS
        change of the scores in points); `gamma` and `gamma_deviation`; for each checked noise
        level t `noise_<t>`, the denoising loss over ᾱ_t, the loss of the best constant denoiser.
    """
    model.eval()
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in ("", *BYPASSES)}
    gammas: list[torch.Tensor] = []
    noise: dict[int, list[float]] = {level: [] for level in _CHECKED_LEVELS}
    generator = torch.Generator().manual_seed(1)
    for start in range(0, len(ratings), 16):
        views = []
        for rating in ratings[start : start + 16]:
            views.append(normalise(centre_crop(open_picture(rating.image))))
        pixels = torch.stack(views).to(model.device)
        with torch.autocast(pixels.device.type, dtype, enabled=dtype is not None):
            for name in scores:
                bypass = (name,) if name else ()
                output = model(pixels, bypass=bypass, output_features=not name)
                scores[name].append(output.logits.float().cpu())
                if name:
                    continue
                features = output.features
                gammas.append(features.alignment_weight.float().flatten().cpu())
                if teacher is None or not model.pfd_iqa.has_denoiser:
                    continue
                target = teacher(pixels)["teacher_features"].float()
                base = model.pfd_iqa
                grid = (224 // base.patch_size[0], 224 // base.patch_size[1])
                folded = base.denoiser.fold(features.condition)
                for level in _CHECKED_LEVELS:
                    epsilon = torch.randn(target.shape, generator=generator).to(target)
                    timesteps = torch.full((len(target),), level, device=target.device)
                    noisy = base.scheduler.add_noise(target, epsilon, timesteps)
                    velocity = base.denoiser(noisy, timesteps, grid, folded)
                    predicted = noise_from_velocity(
                        velocity, noisy, base.scheduler.alpha_bar(level)
                    )
                    noise[level].append(float((predicted - epsilon).square().mean()))
    whole = torch.cat(scores[""]).numpy()
    labels = np.array([rating.mos for rating in ratings])
    result = {"srcc": srcc(whole, labels), "within": within_group_srcc(whole, ratings)}
    for name in BYPASSES:
        other = torch.cat(scores[name]).numpy()
        result[f"without_{name}"] = within_group_srcc(other, ratings)
        result[f"moved_{name}"] = float(np.sqrt(np.mean((other - whole) ** 2)))
    gamma = torch.cat(gammas)
    result["gamma"], result["gamma_deviation"] = float(gamma.median()), float(gamma.std())
    for level, losses in noise.items():
        if not losses:
            continue
        result[f"noise_{level}"] = float(np.mean(losses)) / model.pfd_iqa.scheduler.alpha_bar(level)
    return {key: round(value, 4) for key, value in result.items()}


def views_of(processor: PfdIqaImageProcessor, ratings: Sequence[Rating]) -> Iterator[Any]:
    """The views of a test, a few pictures at a time, as the model takes them by keyword.

    Raises:
        PictureError: a picture cannot be read.
    """
    for start in range(0, len(ratings), _PICTURES_AT_ONCE):
        some = ratings[start : start + _PICTURES_AT_ONCE]
        pictures = [open_picture(rating.image) for rating in some]
        yield processor(images=pictures, return_tensors="pt")


@torch.inference_mode()
def calibrate(
    model: PfdIqaForImageQualityAssessment,
    ratings: Sequence[Rating],
    dtype: torch.dtype | None = torch.bfloat16,
) -> dict[str, Any]:
    """Fit (16) on held-back pictures with the views of the test; writes into the configuration.

    a and b minimise the Gaussian likelihood; both are then scaled together so that ±1.2816 σ is
    the conformal 80 % interval.  The likelihood's own width would suit a normal error only.

    Args:
        model: The trained model; its configuration is changed.
        ratings: Pictures that trained nothing.
        dtype: Type to compute in; None takes that of the weights.

    Returns:
        The fitted values and the SRCC on these pictures with the test's views.
    """
    processor = PfdIqaImageProcessor(view_strategy=model.config.view_strategy)
    low, high = model.config.score_range
    means, variances, spreads = [], [], []
    for batch in views_of(processor, ratings):
        inputs = batch.to(model.device)
        with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
            output = model(**inputs)
        scores = low + (high - low) * output.view_logits.float().sigmoid().cpu()
        means.append(scores.mean(1))
        spreads.append(scores.var(1, correction=0))
        variances.append(output.view_deviations.float().square().mean(1).cpu())
    mean, variance, spread = (torch.cat(parts).double() for parts in (means, variances, spreads))
    labels = torch.tensor([rating.mos for rating in ratings], dtype=torch.float64)
    error = labels - mean
    best = (math.inf, 1.0, 1.0)
    grid = torch.logspace(-2, 1, 25, dtype=torch.float64)
    for a in grid:
        for b in [torch.zeros((), dtype=torch.float64), *grid]:
            total = (a * variance + b * spread).clamp(min=0.25)
            likelihood = float((error.square() / total + total.log()).mean())
            best = min(best, (likelihood, float(a), float(b)))
    _, a_best, b_best = best
    sigma = (a_best * variance + b_best * spread).clamp(min=0.25).sqrt()
    ratios = (error.abs() / sigma).sort().values

    def factor(coverage: float) -> float:
        place = min(math.ceil((len(ratios) + 1) * coverage), len(ratios))
        return float(ratios[place - 1])

    scale = factor(0.8) / 1.2816
    model.config.uncertainty_view_weight = round(a_best * scale**2, 5)
    model.config.uncertainty_spread_weight = round(b_best * scale**2, 5)
    model.config.interval_factors = {
        str(coverage): round(factor(coverage) / scale, 4) for coverage in (0.5, 0.8, 0.95)
    }
    return {
        "pictures": len(ratings),
        "a": model.config.uncertainty_view_weight,
        "b": model.config.uncertainty_spread_weight,
        "factors": model.config.interval_factors,
        "srcc": round(srcc(mean.numpy(), labels.numpy()), 4),
        "within": round(within_group_srcc(mean.numpy(), ratings), 4),
    }
