"""The metric works as people use `evaluate`: without a network, as a class and as a folder."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pfd_iqa_hf.evaluation.metric import IqaCorrelation

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "metrics" / "iqa_correlation"
PREDICTIONS = [52.1, 71.0, 38.5, 60.2, 44.9, 66.3, 58.0, 58.0, 30.1, 80.4]
REFERENCES = [50.0, 80.0, 30.0, 62.0, 47.0, 60.0, 40.0, 65.0, 35.0, 77.0]
GROUPS = ["a"] * 5 + ["b"] * 5


@pytest.fixture(scope="module")
def metric() -> IqaCorrelation:
    return IqaCorrelation(keep_in_memory=True)


def test_space_folder_loads_offline_and_agrees_with_the_class(
    metric: IqaCorrelation, tmp_path: Path
) -> None:
    program = (
        "import json, sys, evaluate\n"
        "metric = evaluate.load('metrics/iqa_correlation', keep_in_memory=True)\n"
        "p, r, g = json.loads(sys.argv[1])\n"
        "whole = metric.compute(predictions=p, references=r, groups=g)\n"
        "five = metric.compute(predictions=p, references=r, fit='logistic5', resamples=20)\n"
        "print(json.dumps([whole, five]))\n"
    )
    arguments = json.dumps([PREDICTIONS, REFERENCES, GROUPS])
    result = subprocess.run(
        [sys.executable, "-c", program, arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    whole, five = json.loads(result.stdout.splitlines()[-1])
    both = {"predictions": PREDICTIONS, "references": REFERENCES}
    expected = metric.compute(**both, groups=GROUPS)
    assert whole == pytest.approx(expected)
    expected = metric.compute(**both, fit="logistic5", resamples=20)
    assert set(five) == set(expected)
    # The bootstraps draw alike; only fits to redrawn pairs may differ a little.
    for name in ("srcc", "srcc_low", "plcc_logistic5", "rmse_high"):
        assert five[name] == pytest.approx(expected[name], abs=1e-4)


def test_batches_and_undefined_values(metric: IqaCorrelation) -> None:
    for start in (0, 5):
        metric.add_batch(
            predictions=PREDICTIONS[start : start + 5], references=REFERENCES[start : start + 5]
        )
    at_once = IqaCorrelation(keep_in_memory=True).compute(
        predictions=PREDICTIONS, references=REFERENCES
    )
    assert metric.compute() == pytest.approx(at_once)
    with pytest.warns(UserWarning, match="all predictions are equal"):
        constant = metric.compute(predictions=[1.0] * 6, references=REFERENCES[:6], resamples=3)
    assert math.isnan(constant["srcc"]) and math.isnan(constant["srcc_low"])
    assert not math.isnan(constant["rmse"])


def test_space_folder_is_one() -> None:
    from huggingface_hub import metadata_load

    facts = metadata_load(FOLDER / "README.md")
    assert facts is not None and facts["sdk"] == "gradio" and (FOLDER / facts["app_file"]).is_file()
    assert {"evaluate", "metric"} <= set(facts["tags"])
    assert "scipy" in (FOLDER / "requirements.txt").read_text()
    compile((FOLDER / "app.py").read_text("utf-8"), "app.py", "exec")
