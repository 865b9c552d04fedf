"""What a run needs before its first step: processes, the model to start from, its own folder."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from safetensors import SafetensorError

import pfd_iqa_hf
from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.data.splits import content_hash
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError
from pfd_iqa_hf.training.checkpoints import read_json, write_text
from pfd_iqa_hf.training.familiarity import forget_familiarity
from pfd_iqa_hf.training.run_data import RunData

__all__ = [
    "claim_facts",
    "claim_folder",
    "make_accelerator",
    "refuse_foreign_run",
    "start_model",
    "state_hash",
    "to_tracker",
]


def make_accelerator(arguments: TrainArguments, output: Path) -> Accelerator:
    """Device, precision and processes of the run.

    Raises:
        UsageError: what was asked for cannot be had here.
    """
    report = arguments.report_to in ("tensorboard", "all")
    # An earlier run in this process may have had another precision.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=arguments.mixed_precision,
            log_with="tensorboard" if report else None,
            project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output)),
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                # The others wait while the main process reads pictures and writes the report.
                InitProcessGroupKwargs(timeout=timedelta(hours=6)),
            ],
        )
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"--report-to {arguments.report_to} or --mixed-precision {arguments.mixed_precision}: "
            f"{error} (tensorboard: pip install tensorboard)"
        ) from error
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise UsageError(
            f"{accelerator.distributed_type.value} is not supported: the model has 25 million "
            "parameters and needs no sharding; use several processes with accelerate launch"
        )
    return accelerator


def to_tracker(accelerator: Accelerator, row: dict[str, Any]) -> None:
    """Hand a row of the log to the accelerator's trackers."""
    stage, step = row["stage"], row["step"]
    numbers = {k: v for k, v in row.items() if isinstance(v, float) and k != "time"}
    accelerator.log({f"{stage}/{name}": value for name, value in numbers.items()}, step=step)


def start_model(arguments: TrainArguments) -> PfdIqaForImageQualityAssessment:
    """The model that the training starts from.

    Raises:
        UsageError: a checkpoint cannot be loaded, or a field of the configuration is impossible.
    """
    unknown = set(arguments.overrides) - set(PfdIqaConfig.__dataclass_fields__)
    if unknown:
        raise UsageError(f"--config-overrides: PfdIqaConfig has no field {sorted(unknown)[0]}")
    model: Any
    try:
        if arguments.from_scratch:
            model = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
                str(arguments.vision_model), str(arguments.text_model), config=arguments.overrides
            )
            width, target = model.vision_model.config.hidden_size, model.config.denoising_width
            if target > width:
                raise ValueError(
                    f"denoising_width {target} is more than the backbone's width {width}; lower it "
                    "with --config-overrides"
                )
            return model
        source = arguments.model or str(default_checkpoint())
        model = PfdIqaForImageQualityAssessment.from_pretrained(source, dtype=torch.float32)
        forget_familiarity(model)
        for name, value in arguments.overrides.items():
            setattr(model.config, name, value)
        model.config.validate_architecture()
        return model
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        options = "--vision-model, --text-model or --config-overrides"
        name = options if arguments.from_scratch else "--model"
        raise UsageError(f"{name}: {error}") from error


def refuse_foreign_run(checkpoints: Path, arguments: TrainArguments) -> None:
    """Go on only with a run of the same options, and only if that was asked for.

    Raises:
        UsageError: tells what differs.
    """
    facts = checkpoints / "run.json"
    if not facts.exists():
        if arguments.resume not in (None, "latest"):
            raise UsageError(f"--resume {arguments.resume}: {facts} is missing; is it another run?")
        output = checkpoints.parent
        taken = [name for name in ("README.md", "config.json") if (output / name).exists()]
        if taken:
            raise UsageError(
                f"{output} holds {' and '.join(taken)}, which no training wrote and one would "
                "replace; give another --output-dir"
            )
        return
    if arguments.resume is None:
        raise UsageError(
            f"{checkpoints.parent} holds a run already: add --resume latest to go on with it, or "
            "give another --output-dir"
        )
    earlier, now = _facts_of(facts)["arguments"], arguments.decisive()
    changed = [name for name in now if name in earlier and earlier[name] != now[name]]
    if changed:
        told = ", ".join(f"{name} was {earlier[name]}, is {now[name]}" for name in changed)
        raise UsageError(
            f"{checkpoints.parent} was begun with other options ({told}): give the same ones to go "
            "on, or another --output-dir"
        )


def claim_folder(
    checkpoints: Path,
    arguments: TrainArguments,
    data: RunData,
    model: torch.nn.Module,
    processes: int,
) -> None:
    """Note what the run is; what options do not tell (data, split, weights) is compared here.

    Raises:
        UsageError: the folder's run learns from something else.
    """
    facts = checkpoints / "run.json"
    now = {
        "dataset": data.table.fingerprint,
        "split": data.fingerprint,
        "start": state_hash(model),
        "teacher": _file_hash(arguments.teacher),
        "processes": processes,
    }
    meaning = {
        "dataset": "another dataset (pictures or scores differ)",
        "split": "another split into training, validation and test part",
        "start": "other weights to start from",
        "teacher": "another teacher",
        "processes": "another number of processes",
    }
    if facts.exists():
        earlier = _facts_of(facts)
        for name, value in now.items():
            if earlier.get(name) != value:
                skipped = len(data.table.skipped) if name in ("dataset", "split") else 0
                told = f" ({skipped:,} pictures are skipped now; put them back)" if skipped else ""
                raise UsageError(
                    f"{checkpoints.parent} was begun with {meaning[name]}: give the same{told} to "
                    "go on, or another --output-dir"
                )
    checkpoints.mkdir(parents=True, exist_ok=True)
    content = {
        "arguments": arguments.decisive(),
        **now,
        "version": pfd_iqa_hf.__version__,
    }
    write_text(facts, json.dumps(content, indent=1))


def state_hash(model: torch.nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all tensors of a model."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def claim_facts(path: Path, now: dict[str, Any]) -> None:
    """Note in a folder what its results are made from; refuse it if that was something else.

    Args:
        path: JSON file of the facts, written if there is none.
        now: The facts, JSON values.

    Raises:
        UsageError: tells which facts differ, or that the file cannot be read.
    """
    if path.exists():
        earlier = _object_in(path)
        changed = [key for key in now if earlier.get(key) != now[key]]
        if changed:
            raise UsageError(
                f"{path.parent} was begun with another {', '.join(changed)}: give the same to go "
                "on, or another --output-dir"
            )
    write_text(path, json.dumps(now, indent=1))


def _file_hash(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return content_hash(path)[:16]
    except OSError as error:
        raise UsageError(f"--teacher {path}: {error.strerror}; give a readable file") from error


def _facts_of(path: Path) -> dict[str, Any]:
    facts = _object_in(path)
    if not isinstance(facts.get("arguments"), dict):
        raise UsageError(
            f"{path} cannot be read (no arguments); begin again in another --output-dir"
        )
    return facts


def _object_in(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path)
        if not isinstance(facts, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); begin again in another --output-dir"
        ) from error
    return facts
