"""Train the default checkpoint: teacher, then student with the whole loss, then calibration.

The run can be killed at any time: started again with the same arguments it goes on from the last
state in `--work-dir`.  See `docs/training.md` for the command of the shipped file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.batches import RecipeBatches, RecipeData, recipe_data
from pfd_iqa_hf.training.losses import composition_loss, correlation_loss, ranking_loss
from pfd_iqa_hf.training.teacher import Teacher, soft_levels
from pfd_iqa_hf.training.validation import calibrate, validate

__all__ = ["main"]


def _log(path: Path, **values: Any) -> None:
    line = json.dumps({"time": round(time.time(), 1), **values})
    print(line, flush=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _save_state(path: Path, state: dict[str, Any]) -> None:
    """Write beside and rename, so that a kill leaves the old state or the new one."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _rate(step: int, steps: int, warm_up: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _freeze_lower(backbone: Any, layers: int) -> None:
    """Embeddings and first layers keep their general features, and cost no backward pass."""
    backbone.embeddings.requires_grad_(False)
    for layer in backbone.encoder.layer[:layers]:
        layer.requires_grad_(False)


def _parameter_groups(
    model: torch.nn.Module,
    backbone: Any,
    backbone_rate: float,
    rate: float,
    decay: float,
) -> list[dict[str, Any]]:
    """Lower learning rates for lower layers; no weight decay on vectors."""
    inside = {id(p): name for name, p in backbone.named_parameters()}
    layers = len(backbone.encoder.layer)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        learning_rate = rate
        if id(parameter) in inside:
            parts = inside[id(parameter)].split(".")
            depth = int(parts[2]) if parts[:2] == ["encoder", "layer"] else layers - 1
            learning_rate = backbone_rate * decay ** (layers - 1 - depth)
        weight_decay = 0.05 if parameter.dim() > 1 else 0.0
        groups.setdefault((learning_rate, weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "first_rate": lr, "weight_decay": wd}
        for (lr, wd), parameters in groups.items()
    ]


