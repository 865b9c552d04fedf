"""A whole training run: data, stages, calibration, the finished folder and its report."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from pfd_iqa_hf.evaluation.correlation import plcc, srcc
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.scoring.rated import score_ratings
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError
from pfd_iqa_hf.training.batches import RecipeBatches
from pfd_iqa_hf.training.checkpoints import check_room, load_tensors, save_tensors
from pfd_iqa_hf.training.engine import Stage, run_stage
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.failure import TrainingFailure
from pfd_iqa_hf.training.objectives import (
    StudentObjective,
    TeacherBank,
    TeacherObjective,
    freeze_unreached,
)
from pfd_iqa_hf.training.optimization import freeze_lower_layers, parameter_groups
from pfd_iqa_hf.training.report import write_report
from pfd_iqa_hf.training.run_data import RunData, load_run_data
from pfd_iqa_hf.training.run_log import RunLog
from pfd_iqa_hf.training.run_setup import (
    claim_folder,
    make_accelerator,
    refuse_foreign_run,
    start_model,
    to_tracker,
)
from pfd_iqa_hf.training.teacher import Teacher, load_teacher
from pfd_iqa_hf.training.validation import calibrate, validate, within_group_srcc

__all__ = ["train"]

_FEWEST_TO_CALIBRATE = 30
_VIEW = 224
_SAMPLED_BATCHES = 8  # of the teacher's last ones, for E of (9)


def train(arguments: TrainArguments) -> Path:
    """Train as the options say, from where an earlier run with the same options stopped.

    Returns:
        The finished folder; `from_pretrained` loads it.

    Raises:
        UsageError: options that contradict each other, the dataset or an earlier run.
        DatasetError: the dataset cannot be used.
        TrainingFailure: the run cannot go on; the message names the last checkpoint.
        OSError: the folder cannot be written to, or its disk is too small.
    """
    output = Path(str(arguments.output_dir))
    checkpoints = output / "checkpoints"
    refuse_foreign_run(checkpoints, arguments)
    accelerator = make_accelerator(arguments, output)
    with accelerator.main_process_first():
        data = load_run_data(arguments)
    if accelerator.is_main_process:
        check_room(output, 0)
    torch.manual_seed(arguments.seed)
    model = start_model(arguments)
    if accelerator.device.type == "cpu":
        # On a CPU its backward pass is the faster one.
        model.set_attn_implementation({"vision_config": "eager"})
    if accelerator.is_main_process:
        size = 4 * sum(p.numel() for p in model.parameters())
        stages = 2 if arguments.from_scratch else 1
        # Weights, average and two moments; one more while it is written; best and finished weights.
        states = 4 * stages * (arguments.checkpoints_total_limit + 1) + 2
        tokens = model.pfd_iqa.native_grid[0] * model.pfd_iqa.native_grid[1]
        views = arguments.fixed_views * len(data.recipe.train)
        bank = 2 * views * tokens * model.config.denoising_width
        check_room(output, states * size + bank)
        claim_folder(checkpoints, arguments, data, model, accelerator.num_processes)
    accelerator.wait_for_everyone()
    log = RunLog(output / "log.jsonl" if accelerator.is_main_process else None)
    if arguments.report_to in ("tensorboard", "all"):
        accelerator.init_trackers("tensorboard", config={})
        log = RunLog(log.path, echo=partial(to_tracker, accelerator))
    teacher = None
    if arguments.teacher:
        teacher = load_teacher(arguments.teacher, model).to(accelerator.device)
    elif arguments.from_scratch and (model.pfd_iqa.has_priors or model.pfd_iqa.has_denoiser):
        teacher = _train_teacher(arguments, accelerator, data, model, checkpoints, log)
    best = _train_student(arguments, accelerator, data, model, teacher, checkpoints, log)
    if accelerator.is_main_process:
        finish(arguments, data, model, best, output, accelerator, log)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return output


def _train_teacher(
    arguments: TrainArguments,
    accelerator: Accelerator,
    data: RunData,
    student: PfdIqaForImageQualityAssessment,
    checkpoints: Path,
    log: RunLog,
) -> Teacher:
    """First stage: LIQE-style tuning on known distortions and opinion scores, then E of (9)."""
    torch.manual_seed(arguments.seed)
    teacher = Teacher.from_student(student).to(accelerator.device)
    finished = checkpoints / "teacher.safetensors"
    if finished.exists():
        teacher.load_state_dict(load_tensors(finished))
        return teacher.eval().requires_grad_(False)
    if not data.recipe.pristine:
        raise UsageError(
            "the teacher learns from degraded photographs and there are none to degrade; lower "
            "--pristine-score"
        )
    frozen = arguments.teacher_freeze_layers
    freeze_lower_layers(teacher.vision_model, arguments.freeze_layers if frozen is None else frozen)
    steps = arguments.teacher_steps
    if arguments.max_train_steps is not None:
        steps = min(steps, arguments.max_train_steps)
    batches = partial(
        RecipeBatches,
        data.recipe,
        steps * arguments.gradient_accumulation_steps,
        rated=arguments.teacher_rated,
        triples=arguments.teacher_triples,
        seed=arguments.seed + 1,
        distortion_names=student.config.distortion_names,
        process=(accelerator.process_index, accelerator.num_processes),
        skip_bad=arguments.skip_bad,
    )
    objective = TeacherObjective(teacher)
    stage = Stage(
        name="teacher",
        objective=objective,
        groups=parameter_groups(
            teacher,
            teacher.vision_model,
            arguments.teacher_backbone_learning_rate,
            arguments.teacher_learning_rate,
            arguments.layer_decay,
            arguments.weight_decay,
        ),
        steps=steps,
        make_batches=lambda first: batches(first=first),
    )
    run_stage(stage, arguments, accelerator, checkpoints, log)
    teacher.eval().requires_grad_(False)
    sample = []
    last = batches(first=max(0, steps - _SAMPLED_BATCHES))
    with torch.no_grad(), accelerator.autocast():
        for index in range(min(_SAMPLED_BATCHES, len(last))):
            pixels = last[index]["pixel_values"].to(accelerator.device)
            sample.append(teacher.features(pixels).float().flatten(0, 1)[::4])
    kept = teacher.fit_encoder(accelerator.gather(torch.cat(sample)))
    log.write("encoder", steps, variance_kept=kept)
    if accelerator.is_main_process:
        beside = finished.with_suffix(".writing")
        save_tensors(beside, teacher.state_dict())
        os.replace(beside, finished)
    accelerator.wait_for_everyone()
    return teacher


def _train_student(
    arguments: TrainArguments,
    accelerator: Accelerator,
    data: RunData,
    model: PfdIqaForImageQualityAssessment,
    teacher: Teacher | None,
    checkpoints: Path,
    log: RunLog,
) -> Path | None:
    """Second stage, or fine-tuning; returns the folder of the best weights, if any were chosen."""
    if arguments.names_weight and not model.pfd_iqa.has_priors:
        raise UsageError("--names-weight: a model without priors (prior_discovery) names nothing")
    freeze_lower_layers(model.vision_model, arguments.freeze_layers)
    _freeze_parts(model, arguments)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.to(accelerator.device)
    processes = accelerator.num_processes
    a_step = (
        arguments.per_device_train_batch_size * processes * arguments.gradient_accumulation_steps
    )
    epoch = max(1, round(len(data.recipe.train) / a_step))
    steps = arguments.max_train_steps or max(1, round(arguments.num_train_epochs * epoch))
    patch = model.pfd_iqa.patch_size
    tokens = (_VIEW // patch[0]) * (_VIEW // patch[1])
    config = model.config
    draws = {
        "tokens": tokens,
        "width": config.denoising_width,
        "start_timestep": config.start_timestep,
        "mask_ratio": config.mask_ratio,
        "unmasked_share": config.unmasked_share,
    }
    batches = partial(
        RecipeBatches,
        data.recipe,
        steps * arguments.gradient_accumulation_steps,
        arguments.per_device_train_batch_size,
        arguments.triples_per_batch or 0,
        arguments.seed,
        config.distortion_names,
        draws=draws if teacher is not None or arguments.random_draws else None,
        process=(accelerator.process_index, processes),
        fixed_views=arguments.fixed_views,
        skip_bad=arguments.skip_bad,
        clean_share=arguments.clean_share,
        chain_share=arguments.chain_share,
        meaningless_share=arguments.meaningless_share,
        composed_share=arguments.composed_share,
        type_share=arguments.type_share,
        stressed_types=arguments.stressed,
        stressed_share=arguments.stressed_share,
    )
    objective = StudentObjective(
        model,
        arguments.per_device_train_batch_size,
        {
            "correlation": arguments.correlation_weight,
            "within_group": arguments.within_group_weight,
            "ranking": arguments.ranking_weight,
            "map": arguments.map_weight,
            "map_ranking": arguments.map_ranking_weight,
            "names": arguments.names_weight,
            "counterfactual": arguments.counterfactual_weight,
            "pseudo_score": arguments.pseudo_score_weight,
        },
        gather=accelerator.gather if processes > 1 else None,
        process=accelerator.process_index,
    )
    targets = _targets(arguments, accelerator, teacher, checkpoints, data, tokens)
    first = batches(first=0)[0]
    if "error" in first:
        raise first["error"]
    first.pop("skipped", None)
    first = {name: value.to(accelerator.device) for name, value in first.items()}
    freeze_unreached(objective, first, *([] if targets is None else [targets(first)]))
    stage = Stage(
        name="student",
        objective=objective,
        groups=parameter_groups(
            model,
            model.vision_model,
            arguments.backbone_learning_rate,
            arguments.learning_rate,
            arguments.layer_decay,
            arguments.weight_decay,
            _own_rates(model, arguments),
        ),
        steps=steps,
        make_batches=lambda start: batches(first=start),
        targets=targets,
        eval_steps=min(arguments.eval_steps or epoch, steps),
        keep_best=lambda folder: _write_weights(model, folder),
    )
    if len(data.validation):
        stage.validate = _validator(arguments, accelerator, data, model, teacher)
    run_stage(stage, arguments, accelerator, checkpoints, log)
    if accelerator.is_main_process:
        export(model, checkpoints / "last")  # beside the best ones, and loads like any model
    best = checkpoints / "best"
    return best if len(data.validation) and best.is_dir() else None


def _targets(
    arguments: TrainArguments,
    accelerator: Accelerator,
    teacher: Teacher | None,
    checkpoints: Path,
    data: RunData,
    tokens: int,
) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None:
    if teacher is None:
        return None
    bank: TeacherBank | None = None
    if arguments.fixed_views:
        with accelerator.main_process_first():
            bank = TeacherBank(
                teacher,
                checkpoints / "teacher-bank",
                len(data.recipe.train) * arguments.fixed_views,
                tokens,
            )

    def targets(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad(), accelerator.autocast():
            if bank is not None:
                return bank(batch["pixel_values"], batch["view_key"])
            answer: dict[str, torch.Tensor] = teacher(batch["pixel_values"])
            return answer

    return targets


def _validator(
    arguments: TrainArguments,
    accelerator: Accelerator,
    data: RunData,
    model: PfdIqaForImageQualityAssessment,
    teacher: Teacher | None,
) -> Callable[[], dict[str, float]]:
    """Scores the validation pictures; from scratch with every box bypassed once as well."""
    table = data.validation
    if arguments.max_eval_samples is not None:
        order = np.random.default_rng(0).permutation(len(table))
        table = table.select(sorted(order[: arguments.max_eval_samples].tolist()))
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes.get(arguments.mixed_precision)

    def with_bypasses() -> dict[str, float]:
        assert teacher is not None
        result = validate(model, list(table), teacher, dtype=dtype)
        result["selected"] = result["within"]
        return result

    def with_test_views() -> dict[str, float]:
        processor = PfdIqaImageProcessor(view_strategy=model.config.view_strategy)
        own = range(accelerator.process_index, len(table), accelerator.num_processes)
        predictions = score_ratings(
            model,
            processor,
            table.select(own),
            batch_size=arguments.per_device_eval_batch_size,
            dtype=dtype,
        )
        pairs: Any = [(row, float(s)) for row, s in zip(own, predictions.score, strict=True)]
        pairs = gather_object(pairs) if accelerator.num_processes > 1 else pairs
        scores = np.array([score for _, score in sorted(pairs)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NaN is reported by the caller
            labels = np.array([rating.mos for rating in table])
            result = {"srcc": srcc(scores, labels), "plcc": plcc(scores, labels)}
            result["within"] = within_group_srcc(scores, list(table))
        result["selected"] = result["within"]
        return result

    return with_bypasses if teacher is not None else with_test_views


def _freeze_parts(model: Any, arguments: TrainArguments) -> None:
    """Keep the parts of --frozen-parts as they are."""
    parts = dict(model.pfd_iqa.named_children()) | {"head": model.head}
    for name in filter(None, (arguments.frozen_parts or "").split(",")):
        if name not in parts:
            raise UsageError(f"--frozen-parts: no part {name!r}; there are {', '.join(parts)}")
        parts[name].requires_grad_(False)


def _own_rates(model: Any, arguments: TrainArguments) -> list[tuple[torch.nn.Module, float]]:
    """Parts of the model that do not learn at --learning-rate."""
    fusion = model.pfd_iqa.fusion
    rate = arguments.fusion_learning_rate
    return [] if rate is None or fusion is None else [(fusion, rate)]


def _write_weights(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)  # the folder loads as a model, too
    save_tensors(folder / "model.safetensors", model.state_dict())


def finish(
    arguments: TrainArguments,
    data: RunData,
    model: PfdIqaForImageQualityAssessment,
    best: Path | None,
    output: Path,
    accelerator: Accelerator,
    log: RunLog,
) -> None:
    """Calibrate the chosen weights, write the finished folder, measure what was written."""
    if best is not None:
        model.load_state_dict(load_tensors(best / "model.safetensors"))
    model.eval()
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    model.set_attn_implementation({"vision_config": "sdpa"})
    facts: dict[str, Any] = {}
    if len(data.validation) >= _FEWEST_TO_CALIBRATE:
        facts = calibrate(model, list(data.validation))
        log.write("calibration", 0, **facts)
    else:
        warnings.warn(
            f"{len(data.validation)} validation pictures are too few to calibrate the uncertainty, "
            f"which stays as it was: give at least {_FEWEST_TO_CALIBRATE}",
            stacklevel=2,
        )
    export(model, output)
    finished: Any = PfdIqaForImageQualityAssessment.from_pretrained(output)
    finished.to(accelerator.device)
    write_report(arguments, data, finished, output, log, accelerator.num_processes)
    if arguments.push_to_hub:
        _push(arguments, output)


def _push(arguments: TrainArguments, output: Path) -> None:
    from pfd_iqa_hf.hub.facts import FactsError
    from pfd_iqa_hf.hub.push import push
    from pfd_iqa_hf.hub.repository_check import RepositoryError
    from pfd_iqa_hf.hub.repository_folder import LoadError, build_repository_folder

    folder = output / "checkpoints" / "published"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        build_repository_folder(output, str(arguments.hub_model_id), folder)
    except (FactsError, LoadError, RepositoryError) as error:
        raise TrainingFailure(
            f"trained, but not published: {error}; the model is in {output}"
        ) from error
    push(
        folder,
        str(arguments.hub_model_id),
        private=arguments.hub_private_repo,
        token=arguments.hub_token,
    )
