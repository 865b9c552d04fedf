"""What a finished run tells: predictions, plots, and a card with data, results and command."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

import pfd_iqa_hf
from pfd_iqa_hf.checkpoint import weights_sha256
from pfd_iqa_hf.data.table import RatingTable
from pfd_iqa_hf.evaluation.predictions import RatedPredictions
from pfd_iqa_hf.evaluation.report import EvaluationReport, evaluate_predictions
from pfd_iqa_hf.evaluation.report import write_report as write_evaluation
from pfd_iqa_hf.hub.facts import DataFact, ModelFacts, results_of_reports, write_facts
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.scoring.rated import score_ratings
from pfd_iqa_hf.training.arguments import TrainArguments
from pfd_iqa_hf.training.curves import draw_curves
from pfd_iqa_hf.training.run_data import RunData
from pfd_iqa_hf.training.run_log import RunLog, read_log

__all__ = ["command_line", "write_report"]

_CARD = Path(__file__).with_name("run_card.md")
_RESAMPLES = 1000
_NOT_IN_THE_COMMAND = {"hub_token", "resume"}


def write_report(
    arguments: TrainArguments,
    data: RunData,
    model: Any,
    output: Path,
    log: RunLog,
    processes: int = 1,
) -> dict[str, EvaluationReport]:
    """Score the validation and test part with the finished model, and write it all down.

    Args:
        arguments: Options of the run.
        data: Its pictures.
        model: The model as loaded from `output`.
        output: The finished folder; gets `results/`, `training.png` and `README.md`.
        log: Of the run.
        processes: That trained together.

    Returns:
        What was measured, by part.
    """
    processor = PfdIqaImageProcessor.from_pretrained(output)
    facts = {
        "model": output.name,
        "model_sha256": weights_sha256(output),
        "level_names": list(model.config.level_names),
        "interval_factors": model.config.interval_factors,
    }
    reports: dict[str, EvaluationReport] = {}
    for part, table in (("validation", data.validation), ("test", data.test)):
        if not len(table):
            continue
        predictions = score_ratings(
            model, processor, table, batch_size=arguments.per_device_eval_batch_size
        )
        rated = RatedPredictions.of(table, predictions, facts | {"part": part})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is not defined is blank in the report
            report = evaluate_predictions(rated, resamples=_RESAMPLES)
        write_evaluation(output / "results" / part, rated, report, own_scale=True)
        reports[part] = report
        overall = report.overall
        log.write(part + "-result", 0, srcc=overall.srcc.value, plcc=overall.plcc.value)
    if log.path is not None:
        draw_curves(read_log(log.path), output / "training.png")
    card = ModelCard.from_template(
        ModelCardData(
            license="other",
            license_name="see-training-data",
            library_name="transformers",
            pipeline_tag="image-classification",  # the Hub has no tag for image quality
            tags=["image-quality-assessment", "no-reference-iqa", "pfd-iqa"],
        ),
        template_path=str(_CARD),
        name=output.name,
        dataset=data.table.name,
        terms=data.table.terms or "not known to this package; ask whoever made the dataset",
        scale=_scale(data.table),
        origin=data.origin,
        counts={
            "training": len(data.recipe.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "left out as near copies of test pictures": len(data.recipe.dropped),
            "skipped as broken": len(data.table.skipped),
        },
        rows=[_row(part, report) for part, report in reports.items()],
        start="scratch" if arguments.from_scratch else (arguments.model or "the bundled default"),
        seed=arguments.seed,
        command=command_line(arguments, processes),
        version=pfd_iqa_hf.__version__,
        weights_sha256=facts["model_sha256"],
    )
    card.save(output / "README.md")
    # What the card of a published repository is made from.
    write_facts(
        output,
        ModelFacts(
            weights_sha256=facts["model_sha256"],
            data=[
                DataFact(
                    data.table.name, "training, validation, test", data.table.terms or "not known"
                )
            ],
            splits={
                "training": len(data.recipe.train),
                "validation": len(data.validation),
                "test": len(data.test),
            },
            split_note=data.origin,
            results=[
                result
                for result in results_of_reports(output / "results")
                if result.split != "validation"  # the weights were chosen by it
            ],
        ),
    )
    return reports


def command_line(arguments: TrainArguments, processes: int = 1) -> str:
    """The command that starts this run again, without options that have their default."""
    words = ["pfd-iqa", "train"]
    if processes > 1:
        words = f"accelerate launch --num_processes {processes} -m pfd_iqa_cli train".split()
    for item in fields(arguments):
        value = getattr(arguments, item.name)
        if value == item.default or item.name in _NOT_IN_THE_COMMAND:
            continue
        if item.name == "triples_per_batch" and value == (2 if arguments.from_scratch else 0):
            continue
        flag = "--" + item.name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is False:
            words.append("--no-" + item.name.replace("_", "-"))
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def _row(part: str, report: EvaluationReport) -> dict[str, str]:
    overall = report.overall

    def shown(estimate: Any) -> str:
        return f"{estimate.value:.3f} ({estimate.lower:.3f} to {estimate.upper:.3f})"

    return {
        "part": part,
        "pictures": f"{overall.pictures:,}",
        "srcc": shown(overall.srcc),
        "plcc": shown(overall.plcc),
        "rmse": shown(overall.rmse),
    }


def _scale(table: RatingTable) -> str:
    low, high = table.score_range
    return f"{low:g} to {high:g}, {'higher' if table.higher_is_better else 'lower'} is better"
