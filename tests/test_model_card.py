"""The card of a published model: whole, true to its facts, and as the Hub wants its metadata."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from tiny_models import tiny_config

from pfd_iqa_hf import default_checkpoint
from pfd_iqa_hf.checkpoint import weights_sha256
from pfd_iqa_hf.hub.card_metadata import problems_of_model_metadata
from pfd_iqa_hf.hub.facts import (
    FACTS_FILE,
    DataFact,
    FactsError,
    ModelFacts,
    ResultFact,
    load_facts,
    results_of_reports,
    write_facts,
)
from pfd_iqa_hf.hub.model_card import Sample, make_model_card

LEVELS = [{"label": "good", "score": 0.701}, {"label": "fair", "score": 0.299}]
SAMPLES = [Sample("samples/cat.jpg", "a cat", 71.3, "good", 8.2, LEVELS)]
SHA = "0123456789ab"
SCORE = r"-?[01]\.\d+"
COUNT = r"\d{1,3}(?:,\d{3})*"

# The whole card of the bundled checkpoint: ⟨name⟩ stands for what its facts fill in.
WHOLE = Path(__file__).with_name("test_model_card_whole.md")
METRIC = rf"    - type: (?:spearmanr|pearsonr)\n      value: {SCORE}\n      name: (?:SRCC|PLCC)\n"
PARTS = {
    "items": r"(?:- [^\n]+\n)+",
    "license": r"[a-z0-9.-]+",
    "line": r"[^\n]+",
    "lines": r"(?:[^\n]+\n\n)*",
    "code": r"(?:(?!```)[^\n]*\n)+",
    "data": rf"(?:\| (?:\[[^\]\n]+\]\(https://[^)\n]+\)|[^|\n]+)(?:, `\w+`)? \| [^|\n]+ \| {COUNT}"
    r" \| [^|\n]+ \|\n)+",
    "splits": rf"(?:\| \w+ \| {COUNT} \|\n)+",
    "rows": rf"(?:\| [^|\n]+ \| \w+ \| {COUNT} \| (?:SRCC|PLCC) \| {SCORE}"
    rf"(?: \({SCORE} to {SCORE}\))? \|\n)+",
    "results": r"(?:  - task:\n      type: image-classification\n"
    r"      name: Image quality assessment\n    dataset:\n      name: [^\n]+\n"
    r"      type: [^\n]+\n      split: \w+\n    metrics:\n"
    rf"(?:{METRIC})+)+",
}


def pattern(text: str) -> str:
    """A regular expression of a text with ⟨parts⟩."""
    escaped = re.escape(text)
    for name, part in PARTS.items():
        escaped = escaped.replace(re.escape(f"⟨{name}⟩"), part)
    assert "⟨" not in escaped, "a part without a pattern"
    return escaped


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    found = load_facts(default_checkpoint())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def card(facts: ModelFacts) -> ModelCard:
    return make_model_card(
        "acme/tiny",
        tiny_config(),
        facts,
        SHA,
        samples=SAMPLES,
        has_results=True,
        onnx=["model.onnx"],
    )


def metadata(card: ModelCard) -> Any:
    return yaml.safe_load(str(card).split("---\n")[1])


def test_the_whole_card_is_as_designed(card: ModelCard) -> None:
    assert re.fullmatch(pattern(WHOLE.read_text().rstrip("\n")), str(card)), str(card)


def test_every_fact_is_told(card: ModelCard, facts: ModelFacts) -> None:
    told = [facts.license, facts.split_note, facts.results_note, facts.cost, facts.recipe]
    told += [*facts.base_models, *facts.limits]
    for item in facts.data:
        told += [item.name, item.used_for, item.license, item.address]
    for result in facts.results:
        told += [result.note, result.command, f"{result.value:.3f}"]
    for text in told:
        assert text is None or text in str(card), text


def test_the_bundled_facts_are_about_the_bundled_weights(facts: ModelFacts) -> None:
    assert facts.weights_sha256 == weights_sha256(default_checkpoint())
    assert facts.license and facts.data and facts.results and facts.cost and facts.limits


def test_the_readme_says_the_same_numbers(facts: ModelFacts) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for result in facts.results:
        for number in (result.value, result.lower, result.upper):
            if number is not None:
                assert f"{number:.3f}".lstrip("0") in readme, (result, number)


def test_a_model_without_facts_says_so_and_claims_nothing() -> None:
    card = make_model_card("acme/tiny", tiny_config(), None, SHA)
    assert "has not stated what they were trained on" in card.text
    assert "None were measured." in card.text and "nobody has stated them here" in card.text
    assert "independent implementation" in card.text
    found = metadata(card)
    assert found["license"] == "other" and not {"model-index", "widget", "metrics"} & set(found)
    assert problems_of_model_metadata(found) == []
    assert not re.search(r"\n{3,}|{{|}}|None\b(?! were)", str(card)), "a hole in the template"


def test_the_metadata_meets_the_hubs_specification(card: ModelCard, facts: ModelFacts) -> None:
    found = metadata(card)
    assert problems_of_model_metadata(found) == []
    assert found["library_name"] == "transformers" and "arxiv:2401.11949" in found["tags"]
    again = ModelCardData(**found)
    assert again.model_name == "tiny" and again.eval_results is not None
    flat = {
        (r.dataset_name, r.dataset_split, r.metric_name): r.metric_value for r in again.eval_results
    }
    assert flat == {(r.dataset, r.split, r.measure.upper()): r.value for r in facts.results}
    assert yaml.safe_load(again.to_yaml()) == found


RESULT: dict[str, Any] = {
    "task": {"type": "image-classification"},
    "dataset": {"type": "koniq", "name": "KonIQ"},
    "metrics": [{"type": "spearmanr", "value": 0.9}],
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"license": None}, "license"),
        ({"license": "Apache 2"}, "not an identifier"),
        ({"license": "other"}, "license_name"),
        ({"tags": "one"}, "tags"),
        ({"base_model": ["not an id"]}, "base_model"),
        ({"base_model_relation": "child"}, "base_model_relation"),
        ({"widget": [{"text": "x"}]}, "src"),
        ({"model-index": [{"results": []}]}, "name"),
        ({"model-index": [{"name": "m"}]}, "results"),
        ({"model-index": [{"name": "m", "results": [{**RESULT, "task": {}}]}]}, "task.type"),
        (
            {"model-index": [{"name": "m", "results": [{**RESULT, "dataset": {"type": "k"}}]}]},
            "dataset.name",
        ),
        ({"model-index": [{"name": "m", "results": [{**RESULT, "metrics": []}]}]}, "metrics"),
        (
            {"model-index": [{"name": "m", "results": [{**RESULT, "metrics": [{"type": "s"}]}]}]},
            "value",
        ),
    ],
)
def test_a_breach_of_the_specification_is_found(change: dict[str, Any], problem: str) -> None:
    sound = {"license": "mit", "tags": ["a"], "model-index": [{"name": "m", "results": [RESULT]}]}
    assert problems_of_model_metadata(sound) == []
    assert any(problem in found for found in problems_of_model_metadata({**sound, **change}))


def test_facts_of_a_folder_are_read_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    facts = ModelFacts(
        weights_sha256=weights_sha256(tiny_checkpoint),
        license="cc-by-nc-4.0",
        data=[DataFact("Mine", "training", "ours", pictures=7)],
        splits={"training": 7},
        results=[ResultFact("Mine", "srcc", 0.5, lower=0.4, upper=0.6)],
        cost="a day",
    )
    file = write_facts(tmp_path / "model", facts)
    assert set(json.loads(file.read_text())) == {
        "weights_sha256",
        "license",
        "data",
        "splits",
        "results",
        "cost",
    }
    found = load_facts(tmp_path / "model")
    assert found is not None and found.data == facts.data and found.results == facts.results
    text = str(make_model_card("acme/tiny", tiny_config(), found, SHA))
    assert "| Mine | training | 7 | ours |" in text and "license: cc-by-nc-4.0" in text
    assert load_facts(tiny_checkpoint) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "training_facts.json"),
        ("[]", "not one JSON object"),
        ('{"licence": "mit"}', "unknown field 'licence'"),
        ('{"weights_sha256": "0123"}', "is about the weights 0123"),
        ('{"results": [{"dataset": "a", "measure": "rmse", "value": 1}]}', "measure 'rmse'"),
        ('{"results": [{"dataset": "a", "measure": "srcc", "value": 80}]}', "not in -1..1"),
        ('{"data": [{"name": "a"}]}', "missing"),
    ],
)
def test_facts_that_cannot_be_used_are_told(
    content: str, reason: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "model")
    (tmp_path / "model" / FACTS_FILE).write_text(content)
    with pytest.raises(FactsError, match=re.escape(reason)):
        load_facts(tmp_path / "model")


def test_a_damaged_report_is_told(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"agreement": {}}')
    with pytest.raises(FactsError, match="report.json"):
        results_of_reports(tmp_path)
