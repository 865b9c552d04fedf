"""How much of a feature is content and how much is distortion, from backbone to refined feature.

    python benchmarks/content_leak.py --photographs CQ100/img

Pristine photographs × 25 types × 5 levels are a balanced table, so the variance of a feature (mean
over the tokens, summed over the channels) divides into a part that the photograph explains, a part
that type and level explain, and the rest. The paper's claim is that denoising lowers the first and
raises the second. Every photograph is cut to one view of 224 pixels before it is degraded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from measured_model import RESULTS, add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import DISTORTION_TYPES, LEVELS, distort
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear
from pfd_iqa_hf.modeling.feature_unet import noise_from_velocity
from pfd_iqa_hf.modeling.picture_reading import open_picture
from photographs import add_photograph_arguments, chosen_photographs
from targets import Target, as_rows, heading, print_targets

_SIZE = 224


def main() -> None:
    """Computes features, prints shares, writes them and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=40)
    parser.add_argument("--plot", type=Path, default=RESULTS / "content_leak.png")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    pipeline = load_pipeline(arguments)
    stages: dict[str, list[np.ndarray]] = {}
    for number, file in enumerate(files):
        for stage, rows in features_of(pipeline, open_picture(file)).items():
            stages.setdefault(stage, []).append(rows)
        print(f"{number + 1} of {len(files)}", flush=True)
    shares = {stage: variance_shares(np.stack(rows)) for stage, rows in stages.items()}
    print("| feature | content | distortion | both together, and chance |\n|---|---|---|---|")
    for stage, (content, distortion) in shares.items():
        print(f"| {stage} | {content:.3f} | {distortion:.3f} | {1 - content - distortion:.3f} |")
    plot(shares, arguments.plot)
    description = describe(arguments)
    targets = targets_of(shares["F^s"], shares.get("F_0", shares["F_T"]))
    print_targets(heading(description, f"{len(files)} photographs, 25 types, 5 levels"), targets)
    result = {**description, "photographs": len(files), "targets": as_rows(targets)}
    write_result(arguments, "content_leak", {**result, "shares": shares})


def targets_of(first: tuple[float, float], last: tuple[float, float]) -> list[Target]:
    """Of the shares of content and distortion in the student feature and the refined one."""
    return [
        Target("content in the refined feature", last[0], share=True),
        Target("the same in the student feature", first[0], share=True),
        Target("content falls, relative", 1 - last[0] / first[0], least=0.2, share=True),
        Target("distortion in the refined feature", last[1], least=first[1], share=True),
    ]


@torch.inference_mode()
def features_of(pipeline: Any, photograph: Image.Image) -> dict[str, np.ndarray]:
    """Features of all degraded copies of a photograph, by stage: (types × levels, channels)."""
    model, processor = pipeline.model, pipeline.image_processor
    side = min(photograph.size)
    left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
    box = (left, top, left + side, top + side)
    view = photograph.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS, box=box)
    copies = [distort(view, name, level) for name in DISTORTION_TYPES for level in LEVELS]
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(copies), 25):
        values = np.stack([np.asarray(copy, np.float32) for copy in copies[start : start + 25]])
        mean, deviation = np.array(processor.image_mean), np.array(processor.image_std)
        pixels = torch.from_numpy((values / 255 - mean) / deviation).float().permute(0, 3, 1, 2)
        with cpu_linear(model):
            for stage, feature in trajectory(model, pixels.to(model.device, model.dtype)).items():
                parts.setdefault(stage, []).append(feature.float().mean(1).cpu())
    return {stage: torch.cat(rows).numpy() for stage, rows in parts.items()}


def trajectory(model: Any, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The features on the way, (R, N, width) each."""
    base = model.pfd_iqa
    out = base(pixels)
    stages = {"F^s": out.student, "F^f": out.fused, "F_T": out.aligned}
    if not base.has_denoiser:
        return stages
    grid = tuple(
        side // patch for side, patch in zip(pixels.shape[-2:], base.patch_size, strict=True)
    )
    folded = base.denoiser.fold(out.condition)
    state = out.aligned.float()
    levels = base.scheduler.schedule(model.config.num_inference_steps)
    for number, (level, previous) in enumerate(levels, 1):
        time = torch.full((1,), float(level), device=state.device)
        velocity = base.denoiser(state, time, grid, folded)
        noise = noise_from_velocity(velocity, state, base.scheduler.alpha_bar(level))
        _, clean = base.scheduler.move(noise, level, previous, state)
        state = base.scheduler.turn(velocity, level, previous, state)
        stages[f"step {number}"] = clean  # the clean feature that it foresees
    stages["F_0"] = state
    assert torch.allclose(state, out.refined, atol=1e-4)
    return stages


def variance_shares(features: np.ndarray) -> tuple[float, float]:
    """Shares of content and of distortion in the variance of (photographs, copies, channels)."""
    centred = features - features.mean((0, 1))
    total = np.square(centred).sum()
    content = np.square(centred.mean(1)).sum() * features.shape[1]
    distortion = np.square(centred.mean(0)).sum() * features.shape[0]
    return float(content / total), float(distortion / total)


def plot(shares: dict[str, tuple[float, float]], file: Path) -> None:
    """Both shares over the stages."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for place, name in enumerate(("content", "distortion")):
        axes.plot(list(shares), [pair[place] for pair in shares.values()], marker="o", label=name)
    axes.set_ylabel("share of the variance")
    axes.set_ylim(0, 1)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
