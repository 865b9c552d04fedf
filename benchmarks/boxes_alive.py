"""Does every box of the method do something? One number, or a few, for each risk.

    python benchmarks/boxes_alive.py --data-dir path/to/BIQ2021

On `--count` of the validation pictures of BIQ2021 that the recipe `default.yaml` keeps back (drawn
as the training draws them), one centre crop of 224 pixels each. Correlations are means within the
subsets. What is compared with a teacher's features (†) needs `--teacher`, the one that the weights
were trained with: run/checkpoints/teacher.safetensors of `pfd-iqa train --from-scratch`. A number
whose box is alive holds its limit:

- denoiser †: L_dif (11) over ᾱ_t, what the best constant linear denoiser reaches;
- condition c: its variance over its mean square; the conditions of other pictures move the scores
  and raise L_dif †;
- γ of (7): median, deviation, and the loss if all pictures get the median;
- ε of (8): the deviation of a score over 16 other ε, and the lowest SRCC of two runs;
- steps of (12): the head after each step, on the state and on the clean feature foreseen from it;
- teacher †: ridge regression from the mean token of F_0^t against that from the mean token of
  F^s, predictions out of fold, its strength chosen within the folds;
- fusion (6): root mean square of the scale; trainable tensors that get no gradient in the fourth of
  four optimiser steps †;
- priors: CKA of both; R² on masked tokens over the mean token †;
- head: the loss if its memory is replaced by the mean of its tokens;
- masks (1): the change of a score under 8 random draws.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from box_views import SIDE, BoxViews, Kept
from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.evaluation.correlation import srcc
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear
from pfd_iqa_hf.modeling.modeling_pfd_iqa import BYPASSES
from pfd_iqa_hf.training import run_data
from pfd_iqa_hf.training.arguments import TrainArguments, parse_arguments
from pfd_iqa_hf.training.batches import RecipeBatches
from pfd_iqa_hf.training.objectives import StudentObjective
from pfd_iqa_hf.training.samples import method_draws
from pfd_iqa_hf.training.teacher import Teacher, load_teacher
from pfd_iqa_hf.training.validation import validate
from ridge_probe import probe_srcc
from targets import Target, as_rows, heading, print_targets

RECIPE = Path(run_data.__file__).parent / "recipes" / "default.yaml"
LEVELS = (100, 200, 300, 400)
OTHER_LATENTS = 16
MASK_DRAWS = 8
OPTIMISER_STEPS = 3
GRADIENT_BATCH = {"rated": 6, "triples": 2}


def main() -> None:
    """Prints a line for each number, writes them with the validation's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of BIQ2021")
    parser.add_argument("--teacher", type=Path, help="teacher.safetensors of the weights' own run")
    parser.add_argument("--count", type=int, default=300, help="validation pictures")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of masks, ε and swaps")
    parser.add_argument("--no-gradients", action="store_true", help="leave out the training steps")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    dtype = getattr(torch, arguments.dtype)
    options = recipe_arguments(arguments.data_dir)
    data = run_data.load_run_data(options)
    order = np.random.default_rng(0).permutation(len(data.validation))  # as a run draws them
    ratings = list(data.validation.select(sorted(order[: arguments.count].tolist())))
    weights = argparse.Namespace(**{**vars(arguments), "dtype": "float32"})  # autocast does it
    model: Any = load_pipeline(weights).model
    teacher = load_teacher(str(arguments.teacher), model) if arguments.teacher else None
    trained = None if arguments.no_gradients or teacher is None else copy.deepcopy(model)
    with torch.inference_mode(), cpu_linear(model):
        checks = validate(model, ratings, teacher, None if dtype == torch.float32 else dtype)
    with torch.inference_mode():
        views = BoxViews(model, teacher, ratings, arguments.batch_size, dtype)
        targets = above_the_backbone(views, checks, arguments.seed)
    unreached: list[str] = []
    if trained is not None and teacher is not None:
        unreached = unreached_tensors(trained, teacher, data, options, arguments.seed)
        targets.append(
            Target("fusion: trainable tensors without a gradient", len(unreached), most=0, digits=0)
        )
    result = {
        **describe(arguments),
        "pictures": len(ratings),
        "of_validation": len(data.validation),
        "split": data.fingerprint,
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "unreached": unreached,
        "validation": checks,
    }
    for name in unreached:
        print(f"no gradient: {name}")
    print_targets(
        heading(result, f"{len(ratings)} of {len(data.validation)} validation pictures"), targets
    )
    write_result(arguments, "boxes_alive", result)


def recipe_arguments(folder: Path) -> TrainArguments:
    """The options of the recipe; towers and output are asked for, but not used here."""
    unused = [
        word
        for name in ("output-dir", "vision-model", "text-model")
        for word in (f"--{name}", "unused")
    ]
    return parse_arguments(["--config", str(RECIPE), "--data-dir", str(folder), *unused])