def _batches(dataset: RecipeBatches, first: int) -> Iterator[dict[str, torch.Tensor]]:
    loader: DataLoader = DataLoader(
        Subset(dataset, range(first, len(dataset))),
        batch_size=None,
        num_workers=1,
        prefetch_factor=6,
    )
    yield from loader


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, factor: float, what: str) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss of {what} is {loss.item()}; lower the learning rate")
    for group in optimizer.param_groups:
        group["lr"] = factor * group["first_rate"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


def train_teacher(
    arguments: argparse.Namespace, data: RecipeData, student: PfdIqaForImageQualityAssessment
) -> Teacher:
    """First stage: LIQE-style tuning on known distortions and opinion scores, then E of (9)."""
    torch.manual_seed(arguments.seed)
    teacher = Teacher.from_backbone(str(arguments.weights / "dinov2-small"), student)
    path = arguments.work_dir / "teacher.pt"
    if path.exists():
        teacher.load_state_dict(torch.load(path, weights_only=True))
        return teacher.eval().requires_grad_(False)
    _freeze_lower(teacher.vision_model, arguments.frozen_layers)
    for layer in teacher.vision_model.encoder.layer[teacher.levels[-1] :]:
        layer.requires_grad_(False)
    teacher.vision_model.layernorm.requires_grad_(False)
    optimizer = torch.optim.AdamW(_parameter_groups(teacher, teacher.vision_model, 1e-4, 1e-3, 0.8))
    names = student.config.distortion_names
    dataset = RecipeBatches(
        data,
        arguments.teacher_steps,
        rated=14,
        triples=6,
        seed=arguments.seed + 1,
        distortion_names=names,
    )
    sample = []
    for step, batch in enumerate(_batches(dataset, 0)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = teacher.features(batch["pixel_values"])
            distortion, quality = teacher.logits(features)
        known = batch["known_distortion"].isfinite().all(-1)
        type_loss = -(batch["known_distortion"][known] * distortion[known].log_softmax(-1)).sum(-1)
        rated = batch["labels"].isfinite()
        level = batch["level"]
        degraded = level >= 0
        # A degraded photograph has no opinion score; a vague one by its level keeps the order.
        guess = soft_levels(78.0 - 13.0 * level[degraded].float(), spread=15.0)
        level_loss = -(soft_levels(batch["labels"][rated]) * quality[rated].log_softmax(-1)).sum(-1)
        guess_loss = -(guess * quality[degraded].log_softmax(-1)).sum(-1)
        loss = type_loss.mean() + level_loss.mean() + 0.3 * guess_loss.mean()
        _step(optimizer, loss, _rate(step, arguments.teacher_steps, 20), "the teacher")
        if step >= arguments.teacher_steps - 8:
            sample.append(features.detach().float().flatten(0, 1)[::4])
        if step % 20 == 0 or step == arguments.teacher_steps - 1:
            right = distortion[known].argmax(-1) == batch["known_distortion"][known].argmax(-1)
            _log(
                arguments.work_dir / "log.jsonl",
                stage="teacher",
                step=step,
                type_loss=round(type_loss.mean().item(), 4),
                level_loss=round(level_loss.mean().item(), 4),
                type_accuracy=round(right.float().mean().item(), 3),
            )
    kept = teacher.fit_encoder(torch.cat(sample))
    _log(arguments.work_dir / "log.jsonl", stage="teacher", encoder_variance_kept=round(kept, 4))
    _save_state(path, teacher.state_dict())
    return teacher.eval().requires_grad_(False)


def student_loss(
    model: PfdIqaForImageQualityAssessment,
    teacher: Teacher,
    batch: dict[str, torch.Tensor],
    rated: int,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The whole loss of one batch: the model's own parts and those that need several pictures."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        targets = teacher(batch["pixel_values"])
        known = batch["known_distortion"]
        # Where the distortion is known by construction, it corrects the teacher's opinion.
        targets["teacher_distortion_probabilities"] = torch.where(
            known.isfinite(), known, targets["teacher_distortion_probabilities"].float()
        )
        output = model(
            batch["pixel_values"],
            labels=batch["labels"],
            output_quality_map=True,
            token_mask=batch["token_mask"],
            latents=batch["latents"],
            timesteps=batch["timesteps"],
            diffusion_latents=batch["diffusion_latents"],
            **targets,
        )
    parts = dict(output.loss_parts)
    parts["correlation"] = correlation_loss(output.logits[:rated], batch["labels"][:rated])
    loss = output.loss + 0.25 * parts["correlation"]
    if len(batch["gap"]):
        mild, strong, mixed = output.view_logits[rated:, 0].unflatten(0, (-1, 3)).unbind(1)
        maps = output.token_values[rated:, 0].unflatten(0, (-1, 3))
        parts["ranking"] = ranking_loss(mild, strong, batch["gap"])
        parts["map"] = composition_loss(maps[:, 0], maps[:, 1], maps[:, 2], batch["mask"])
        loss = loss + 0.1 * parts["ranking"] + 0.1 * parts["map"]
    return loss, {name: round(value.item(), 4) for name, value in parts.items()}


def train_student(
    arguments: argparse.Namespace,
    data: RecipeData,
    model: PfdIqaForImageQualityAssessment,
    teacher: Teacher,
) -> None:
    """Second stage; leaves the moving average of the weights in `model`."""
    _freeze_lower(model.vision_model, arguments.frozen_layers)
    optimizer = torch.optim.AdamW(
        _parameter_groups(
            model,
            model.vision_model,
            arguments.backbone_learning_rate,
            arguments.learning_rate,
            0.8,
        )
    )
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in trained.items()}
    path = arguments.work_dir / "student.pt"
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
    config = model.config
    grid = model.pfd_iqa.native_grid
    dataset = RecipeBatches(
        data,
        arguments.steps,
        arguments.rated,
        arguments.triples,
        arguments.seed,
        config.distortion_names,
        draws={
            "tokens": grid[0] * grid[1],
            "width": config.denoising_width,
            "start_timestep": config.start_timestep,
            "mask_ratio": config.mask_ratio,
            "unmasked_share": config.unmasked_share,
        },
    )
    began = time.time()
    for step, batch in enumerate(_batches(dataset, first), start=first):
        model.train()
        loss, parts = student_loss(model, teacher, batch, arguments.rated)
        _step(optimizer, loss, _rate(step, arguments.steps, 40), "the student")
        keep = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in trained.items():
                average[name].lerp_(parameter, 1 - keep)
        done = step + 1
        if step % 10 == 0:
            seconds = (time.time() - began) / (done - first)
            _log(
                arguments.work_dir / "log.jsonl",
                stage="student",
                step=step,
                loss=round(loss.item(), 4),
                seconds_per_step=round(seconds, 3),
                **parts,
            )
        last = done == arguments.steps
        if done % arguments.save_steps == 0 or last:
            _save_state(
                path,
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average,
                    "step": done,
                },
            )
        if done % arguments.validation_steps == 0 and not last:
            current = {name: p.detach().clone() for name, p in trained.items()}
            _load(trained, average)
            result = validate(model, data.validation[: arguments.validation_pictures], teacher)
            _load(trained, current)
            _log(arguments.work_dir / "log.jsonl", stage="validation", step=done, **result)
    _load(trained, average)
    model.eval()


@torch.no_grad()
def _load(parameters: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def export(model: PfdIqaForImageQualityAssessment, folder: Path) -> None:
    """Write the checkpoint: weights in fp16, a configuration that asks for fp32, the processor."""
    from safetensors.torch import save_file

    from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor

    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.name_or_path = ""
    model.config.save_pretrained(folder)
    half = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    processor = PfdIqaImageProcessor(view_strategy=model.config.view_strategy)
    processor.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    """Command line; `--help` lists the options."""
    parser = argparse.ArgumentParser(description="Train the default PFD-IQA checkpoint")
    parser.add_argument("--biq2021", required=True, help="folder of BIQ2021")
    parser.add_argument("--weights", type=Path, required=True, help="from prepare_weights")
    parser.add_argument("--work-dir", type=Path, required=True, help="state and log of the run")
    parser.add_argument("--output-dir", type=Path, required=True, help="the finished checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher-steps", type=int, default=220)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--rated", type=int, default=23, help="rated views in a batch")
    parser.add_argument("--triples", type=int, default=3, help="degraded triples in a batch")
    parser.add_argument("--frozen-layers", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--backbone-learning-rate", type=float, default=1e-4)
    parser.add_argument("--validation-share", type=float, default=0.08)
    parser.add_argument("--validation-pictures", type=int, default=300)
    parser.add_argument("--validation-steps", type=int, default=300)
    parser.add_argument("--save-steps", type=int, default=100)
    arguments = parser.parse_args(argv)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)

    data = recipe_data(arguments.biq2021, arguments.validation_share, seed=0)
    _log(
        arguments.work_dir / "log.jsonl",
        stage="data",
        train=len(data.train),
        validation=len(data.validation),
        pristine=len(data.pristine),
        dropped=len(data.dropped),
    )
    model = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
        str(arguments.weights / "dinov2-small"), str(arguments.weights / "minilm")
    )
    model.set_attn_implementation("eager")  # its backward pass is the faster one on a CPU
    teacher = train_teacher(arguments, data, model)
    train_student(arguments, data, model, teacher)
    result = validate(model, data.validation[: arguments.validation_pictures], teacher)
    _log(arguments.work_dir / "log.jsonl", stage="validation", step=arguments.steps, **result)
    model.set_attn_implementation("sdpa")
    facts = calibrate(model, data.validation)
    _log(arguments.work_dir / "log.jsonl", stage="calibration", **facts)
    export(model, arguments.output_dir)


if __name__ == "__main__":
    main()
