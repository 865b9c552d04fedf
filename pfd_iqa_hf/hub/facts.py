"""What a model card says beside the configuration: training data, splits, results, limits, cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256

__all__ = [
    "FACTS_FILE",
    "DataFact",
    "FactsError",
    "ModelFacts",
    "ResultFact",
    "load_facts",
    "results_of_reports",
    "write_facts",
]

FACTS_FILE = "training_facts.json"
_DEFAULT_FACTS = Path(__file__).with_name("default_facts.json")
_MEASURES = ("srcc", "plcc")


class FactsError(ValueError):
    """Facts that cannot be used; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class DataFact:
    """One set of pictures.

    Attributes:
        name: As people know it.
        used_for: Such as "training", or "measuring only".
        license: Terms of use, in words.
        address: Where it is found; None if nowhere.
        revision: Commit or version.
        pictures: How many of its pictures were used.
    """

    name: str
    used_for: str
    license: str
    address: str | None = None
    revision: str | None = None
    pictures: int | None = None


@dataclass(frozen=True)
class ResultFact:
    """One measured correlation with mean opinion scores; higher is better.

    Attributes:
        dataset: Name of the set.
        measure: "srcc" (Spearman) or "plcc" (Pearson).
        value: From -1 to 1.
        dataset_id: Hub id of the set, or its short name.
        split: Which part of the set.
        pictures: Size of that part.
        lower: Lower end of the 95 % interval; `upper` likewise.
        note: What the reader must know.
        command: What prints the number.
    """

    dataset: str
    measure: str
    value: float
    dataset_id: str | None = None
    split: str | None = None
    pictures: int | None = None
    lower: float | None = None
    upper: float | None = None
    note: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """Everything in `training_facts.json`; each field may be left out.

    Attributes:
        weights_sha256: First 12 digits of the SHA-256 of the weights that the facts are about.
        license: Of the weights, as the Hub writes it, such as "apache-2.0".
        base_models: Hub ids of what the weights were derived from.
        data: Sets of pictures.
        splits: Pictures in each part.
        split_note: How the parts were made.
        results: What was measured.
        results_note: How.
        limits: What the model cannot do, and its biases; one sentence or two each.
        cost: Of the training.
        recipe: Command, seed, or address of a description.
    """

    weights_sha256: str | None = None
    license: str | None = None
    base_models: Sequence[str] = ()
    data: Sequence[DataFact] = ()
    splits: Mapping[str, int] | None = None
    split_note: str | None = None
    results: Sequence[ResultFact] = ()
    results_note: str | None = None
    limits: Sequence[str] = ()
    cost: str | None = None
    recipe: str | None = None


def load_facts(checkpoint: Path) -> ModelFacts | None:
    """Facts about a checkpoint: of its folder, or the bundled ones if it is the bundled checkpoint.

    Args:
        checkpoint: A folder with weights.

    Returns:
        The facts; None where there are none.

    Raises:
        FactsError: the folder's file cannot be used, or is about other weights.
    """
    digest = weights_sha256(checkpoint)
    file = checkpoint / FACTS_FILE
    if not file.is_file():
        try:
            is_bundled = digest == weights_sha256(default_checkpoint())
        except OSError:  # a distribution without a checkpoint
            is_bundled = False
        if not is_bundled:
            return None
        file = _DEFAULT_FACTS
    facts = _read(file)
    if facts.weights_sha256 not in (None, digest):
        raise FactsError(
            f"{file}: is about the weights {facts.weights_sha256}, but these are {digest}; "
            "bring the facts up to date, or remove the file"
        )
    return facts


def write_facts(folder: Path, facts: ModelFacts) -> Path:
    """Write `training_facts.json` beside the weights; fields without a value are left out.

    Args:
        folder: Of the checkpoint.
        facts: About its training.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    content = _without_blanks(asdict(facts))
    file = folder / FACTS_FILE
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def _without_blanks(content: Any) -> Any:
    if isinstance(content, dict):
        kept = {key: _without_blanks(value) for key, value in content.items()}
        return {key: value for key, value in kept.items() if value not in (None, [], {})}
    if isinstance(content, (list, tuple)):
        return [_without_blanks(value) for value in content]
    return content


def _read(file: Path) -> ModelFacts:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is not one JSON object")
        content = {
            **content,
            "data": [_made(DataFact, item) for item in content.get("data", ())],
            "results": [_made(ResultFact, item) for item in content.get("results", ())],
        }
        facts = _made(ModelFacts, content)
        _check(facts)
    except (OSError, TypeError, ValueError) as error:
        raise FactsError(f"{file}: {error}; docs/hub.md lists its fields") from error
    return facts


def _made(kind: Any, content: Any) -> Any:
    if not isinstance(content, dict):
        raise TypeError(f"{content!r} is not a JSON object")
    names = {field.name for field in fields(kind)}
    if unknown := sorted(set(content) - names):
        raise ValueError(f"unknown field {unknown[0]!r}, not one of {', '.join(sorted(names))}")
    return kind(**content)


def _check(facts: ModelFacts) -> None:
    for result in facts.results:
        if result.measure not in _MEASURES:
            known = ", ".join(_MEASURES)
            raise ValueError(f"measure {result.measure!r} is not one of {known}")
        for number in (result.value, result.lower, result.upper):
            if number is not None and not -1 <= number <= 1:
                raise ValueError(f"{result.measure} of {result.dataset}: {number} is not in -1..1")


def results_of_reports(folder: Path) -> list[ResultFact]:
    """What the `report.json` files of `pfd-iqa train` and `evaluate` below a folder measured.

    Args:
        folder: Usually `results/` of a finished run.

    Returns:
        SRCC and PLCC of each report, in the order of their paths; numbers that are not defined are
        left out.

    Raises:
        FactsError: a report is damaged.
    """
    found = []
    for file in sorted(folder.rglob("report.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            overall = report["agreement"]
            for measure in _MEASURES:
                estimate = overall[measure]
                if estimate["value"] is None or not math.isfinite(estimate["value"]):
                    continue
                found.append(
                    ResultFact(
                        dataset=report["dataset"]["name"],
                        measure=measure,
                        value=estimate["value"],
                        split=report["run"].get("part"),
                        pictures=overall["pictures"],
                        lower=estimate.get("lower"),
                        upper=estimate.get("upper"),
                    )
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FactsError(
                f"{file}: is no report of `pfd-iqa evaluate` ({error}); make it anew, or take it "
                "out of the folder"
            ) from error
    return found