def above_the_backbone(views: BoxViews, checks: dict[str, Any], seed: int) -> list[Target]:
    """All numbers that need no training."""
    kept = views.kept()
    generator = np.random.default_rng(seed)
    return [
        Target("SRCC of the centre crops within subsets", views.within(kept.scores)),
        *bypass_targets(checks),
        *(
            Target(
                f"denoiser idle: L_dif / alpha_bar at t = {level}",
                checks[f"noise_{level}"],
                most=0.8,
            )
            for level in LEVELS
            if f"noise_{level}" in checks
        ),
        *condition_targets(views, kept, generator),
        *gamma_targets(views, kept),
        *latent_targets(views, kept, seed),
        *step_targets(views, kept),
        *([] if views.targets is None else teacher_targets(views, kept, seed)),
        Target("fusion dead: RMS of the scale", kept.scale_rms, 0.05),
        Target("priors identical: CKA", kept.prior_alignment, most=0.9),
        *mask_targets(views, kept, seed),
        head_target(views, kept),
    ]


def bypass_targets(checks: dict[str, Any]) -> list[Target]:
    """How far each box, bypassed alone, moves the scores, and what is lost by it."""
    targets = []
    for box in BYPASSES:
        lost = checks["within"] - checks[f"without_{box}"]
        targets += [
            Target(f"{box} bypassed: RMS change in points", checks[f"moved_{box}"], 0.5),
            Target("  the same, SRCC lost", lost, digits=4),
        ]
    return targets


def condition_targets(views: BoxViews, kept: Kept, generator: np.random.Generator) -> list[Target]:
    """Is c a constant, and does it matter whose it is?"""
    order = generator.permutation(len(kept.condition))
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)  # nobody keeps his own
    other = kept.condition[torch.from_numpy(partner)]
    moved = np.abs(views.rescored(kept.aligned, other) - kept.scores)
    targets = [
        Target("condition constant: tr Cov(c) / E |c|^2", spread(kept.condition), 0.2),
        Target("  the same, distortion token", spread(kept.condition[:, 0])),
        Target("  the same, quality token", spread(kept.condition[:, 1])),
        Target("condition constant: swapped, mean change in points", float(moved.mean()), 1.0),
    ]
    if views.targets is not None:
        own, others = (
            float(views.noise_losses(which, LEVELS).mean()) for which in (kept.condition, other)
        )
        what = "condition constant: swapped, rise of L_dif"
        targets.append(Target(what, others / own - 1, 0.01, digits=4))
    return targets


def spread(condition: torch.Tensor) -> float:
    """tr Cov(c) / E‖c‖²: 0 for a constant, 1 without a mean."""
    flat = condition.flatten(1).double()
    return float(flat.var(dim=0, correction=0).sum() / flat.square().sum(dim=1).mean())


def gamma_targets(views: BoxViews, kept: Kept) -> list[Target]:
    """Does γ differ, and does the difference help?"""
    middle = float(kept.gamma.median())
    constant = middle * kept.clean + (1 - middle) * views.latents
    lost = views.within(kept.scores) - views.within(views.rescored(constant, kept.condition))
    return [
        Target("gamma collapsed: median", middle, 0.1, 0.9),
        Target("gamma collapsed: deviation", float(kept.gamma.std()), 0.03),
        Target("gamma collapsed: SRCC lost by a constant", lost, 0.003, digits=4),
    ]


def latent_targets(views: BoxViews, kept: Kept, seed: int) -> list[Target]:
    """Do scores hang on the one ε that is stored?"""
    generator = torch.Generator().manual_seed(seed)
    gamma = kept.gamma[:, None, None]
    runs = []
    for _ in range(OTHER_LATENTS):
        latents = torch.randn(views.latents.shape, generator=generator)
        runs.append(views.rescored(gamma * kept.clean + (1 - gamma) * latents, kept.condition))
    deviation = np.std(runs, axis=0, ddof=1)
    lowest = min(srcc(this, that) for this, that in combinations([kept.scores, *runs], 2))
    return [
        Target(
            "epsilon a bias: mean deviation of a score, points", float(deviation.mean()), most=0.5
        ),
        Target("  the same, largest", float(deviation.max())),
        Target("epsilon a bias: lowest SRCC of two runs", lowest, 0.999, digits=4),
    ]


def step_targets(views: BoxViews, kept: Kept) -> list[Target]:
    """Does each step help?"""
    targets = []
    for name, scores in views.scores_after_steps(kept).items():
        found = np.array([views.within(after) for after in scores])
        what = {"state": "state", "foreseen": "clean feature foreseen"}[name]
        targets += [
            Target(
                f"steps do harm ({what}): least change",
                float(np.diff(found).min()),
                -0.002,
                digits=4,
            ),
            Target(
                f"steps do harm ({what}): last - first",
                float(found[-1] - found[0]),
                0.005,
                digits=4,
            ),
        ]
    return targets


