"""Numbers in the documents would be about other weights than those that are shipped."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import publish  # noqa: E402

SHA = weights_sha256(default_checkpoint())
STORED = sorted(publish.PUBLISHED.glob("*.json"))


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return publish.published_results(SHA)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_results_are_about_the_shipped_file(
    path: Path, results: dict[str, dict[str, Any]]
) -> None:
    assert json.loads(path.read_text("utf-8"))["model_sha256"] == SHA
    # The others are stale where they were measured with other views than the shipped ones.
    assert path.stem in {"examples", *results}


def test_the_documents_say_what_is_stored(results: dict[str, dict[str, Any]]) -> None:
    assert {"authentic_biq2021", "authentic_livec"} <= set(results)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == publish.with_block(readme, results)
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert page == publish.results_page(SHA, results)
    facts = json.loads(publish.FACTS.read_text("utf-8"))
    assert facts["results"] == publish.facts_results(results)
    assert facts["results_note"] == publish.results_note(results)


@pytest.mark.parametrize("name", ["authentic_biq2021", "authentic_livec"])
def test_numbers_follow_from_the_stored_predictions(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    from scipy.stats import pearsonr, spearmanr

    table = pq.read_table(publish.PUBLISHED / f"{name}.parquet").to_pydict()
    assert len(set(table["path"])) == results[name]["count"]
    assert spearmanr(table["score"], table["mos"]).statistic == pytest.approx(results[name]["srcc"])
    assert pearsonr(table["score"], table["mos"]).statistic == pytest.approx(results[name]["plcc"])


def test_the_shipped_file_scores_the_examples_as_stored() -> None:
    stored = json.loads((publish.PUBLISHED / "examples.json").read_text("utf-8"))["scores"]
    found = publish.example_scores()
    assert found.keys() == stored.keys() and len(found) >= 20
    for name, score in found.items():
        assert score == pytest.approx(stored[name], abs=0.05), name
