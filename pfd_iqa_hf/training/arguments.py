"""Options of a training run: from the command line, a YAML file, or both.

Names and meaning are those that users of the Hugging Face examples know; on the command line
`--learning-rate` and `--learning_rate` are the same option.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pfd_iqa_hf.data.distortions import DISTORTION_TYPES

__all__ = ["TrainArguments", "UsageError", "parse_arguments"]


class UsageError(ValueError):
    """An option that is missing, misspelt or impossible; the message names it and the remedy."""


def _option(text: str, default: Any = None, **kwargs: Any) -> Any:
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata={"help": text, **kwargs})
    return field(default=default, metadata={"help": text, **kwargs})


@dataclass
class TrainArguments:
    """Everything that decides a run.  The same arguments give the same weights.

    Raises:
        UsageError: two options contradict each other, or a value is impossible.
    """

    dataset: str | None = _option(
        "table of pictures and scores (CSV, TSV, JSONL, parquet, xlsx), ImageFolder, datasets "
        "folder or Hub id, or the name of a known set"
    )
    output_dir: str | None = _option("where the finished model and its checkpoints go")
    data_dir: str | None = _option("folder of a known set, or of a table's pictures")
    image_column: str | None = _option("name of the column of pictures")
    mos_column: str | None = _option("name of the column of scores")
    mos_std_column: str | None = _option("name of the column of their standard deviations")
    reference_column: str | None = _option("name of the column of the undistorted original")
    distortion_column: str | None = _option("name of the column of the distortion")
    level_column: str | None = _option("name of the column of the distortion's level")
    split_column: str | None = _option("name of the column that says train, validation or test")
    group_column: str | None = _option("name of the column of subsets")
    score_range: list[float] | None = _option("lowest and highest score of the scale")
    lower_is_better: bool = _option("the scale's low end is the good one", False)
    dataset_split: str | None = _option("split of a datasets folder or Hub id to read")
    streaming: bool = _option("read a Hub dataset as it comes, without a copy of its files", False)
    skip_bad: bool = _option("leave out single broken pictures, and list them", False)
    check_pictures: bool = _option("decode every picture once before the training", True)
    split_file: str | None = _option("splits stored by `pfd-iqa data --splits`")
    split_index: int = _option("number of the split in --split-file, from 0", 0)
    validation_share: float = _option("share of the training pictures kept for choosing", 0.1)
    test_share: float = _option("share kept for the report where nothing else defines a test", 0.0)
    allow_leakage: bool = _option("go on although one picture is on both sides of a split", False)
    drop_near_copies: bool = _option(
        "leave out training pictures that show the scene of a test picture", False
    )

    model: str | None = _option("checkpoint to start from; default: the bundled one")
    from_scratch: bool = _option("train the whole method: teacher, then student", False)
    vision_model: str | None = _option("backbone of --from-scratch, folder or Hub id")
    text_model: str | None = _option("text tower of --from-scratch, folder or Hub id")
    teacher: str | None = _option(
        "teacher.safetensors of an earlier run: fine-tune --model with every loss of the method, "
        "or train --from-scratch without a stage of its own for the teacher"
    )
    config_overrides: str | None = _option(
        "JSON of PfdIqaConfig fields; with --model the weights of losses and the masks' only"
    )

    per_device_train_batch_size: int = _option("rated views a step and process", 16)
    per_device_eval_batch_size: int = _option("pictures a step and process in validation", 8)
    gradient_accumulation_steps: int = _option("batches before an optimiser step", 1)
    num_train_epochs: float = _option("passes over the training pictures", 3.0)
    max_train_steps: int | None = _option("optimiser steps; replaces --num-train-epochs")
    learning_rate: float = _option("of everything but the backbone", 2e-4)
    backbone_learning_rate: float = _option("of the backbone's last layer", 5e-5)
    fusion_learning_rate: float | None = _option(
        "of prior fusion, whose last layer starts at zero; default: --learning-rate", None
    )
    layer_decay: float = _option("factor of the learning rate from one layer to the one below", 0.8)
    weight_decay: float = _option("of matrices; vectors have none", 0.05)
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = _option("after warm-up", "cosine")
    lr_warmup_steps: int | None = _option("default: 5 %% of the steps")
    max_grad_norm: float = _option("clipping of the gradient", 5.0)
    freeze_layers: int = _option("first layers of the backbone that stay as they are", 4)
    frozen_parts: str | None = _option(
        "parts of the model that stay as they are, such as denoiser,alignment"
    )
    ema_decay: float = _option("of the average of the weights; 0 switches it off", 0.995)
    mixed_precision: Literal["no", "bf16", "fp16"] = _option("as in accelerate", "no")
    gradient_checkpointing: bool = _option("less memory, more time", False)
    seed: int = _option("of every random number of the run", 0)
    correlation_weight: float = _option("weight of 1 - PLCC of a batch", 0.4)
    within_group_weight: float = _option(
        "weight of 1 - PLCC of a batch after each subset's mean is taken off", 0.0
    )
    ranking_weight: float = _option("weight of the ranking of degraded views", 0.1)
    map_weight: float = _option("weight of L_map", 0.1)
    map_ranking_weight: float = _option(
        "weight of: the map is lower inside of what was degraded than outside", 0.0
    )
    names_weight: float = _option(
        "weight of the true names and levels in both tasks of PDA, without a teacher", 0.0
    )
    counterfactual_weight: float = _option(
        "weight of: a degraded view without its distortion in the condition scores as before", 0.0
    )
    clean_share: float = _option(
        "share of the triples whose milder view is untouched, at least", 0.0
    )
    triples_per_batch: int | None = _option(
        "degraded triples (milder, stronger, mixture) a batch; default: 2 from scratch, else 0"
    )
    chain_share: float = _option("share of the triples that are degraded by chains of steps", 0.0)
    meaningless_share: float = _option(
        "share of the triples whose stronger view is noise, one colour or stripes", 0.0
    )
    composed_share: float = _option(
        "share of the other triples whose stronger view has a second degradation on top", 0.0
    )
    pseudo_score_weight: float = _option(
        "weight of scores known by construction: of chains and of meaningless views", 0.0
    )
    pristine_score: float = _option("photographs from this score on may be degraded", 75.0)
    pristine_group: str | None = _option("subset whose photographs may be degraded")
    photographs: str | None = _option(
        "folder of more photographs without faults to degrade; several as in PATH"
    )
    type_share: float = _option(
        "share of the triples whose type is drawn among all types, not after its group", 0.0
    )
    stressed_types: str | None = _option(
        "types of degradation to draw more often, with commas, such as color_shift,denoise"
    )
    stressed_share: float = _option("share of the triples whose type is one of them", 0.0)
    random_draws: bool = _option(
        "draw masks and the noise of alignment at random without a teacher too", False
    )

    teacher_steps: int = _option("steps of the teacher's stage", 220)
    teacher_learning_rate: float = _option("of the teacher's new layers", 1e-3)
    teacher_backbone_learning_rate: float = _option("of the teacher's last layer", 1e-4)
    teacher_freeze_layers: int | None = _option(
        "first layers of the teacher's backbone that stay as they are; default: --freeze-layers"
    )
    teacher_rated: int = _option("rated views of a teacher's batch and process", 14)
    teacher_triples: int = _option("degraded triples of a teacher's batch and process", 6)
    fixed_views: int = _option("views a picture whose teacher output is kept; 0: all live", 0)

    dataloader_num_workers: int = _option("processes that read pictures", 1)
    eval_steps: int | None = _option("steps between validations; default: every epoch")
    max_eval_samples: int | None = _option("validation pictures used while training")
    early_stopping_patience: int | None = _option("validations without a better SRCC to the end")
    checkpointing_steps: int | None = _option("steps between checkpoints; default: every 100")
    checkpoints_total_limit: int = _option("checkpoints that are kept", 2)
    resume: str | None = _option("`latest`, or the folder of a checkpoint")
    report_to: Literal["jsonl", "tensorboard", "all", "none"] = _option(
        "log.jsonl is always written; tensorboard beside it", "jsonl"
    )
    logging_steps: int = _option("steps between lines of the log", 10)
    push_to_hub: bool = _option("publish the finished model", False)
    hub_model_id: str | None = _option("ORG/NAME of the repository")
    hub_private_repo: bool = _option("make the repository private", False)
    hub_token: str | None = _option("default: the one of `hf auth login`")

    def __post_init__(self) -> None:
        """Refuse what cannot work, and fill in what depends on other options."""
        for name in ("dataset", "output_dir"):
            if not getattr(self, name):
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is missing; give it, or in a --config")
        if self.score_range is not None and len(self.score_range) != 2:
            raise UsageError("--score-range takes two numbers, the lowest and the highest score")
        if self.from_scratch and not (self.vision_model and self.text_model):
            raise UsageError(
                "--from-scratch needs --vision-model and --text-model, such as "
                "openai/clip-vit-base-patch16 for both"
            )
        if self.from_scratch and self.model:
            raise UsageError("--from-scratch starts from no --model; remove one of them")
        if self.push_to_hub:
            self._check_repository()
        if self.fixed_views and not (self.from_scratch or self.teacher):
            raise UsageError(
                "--fixed-views stores a teacher's output and needs --from-scratch or --teacher"
            )
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} must be at least {least:g}, not {value}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {value}")
        if self.seed >= 1 << 32:
            raise UsageError(f"--seed must be below 2^32, not {self.seed}")
        for name in ("validation_share", "test_share", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise UsageError(f"--{flag} must be from 0 to below 1, not {value}")
        if self.triples_per_batch is None:
            self.triples_per_batch = 2 if self.from_scratch else 0
        for name in self.stressed:
            if name not in DISTORTION_TYPES:
                raise UsageError(
                    f"--stressed-types: no type {name!r}; there are {', '.join(DISTORTION_TYPES)}"
                )
        if bool(self.stressed) != (self.stressed_share > 0):
            raise UsageError("--stressed-types and --stressed-share go together")
        self._refuse_other_shapes()

    def _check_repository(self) -> None:
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        if not self.hub_model_id:
            raise UsageError("--push-to-hub needs --hub-model-id ORG/NAME")
        try:
            validate_repo_id(self.hub_model_id)
        except HFValidationError as error:
            raise UsageError(f"--hub-model-id: {error}") from error

    def _refuse_other_shapes(self) -> None:
        if self.from_scratch:
            return
        for name in self.overrides:
            if not name.endswith("_loss_weight") and name not in _MASKING:
                raise UsageError(
                    f"--config-overrides: {name} needs --from-scratch; a trained --model takes "
                    "weights of losses, such as diffusion_loss_weight, and the masks' "
                    f"{', '.join(_MASKING)} only"
                )

    @property
    def overrides(self) -> dict[str, Any]:
        """`config_overrides` as a dictionary.

        Raises:
            UsageError: it is no JSON object.
        """
        if not self.config_overrides:
            return {}
        try:
            values = json.loads(self.config_overrides)
        except json.JSONDecodeError as error:
            raise UsageError(f"--config-overrides is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise UsageError("--config-overrides must be a JSON object of PfdIqaConfig fields")
        return values

    @property
    def stressed(self) -> tuple[str, ...]:
        """`stressed_types` as a tuple."""
        return tuple(filter(None, (self.stressed_types or "").split(",")))

    def decisive(self) -> dict[str, Any]:
        """The arguments that change the weights: a run goes on only with the same ones."""
        return {key: value for key, value in asdict(self).items() if key not in _INDIFFERENT}


_AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_train_steps": 1,
    "checkpointing_steps": 1,
    "eval_steps": 1,
    "logging_steps": 1,
    "teacher_steps": 1,
    "teacher_rated": 1,
    "teacher_triples": 1,
    "checkpoints_total_limit": 1,
    "max_eval_samples": 3,
    "early_stopping_patience": 1,
    "triples_per_batch": 0,
    "fixed_views": 0,
    "freeze_layers": 0,
    "teacher_freeze_layers": 0,
    "lr_warmup_steps": 0,
    "dataloader_num_workers": 0,
    "split_index": 0,
    "weight_decay": 0,
    "correlation_weight": 0,
    "within_group_weight": 0,
    "ranking_weight": 0,
    "map_weight": 0,
    "counterfactual_weight": 0,
    "map_ranking_weight": 0,
    "names_weight": 0,
    "type_share": 0,
    "stressed_share": 0,
    "clean_share": 0,
    "chain_share": 0,
    "meaningless_share": 0,
    "composed_share": 0,
    "pseudo_score_weight": 0,
    "seed": 0,
}
_MASKING = ("mask_ratio", "unmasked_share", "fusion_masking")
_POSITIVE = (
    "num_train_epochs",
    "learning_rate",
    "backbone_learning_rate",
    "fusion_learning_rate",
    "teacher_learning_rate",
    "teacher_backbone_learning_rate",
    "layer_decay",
    "max_grad_norm",
)
_INDIFFERENT = {
    "output_dir",
    "data_dir",
    "dataset",
    "split_file",
    "model",
    "vision_model",
    "text_model",
    "teacher",
    "check_pictures",
    "per_device_eval_batch_size",
    "checkpointing_steps",
    "checkpoints_total_limit",
    "dataloader_num_workers",
    "resume",
    "report_to",
    "logging_steps",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "hub_token",
    "gradient_checkpointing",
}


def parse_arguments(argv: Sequence[str] | None = None) -> TrainArguments:
    """Read options; a YAML file given by `--config` comes first, the command line overrides it.

    Args:
        argv: Command line without the program's name; None takes the process's own.

    Raises:
        UsageError: an option is unknown, missing or impossible.
    """
    import argparse

    from transformers import HfArgumentParser

    given = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, rest = first.parse_known_args(given)
    parser: Any = HfArgumentParser(
        TrainArguments,  # type: ignore[arg-type]
        prog="pfd-iqa train",
        description="Fine-tune a PFD-IQA model on rated pictures, or train one from scratch.",
        epilog="--config FILE reads the same names from a YAML file; options given here win.",
        allow_abbrev=False,
    )
    if known.config is not None:
        parser.set_defaults(**_from_yaml(Path(known.config)))
    values, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(f"unknown option {unknown[0]}; see pfd-iqa train --help")
    names = {item.name for item in fields(TrainArguments)}
    return TrainArguments(**{key: value for key, value in vars(values).items() if key in names})


def _from_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}; give a readable YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no YAML in UTF-8: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} must hold names and values, such as 'seed: 1'")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    hints = get_type_hints(TrainArguments)
    types = {name: getattr(hint, "__name__", str(hint)) for name, hint in hints.items()}
    types |= {name: str(hint) for name, hint in hints.items() if not isinstance(hint, type)}
    for key, value in values.items():
        if key not in types:
            raise UsageError(f"--config {path}: unknown option {key!r}; see pfd-iqa train --help")
        values[key] = _checked(path, key, value, types[key])
    return values


def _checked(path: Path, key: str, value: Any, kind: str) -> Any:
    """A value from YAML as the option's type has it.

    Raises:
        UsageError: it is of another type.
    """
    if isinstance(value, dict) and key == "config_overrides":
        return json.dumps(value)
    if value is False and "Literal" in kind:
        return "no"  # which YAML takes for a truth value
    if isinstance(value, str) and ("float" in kind or "int" in kind) and "list" not in kind:
        try:
            value = float(value) if "float" in kind else int(value)  # YAML reads 1e-4 as text
        except ValueError:
            raise UsageError(f"--config {path}: {key} must be a number, not {value!r}") from None
    accepted = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "list": isinstance(value, list)
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value),
        "str": isinstance(value, str),
        "Literal": isinstance(value, str),
        "None": value is None,
    }
    wanted = [name for name in accepted if name in kind.replace("list[float]", "list")]
    if not any(accepted[name] for name in wanted):
        raise UsageError(f"--config {path}: {key} must be {kind}, not {value!r}")
    return value