def teacher_targets(views: BoxViews, kept: Kept, seed: int) -> list[Target]:
    """Does the teacher's feature know more than the student's?"""
    labels = np.array([rating.mos for rating in views.ratings])
    student, teacher = (
        probe_srcc(feature.double().numpy(), labels, views.within, seed)
        for feature in (kept.student, views.targets.mean(dim=1))
    )
    return [
        Target(
            "bad teacher: probe of F_0^t above probe of F^s, SRCC",
            teacher - student,
            0.01,
            digits=4,
        ),
        Target("  probe of F_0^t", teacher),
        Target("  probe of F^s", student),
    ]


def mask_targets(views: BoxViews, kept: Kept, seed: int) -> list[Target]:
    """What the priors rebuild of masked tokens, and how masks move scores; every view is masked."""
    config, tokens = views.model.config, views.grid[0] * views.grid[1]
    moved = []
    mean = None if views.targets is None else views.targets.mean(dim=(0, 1))  # the mean token
    errors = dict.fromkeys(() if mean is None else ("distortion", "quality"), 0.0)
    totals = dict(errors)
    for draw in range(MASK_DRAWS):
        masks = torch.stack(
            [
                method_draws(
                    seed, draw, row, tokens, 1, config.start_timestep, config.mask_ratio, 0.0
                )["token_mask"]
                for row in range(len(views.ratings))
            ]
        )
        for rows, output in views.outputs(partial(masks_of, masks)):
            moved.append(np.abs(output.logits.float().numpy() - kept.scores[rows]))
            for place, name in enumerate(errors):
                task = getattr(views.base, f"{name}_task")
                hidden = ~masks[rows, place]
                target = views.targets[rows][hidden]
                rebuilt = task.reconstruct(getattr(output.features, f"{name}_prior")[hidden])
                errors[name] += float((rebuilt.float() - target).square().sum())
                totals[name] += float((target - mean).square().sum())
    return [
        *(
            Target(
                f"priors identical: R2 on masked tokens, {name}",
                1 - errors[name] / totals[name],
                0.3,
            )
            for name in errors
        ),
        Target(
            "masks unlike test: mean change in points",
            float(np.concatenate(moved).mean()),
            most=1.0,
        ),
    ]


def masks_of(masks: torch.Tensor, rows: slice) -> dict[str, Any]:
    """The further inputs of a batch: its part of masks (n, 2, N)."""
    return {"token_mask": masks[rows]}


def head_target(views: BoxViews, kept: Kept) -> Target:
    """Does the head look at tokens, or is their mean enough?"""

    def mean_of_tokens(module: Any, inputs: Any, memory: torch.Tensor) -> torch.Tensor:
        return memory.mean(dim=1, keepdim=True).expand_as(memory)

    hook = views.model.head.memory_norm.register_forward_hook(mean_of_tokens)
    try:
        scores = views.scores()
    finally:
        hook.remove()
    lost = views.within(kept.scores) - views.within(scores)
    return Target("head bypass: SRCC lost by the mean token", lost, 0.05, digits=4)


def unreached_tensors(
    model: Any, teacher: Teacher, data: Any, options: TrainArguments, seed: int
) -> list[str]:
    """Trainable tensors whose gradient is missing or zero after three optimiser steps."""
    config = model.config
    patch = model.pfd_iqa.patch_size
    draws = {
        "tokens": (SIDE // patch[0]) * (SIDE // patch[1]),
        "width": config.denoising_width,
        "start_timestep": config.start_timestep,
        "mask_ratio": config.mask_ratio,
        "unmasked_share": config.unmasked_share,
    }
    batches = RecipeBatches(
        data.recipe,
        OPTIMISER_STEPS + 1,
        GRADIENT_BATCH["rated"],
        GRADIENT_BATCH["triples"],
        seed,
        config.distortion_names,
        draws=draws,
    )
    weights = {
        name: getattr(options, f"{name}_weight") for name in ("correlation", "ranking", "map")
    }
    objective = StudentObjective(model.train(), GRADIENT_BATCH["rated"], weights)
    # A new model's own: loading weights forgets which tensors no forward pass reads.
    trainable = {name for name, p in type(model)(config).named_parameters() if p.requires_grad}
    named = [(name, p) for name, p in model.named_parameters() if name in trainable]
    optimiser = torch.optim.AdamW([p for _, p in named], lr=1e-5)
    for step in range(OPTIMISER_STEPS + 1):
        batch = batches[step]
        if "error" in batch:
            raise batch["error"]
        optimiser.zero_grad(set_to_none=True)
        loss, _ = objective(batch, teacher(batch["pixel_values"]))
        loss.backward()
        if step < OPTIMISER_STEPS:
            optimiser.step()
    return [name for name, p in named if p.grad is None or not p.grad.abs().max() > 0]


if __name__ == "__main__":
    main()
