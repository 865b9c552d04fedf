"""The loop of a stage: steps, checkpoints, validation, and going on where a killed run stopped.

Nothing random is kept between steps.  Batch number n is made from (seed, n), the learning rate from
n, and torch's own generator is seeded anew at every step; so weights, optimiser and average are the
whole state, and a resumed run ends in the same bits.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from pfd_iqa_hf.training.arguments import TrainArguments
from pfd_iqa_hf.training.batches import RecipeBatches
from pfd_iqa_hf.training.checkpoints import (
    checkpoint_name,
    checkpoint_step,
    find_checkpoint,
    prune_checkpoints,
    read_json,
    save_tensors,
    write_folder,
)
from pfd_iqa_hf.training.failure import TrainingFailure
from pfd_iqa_hf.training.optimization import MovingAverage, rate_factor
from pfd_iqa_hf.training.progress import step_progress
from pfd_iqa_hf.training.run_log import RunLog

__all__ = ["Progress", "Stage", "run_stage"]

# What loaders raise for files that are cut off, overwritten or of another model.
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    SafetensorError,
    pickle.UnpicklingError,
)


@dataclass
class Progress:
    """What a stage has reached beside its weights.

    Attributes:
        step: Optimiser steps done.
        best: Best validation result so far; None before the first.
        best_step: Step of that result.
        waited: Validations since then.
        stopped: Early stopping has ended the stage.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    stopped: bool = False


@dataclass
class Stage:
    """One stage of training.

    Args:
        name: "teacher" or "student".
        objective: Returns (loss, parts) of a batch, and of the targets if there are any.
        groups: Parameter groups with `first_rate`.
        steps: Optimiser steps.
        make_batches: Makes the dataset of batches from a first batch on.
        targets: Makes the teacher's targets of a batch; None without a teacher.
        validate: Scores the validation pictures with the averaged weights and returns what to log;
            its `selected` decides which weights are best.
        eval_steps: Steps between validations.
        keep_best: Writes the present (averaged) weights as the best ones into a folder.
    """

    name: str
    objective: nn.Module
    groups: list[dict[str, Any]]
    steps: int
    make_batches: Callable[[int], RecipeBatches]
    targets: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None
    validate: Callable[[], dict[str, float]] | None = None
    eval_steps: int = 0
    keep_best: Callable[[Path], None] | None = None
    on_step: Callable[[int, dict[str, torch.Tensor]], None] | None = None
    progress: Progress = field(default_factory=Progress)


