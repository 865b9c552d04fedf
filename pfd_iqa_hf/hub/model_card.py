"""The card of a published model, filled from its configuration and the facts of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pfd_iqa_hf.hub.facts import ModelFacts, ResultFact

__all__ = ["Sample", "make_model_card"]

_TEMPLATE = Path(__file__).with_name("model_card.md")
_TAGS = (
    "image-quality-assessment",
    "no-reference-iqa",
    "pfd-iqa",
    "arxiv:2401.11949",
    "custom_code",
)
# Ids of the Hub's metrics, and what people call them.
_METRICS = {"srcc": ("spearmanr", "SRCC"), "plcc": ("pearsonr", "PLCC")}
_BAND_NOTES = {
    "excellent": "no visible fault",
    "good": "faults are hard to see or do not disturb",
    "fair": "visible faults",
    "poor": "disturbing faults",
    "bad": "hardly usable",
}


@dataclass(frozen=True)
class Sample:
    """A picture in the repository and what the model says about it.

    Attributes:
        path: Below the repository.
        title: Of the example.
        score: 0-100, higher is better.
        label: Band of the score.
        uncertainty: Standard deviation in score points.
        levels: `{"label", "score"}` with probabilities, the most probable first.
    """

    path: str
    title: str
    score: float
    label: str
    uncertainty: float
    levels: Sequence[dict[str, Any]]


def make_model_card(
    repo_id: str,
    config: Any,
    facts: ModelFacts | None,
    weights_sha256: str,
    *,
    results: Sequence[ResultFact] = (),
    samples: Sequence[Sample] = (),
    has_results: bool = False,
    onnx: Sequence[str] = (),
) -> ModelCard:
    """Render the card.

    Args:
        repo_id: `ORG/NAME` of the repository.
        config: The model's configuration.
        facts: About its training; None where nobody stated any, and the card says so.
        weights_sha256: First digits of the SHA-256 of the weights.
        results: What was measured, where the facts hold no results.
        samples: Pictures that the repository carries.
        has_results: Whether it carries a folder `results/`.
        onnx: Names of the files in its folder `onnx/`.

    Returns:
        The card; the same arguments always give the same text.
    """
    known = facts or ModelFacts()
    measured = list(known.results or results)
    return ModelCard.from_template(
        _metadata(repo_id, known, measured, samples),
        template_path=str(_TEMPLATE),
        repo_id=repo_id,
        facts=known,
        results=[_row(result) for result in measured],
        notes=sorted({f"{r.dataset}: {r.note}" for r in measured if r.note}),
        commands=list(dict.fromkeys(r.command for r in measured if r.command)),
        bands=_bands(config),
        distortions=[name for name in config.distortion_names if name != "none"],
        samples=samples,
        has_results=has_results,
        onnx=onnx,
        weights_sha256=weights_sha256,
    )


def _metadata(
    repo_id: str, facts: ModelFacts, results: Sequence[ResultFact], samples: Sequence[Sample]
) -> ModelCardData:
    if facts.license is not None:
        licence: dict[str, Any] = {"license": facts.license}
    else:
        # The code's licence says nothing about weights that someone made from some data.
        licence = {
            "license": "other",
            "license_name": "see-training-data",
            "license_link": f"https://huggingface.co/{repo_id}#training-data",
        }
    optional: dict[str, Any] = {}
    if facts.base_models:
        optional["base_model"] = list(facts.base_models)
        optional["base_model_relation"] = "finetune"
    if results:
        optional["metrics"] = sorted({_METRICS[result.measure][0] for result in results})
        optional["model_name"] = repo_id.split("/")[-1]
        optional["eval_results"] = [_eval_result(result) for result in results]
    if samples:
        optional["widget"] = [_example(sample) for sample in samples]
    return ModelCardData(
        **licence,
        library_name="transformers",
        pipeline_tag="image-classification",  # the Hub has no tag for image quality
        tags=list(_TAGS),
        **optional,
    )


def _eval_result(result: ResultFact) -> EvalResult:
    metric, name = _METRICS[result.measure]
    return EvalResult(
        task_type="image-classification",
        task_name="Image quality assessment",
        dataset_type=result.dataset_id or result.dataset.lower().replace(" ", "-"),
        dataset_name=result.dataset,
        dataset_split=result.split,
        metric_type=metric,
        metric_name=name,
        metric_value=round(result.value, 4),
    )


def _example(sample: Sample) -> dict[str, Any]:
    levels = [
        {"label": level["label"], "score": round(float(level["score"]), 2)}
        for level in sample.levels
    ]
    return {"src": sample.path, "example_title": sample.title, "output": levels}


def _row(result: ResultFact) -> dict[str, str]:
    value = f"{result.value:.3f}"
    if result.lower is not None and result.upper is not None:
        value += f" ({result.lower:.3f} to {result.upper:.3f})"
    return {
        "dataset": result.dataset,
        "split": result.split or "",
        "pictures": "" if result.pictures is None else f"{result.pictures:,}",
        "measure": _METRICS[result.measure][1],
        "value": value,
    }


def _bands(config: Any) -> list[dict[str, str]]:
    """The quality bands, best first, from the configuration's names and borders."""
    edges = [config.score_range[0], *config.level_borders, config.score_range[1]]
    bands = []
    for number, name in enumerate(config.level_names):
        low, high = f"{edges[number]:g}", f"{edges[number + 1]:g}"
        last = number == len(config.level_names) - 1
        span = f"{low} to {high}" if last else f"{low} to below {high}"
        bands.append({"span": span, "name": name, "note": _BAND_NOTES.get(name, "")})
    return bands[::-1]