def run_stage(
    stage: Stage, arguments: TrainArguments, accelerator: Accelerator, folder: Path, log: RunLog
) -> Progress:
    """Train a stage from its newest checkpoint, or from the start, to its end.

    Afterwards the objective holds the averaged weights of the last step; the best ones by
    validation lie in `folder/best`.

    Args:
        stage: What to do.
        arguments: Options of the run.
        accelerator: Device, precision and processes.
        folder: Where checkpoints lie.
        log: Takes the losses.

    Raises:
        TrainingFailure: the loss or gradient is not finite, predictions became constant, or a
            picture broke or vanished.
        OSError: a checkpoint could not be written.
    """
    # fp32 parameters stay with the average whatever DDP does to the wrapped module.
    average = MovingAverage(stage.objective.named_parameters(), arguments.ema_decay)
    optimizer: Any = torch.optim.AdamW(stage.groups, lr=stage.groups[0]["first_rate"])
    objective, optimizer = accelerator.prepare(stage.objective, optimizer)
    state = _State(stage, objective, optimizer, average, accelerator, folder)
    start = _where_to_start(folder, stage.name, arguments)
    if start is not None:
        state.load(start)
    progress = stage.progress
    log.rewind((stage.name, *(("validation",) if stage.validate else ())), progress.step + 1)
    accumulated = arguments.gradient_accumulation_steps
    warm_up = arguments.lr_warmup_steps
    if warm_up is None:
        warm_up = min(40, max(1, stage.steps // 20))
    batches = _batches(stage, progress.step * accumulated, arguments, state)
    every = arguments.checkpointing_steps or 100
    # Parameters that receive gradients, in the optimiser's order.
    parameters = [p for group in stage.groups for p in group["params"]]
    with step_progress(stage.name, stage.steps, progress.step, accelerator) as advance:
        while progress.step < stage.steps and not progress.stopped:
            objective.train()
            torch.manual_seed(arguments.seed * 1_000_003 + progress.step)
            losses: dict[str, float] = {}
            for part in range(accumulated):
                batch = next(batches)
                targets = stage.targets(batch) if stage.targets else None
                last = part == accumulated - 1
                hold = contextlib.nullcontext() if last else accelerator.no_sync(objective)
                with hold:
                    given = (batch,) if targets is None else (batch, targets)
                    loss, parts = objective(*given)
                    _require_finite(loss, "loss", state)
                    accelerator.backward(loss / accumulated)
                for name, value in {"loss": loss, **parts}.items():
                    losses[name] = losses.get(name, 0.0) + float(value.detach()) / accumulated
            for group in optimizer.param_groups:
                factor = rate_factor(
                    progress.step, stage.steps, warm_up, arguments.lr_scheduler_type
                )
                group["lr"] = factor * group["first_rate"]
            norm = accelerator.clip_grad_norm_(parameters, arguments.max_grad_norm)
            if accelerator.mixed_precision != "fp16":  # there the scaler skips such a step
                _require_finite(norm, "gradient", state)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(progress.step)
            if stage.on_step is not None:
                stage.on_step(progress.step, batch)
            progress.step += 1
            advance(losses["loss"])
            if progress.step % arguments.logging_steps == 0 or progress.step == stage.steps:
                log.write(
                    stage.name,
                    progress.step,
                    learning_rate=max(group["lr"] for group in optimizer.param_groups),
                    **losses,
                )
            done = progress.step == stage.steps
            if stage.validate and (progress.step % stage.eval_steps == 0 or done):
                with average.applied():
                    _validate(stage, state, arguments, log)
            if progress.step % every == 0 or done or progress.stopped:
                state.save()
                if accelerator.is_main_process:
                    prune_checkpoints(folder, stage.name, arguments.checkpoints_total_limit)
    if state.skipped:
        log.write("skipped", progress.step, pictures=sorted(state.skipped))
    average.copy_to_model()
    accelerator.wait_for_everyone()
    return progress


def _validate(stage: Stage, state: _State, arguments: TrainArguments, log: RunLog) -> None:
    progress = stage.progress
    assert stage.validate is not None
    result = stage.validate()
    log.write("validation", progress.step, **result)
    # Every process must come to one decision, or some would wait for the others for ever.
    selected = broadcast_object_list([result["selected"]])[0]
    if math.isnan(selected):
        raise TrainingFailure(
            f"after step {progress.step} the validation pictures all get one score: the model "
            f"learns nothing; check the labels, or lower --learning-rate. {state.last_good()}"
        )
    if progress.best is None or selected > progress.best:
        progress.best, progress.best_step, progress.waited = selected, progress.step, 0
        if stage.keep_best is not None and state.accelerator.is_main_process:
            write_folder(state.folder / "best", stage.keep_best)
        state.accelerator.wait_for_everyone()
    else:
        progress.waited += 1
        patience = arguments.early_stopping_patience
        progress.stopped = patience is not None and progress.waited >= patience


class _State:
    """Everything that a stage needs to go on, as one folder."""

    def __init__(
        self,
        stage: Stage,
        objective: nn.Module,
        optimizer: Any,
        average: MovingAverage,
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.stage = stage
        self.objective = objective
        self.optimizer = optimizer
        self.average = average
        self.accelerator = accelerator
        self.folder = folder
        self.skipped: set[str] = set()

    def last_good(self) -> str:
        """A sentence that names the newest checkpoint."""
        newest = find_checkpoint(self.folder, self.stage.name)
        return f"Last checkpoint: {newest}" if newest else "No checkpoint was written yet"

    def save(self) -> None:
        """Write the checkpoint of the present step; complete or absent."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            name = checkpoint_name(self.stage.name, self.stage.progress.step)
            try:
                write_folder(self.folder / name, self._fill)
            except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
                raise OSError(
                    f"{self.folder / name} could not be written ({error}); free some room, then "
                    f"go on with --resume latest. {self.last_good()}"
                ) from error
        self.accelerator.wait_for_everyone()

    def _fill(self, folder: Path) -> None:
        model = self.accelerator.unwrap_model(self.objective)
        save_tensors(folder / "objective.safetensors", model.state_dict())
        save_tensors(folder / "average.safetensors", self.average.state_dict())
        rest: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:
            rest["scaler"] = self.accelerator.scaler.state_dict()
        torch.save(rest, folder / "optimizer.pt")
        (folder / "progress.json").write_text(json.dumps(vars(self.stage.progress)), "utf-8")

    def load(self, folder: Path) -> None:
        """Take over a checkpoint.

        Raises:
            TrainingFailure: it is incomplete, or of another model.
        """
        model = self.accelerator.unwrap_model(self.objective)
        try:
            model.load_state_dict(load_file(folder / "objective.safetensors"))
            self.average.load_state_dict(load_file(folder / "average.safetensors"))
            rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
            self.optimizer.load_state_dict(rest["optimizer"])
            if self.accelerator.scaler is not None and "scaler" in rest:
                self.accelerator.scaler.load_state_dict(rest["scaler"])
            self.stage.progress.__dict__.update(read_json(folder / "progress.json"))
        except _UNREADABLE as error:
            raise TrainingFailure(
                f"{folder} is damaged or of another run ({error or type(error).__name__}); remove "
                "it to go on from the one before with --resume latest"
            ) from error


def _where_to_start(folder: Path, name: str, arguments: TrainArguments) -> Path | None:
    """The checkpoint to go on from: the one that was named, or the newest."""
    if arguments.resume in (None, "latest"):
        return find_checkpoint(folder, name) if arguments.resume else None
    named = Path(arguments.resume or "")
    try:
        checkpoint_step(named)
    except ValueError as error:
        raise TrainingFailure(f"--resume {error}; or try --resume latest") from error
    if not named.is_dir():
        raise TrainingFailure(f"--resume {named}: there is no such folder; try --resume latest")
    # A checkpoint of the other stage says nothing about this one.
    return named if named.name.startswith(f"{name}-") else find_checkpoint(folder, name)


def _batches(
    stage: Stage, first: int, arguments: TrainArguments, state: _State
) -> Iterator[dict[str, torch.Tensor]]:
    workers = arguments.dataloader_num_workers
    loader: DataLoader = DataLoader(
        stage.make_batches(first),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:
        if "error" in batch:
            raise TrainingFailure(
                f"{batch['error']}. Put it back, then go on with --resume latest. "
                f"{state.last_good()}"
            ) from batch["error"]
        for told in batch.pop("skipped", ()):
            if told not in state.skipped:
                state.skipped.add(told)
                print(f"skipped: {told}", file=sys.stderr)
        yield {name: value.to(state.accelerator.device) for name, value in batch.items()}


def _require_finite(value: Any, what: str, state: _State) -> None:
    number = torch.as_tensor(value).detach().float().reshape(1)
    accelerator = state.accelerator
    if accelerator.num_processes > 1:
        number = accelerator.gather(number.to(accelerator.device))
    if not torch.isfinite(number).all():
        found, step = number[~number.isfinite()][0].item(), state.stage.progress.step
        raise TrainingFailure(
            f"the {what} of step {step} is {found}; lower "
            f"--learning-rate and --backbone-learning-rate, or --max-grad-norm. {state.last_good()}"
        )
