"""What lands on the Hub: a folder that loads where this package is not installed."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from pfd_iqa_cli.main import WRONG_USAGE, run
from pfd_iqa_hf import PfdIqaConfig, PfdIqaForImageQualityAssessment, PfdIqaImageProcessor

REPO = "acme/pfd-iqa-tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What `pip install torch transformers diffusers pillow` brings.
CORE = {"torch", "transformers", "diffusers", "PIL", "numpy", "huggingface_hub"}

# Every way of the repository without the package: importing it raises.
WITHOUT_PACKAGE = """
import base64, importlib, json, sys
sys.modules["pfd_iqa_hf"] = None
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline

folder, repo, picture = sys.argv[1:]
scores = {}
for place in (folder, repo):
    assess = pipeline("image-quality-assessment", model=place, trust_remote_code=True, device="cpu")
    loaded = [assess]
    scores[f"pipeline {place}"] = assess(picture)["score"]
    parts = [
        auto.from_pretrained(place, trust_remote_code=True)
        for auto in (AutoConfig, AutoImageProcessor, AutoModel)
    ]
    for part in (assess, *parts):
        assert type(part).__module__.startswith("transformers_modules."), type(part)
    with torch.inference_mode():
        output = parts[2](**parts[1](picture, return_tensors="pt"))
    scores[f"parts {place}"] = float(output.logits[0])

# As an endpoint does: the folder comes first on the path, then one object for all requests.
sys.path.insert(0, folder)
handler = importlib.import_module("handler").EndpointHandler(folder)
data = open(picture, "rb").read()
text = base64.b64encode(data).decode()
for name, inputs in {
    "bytes": data,
    "base64": text,
    "data address": "data:image/png;base64," + text,
    "Pillow": Image.open(picture),
}.items():
    scores[f"handler {name}"] = json.loads(json.dumps(handler({"inputs": inputs})))["score"]
several = handler({"inputs": [text, text], "parameters": {"quality_map": True, "explain": True}})
assert len(json.loads(json.dumps(several))) == 2 and len(several[0]["costs"]) == 11
import io
grid = Image.open(io.BytesIO(base64.b64decode(several[0]["quality_map"])))
assert grid.size == Image.open(picture).size and grid.mode == "L"
refusals = []
for request in (
    {"inputs": "https://example.org/a.jpg"},
    {"inputs": "file:///etc/hostname"},
    {"inputs": "/etc/hostname"},
    {"inputs": 3},
    {"inputs": base64.b64encode(b"no picture").decode()},
    {"inputs": text, "parameters": {"max_pixels": 1 << 40}},
    {"image": text},
):
    try:
        handler(request)
        refusals.append(None)
    except ValueError as error:
        refusals.append(str(error))
print(json.dumps({"scores": scores, "refusals": refusals}))
"""

EXECUTE = """
import sys
if "without" in sys.argv[2:]:
    sys.modules["pfd_iqa_hf"] = None
exec(open(sys.argv[1]).read())
"""


@pytest.fixture(scope="module")
def published(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "published"
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", REPO, "--output-dir", str(folder)]
    assert run(["push", *arguments, "--dry-run"]) == 0
    return folder


@pytest.fixture(scope="module")
def cached(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Hugging Face libraries whose cache holds the repository as a download leaves it."""
    home = tmp_path_factory.mktemp("home")
    store = home / "hub" / f"models--{REPO.replace('/', '--')}"
    shutil.copytree(published, store / "snapshots" / COMMIT)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(COMMIT)
    return home


@pytest.fixture(scope="module")
def picture(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("picture") / "photograph.jpg"
    Image.fromarray(photograph).save(file, quality=95)
    return file


def python(home: Path, folder: Path, code: str, *arguments: str) -> str:
    """Run code offline in a process of its own, in a folder far from the checkout."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_way_scores_alike_without_the_package(
    published: Path, cached: Path, picture: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    output = python(cached, tmp_path, WITHOUT_PACKAGE, str(published), REPO, str(picture))
    answer = json.loads(output.strip().splitlines()[-1])
    expected = tiny_pipeline(str(picture))["score"]
    assert len(answer["scores"]) == 8
    for way, score in answer["scores"].items():
        assert score == pytest.approx(expected, abs=0.01), way
    reasons = ["address", "address", "base64", "int", "<bytes>", "max_pixels", '"inputs"']
    for reason, refusal in zip(reasons, answer["refusals"], strict=True):
        assert refusal is not None and reason in refusal


def test_the_three_snippets_of_the_card_run(
    published: Path, cached: Path, picture: Path, tiny_pipeline: Any
) -> None:
    card = (published / "README.md").read_text()
    snippets = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(snippets) == 3
    expected = tiny_pipeline(str(picture))["score"]
    for number, snippet in enumerate(snippets):
        file = cached / "snippet.py"
        file.write_text(snippet)
        package = "with" if "import pfd_iqa_hf" in snippet else "without"
        output = python(cached, picture.parent, EXECUTE, str(file), package)
        score = float(output.strip().splitlines()[-1].split()[0])
        assert score == pytest.approx(expected, abs=0.01), number


def test_the_repository_needs_only_core_packages(published: Path) -> None:
    for file in published.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                package = name.split(".")[0]
                assert package in CORE or package in sys.stdlib_module_names, (file.name, name)


def test_no_path_of_this_machine_is_published(published: Path, tiny_checkpoint: Path) -> None:
    private = [str(tiny_checkpoint), str(published), str(Path.home()), os.getcwd()]
    for file in published.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [path for path in private if f"{path}/".encode() in content], file.name
    config = json.loads((published / "config.json").read_text())
    assert "default" not in config["custom_pipelines"]["image-quality-assessment"]


def test_the_same_model_gives_the_same_bytes(
    published: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", REPO, "--output-dir", str(again)]
    assert run(["push", *arguments, "--dry-run"]) == 0
    first, second = (
        {
            file.relative_to(folder): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        for folder in (published, again)
    )
    assert first == second


def test_the_weights_are_the_source_byte_for_byte(published: Path, tiny_checkpoint: Path) -> None:
    source, copy = (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in (tiny_checkpoint, published)
    )
    assert copy == source
    assert source[:12] in (published / "README.md").read_text()


def test_code_card_licence_and_samples_are_complete(published: Path) -> None:
    modeling = Path(__file__).parents[1] / "modeling"
    code = {file.name for file in modeling.glob("*.py")} - {"__init__.py"}
    assert {file.name for file in published.glob("*.py")} == code | {"handler.py"}
    assert (published / "LICENSE").is_file() and (published / "NOTICE").is_file()
    needed = (published / "requirements.txt").read_text().split()
    assert {re.split(r"[<>=]", line)[0] for line in needed} <= {*CORE, "pillow", "safetensors"}
    assert any(line.startswith("transformers") and ">=" in line for line in needed)
    card = ModelCard.load(published / "README.md")
    for example in card.data.to_dict()["widget"]:
        with Image.open(published / example["src"]) as sample:
            sample.load()
    assert sum(file.stat().st_size for file in (published / "samples").iterdir()) < 200_000


def test_results_and_onnx_files_go_with_the_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    results = tmp_path / "evaluation"
    (results / "plots").mkdir(parents=True)
    report = {
        "dataset": {"name": "Mine"},
        "run": {"part": "test"},
        "agreement": {
            "pictures": 40,
            "srcc": {"value": 0.71, "lower": 0.6, "upper": 0.8},
            "plcc": {"value": None, "lower": None, "upper": None},
        },
    }
    (results / "report.json").write_text(json.dumps(report))
    (results / "plots" / "scatter.png").write_bytes(b"plot")
    (results / ".hidden").write_text("stays")
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    folder = tmp_path / "published"
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", REPO, "--output-dir", str(folder)]
    given = ["--results", str(results), "--onnx", str(tmp_path / "model.onnx")]
    assert run(["push", *arguments, *given, "--dry-run"]) == 0
    files = {file.name for name in ("results", "onnx") for file in (folder / name).rglob("*.*")}
    assert files == {"report.json", "scatter.png", "model.onnx", "model.onnx.data"}
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is not None and len(card.data.eval_results) == 1
    assert card.data.eval_results[0].metric_value == 0.71
    assert "| Mine | test | 40 | SRCC | 0.710 (0.600 to 0.800) |" in card.text
    assert "`onnx/model.onnx`" in card.text and "`results/`" in card.text


def test_a_path_of_this_machine_stops_it(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "evaluation"
    results.mkdir()
    (results / "predictions.parquet").write_bytes(b"\0" * 99 + os.fsencode(tiny_checkpoint) + b'"')
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", REPO, "--results", str(results)]
    folder = tmp_path / "published"
    assert run(["push", *arguments, "--output-dir", str(folder), "--dry-run"]) == WRONG_USAGE
    assert "results/predictions.parquet" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation"], "something half built"


def test_publishing_leaves_no_mark_on_the_process(published: Path, tmp_path: Path) -> None:
    for marked in (PfdIqaConfig, PfdIqaForImageQualityAssessment, PfdIqaImageProcessor):
        assert marked._auto_class is None
    PfdIqaImageProcessor().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["preprocessor_config.json"]


def test_the_installed_package_needs_no_trust_for_a_published_folder(published: Path) -> None:
    from pfd_iqa_hf.scoring.folder import load_pipeline

    parts = [
        load_pipeline(str(published), device="cpu"),
        *(auto.from_pretrained(published) for auto in (AutoConfig, AutoImageProcessor, AutoModel)),
    ]
    assert all(type(part).__module__.startswith("pfd_iqa_hf.") for part in parts)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repo-id", "a/b", "--dry-run"], "--output-dir"),
        (["--repo-id", "a/b/c", "--dry-run", "--output-dir", "new"], "--repo-id"),
        (["--repo-id", "a/b", "--dry-run", "--output-dir", "full"], "not empty"),
        (["--repo-id", "a/b", "--dry-run", "--output-dir", "new", "--model", "empty"], "--model"),
        (["--repo-id", "a/b", "--results", "empty"], "no folder with files"),
        (["--repo-id", "a/b", "--onnx", "full/file"], "no ONNX file"),
        (["--repo-id", "a/b", "--create-pr", "--revision", "other"], "main branch"),
    ],
)
def test_wrong_usage_is_told_without_a_traceback(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(["push", *arguments]) == WRONG_USAGE
    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "full"]


def test_a_damaged_checkpoint_is_told_in_one_message(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, damaged)
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    arguments = ["--model", str(damaged), "--repo-id", REPO, "--output-dir", str(tmp_path / "new")]
    assert run(["push", *arguments, "--dry-run"]) == WRONG_USAGE
    error = capsys.readouterr().err
    assert str(damaged) in error and "Traceback" not in error
    assert not (tmp_path / "new").exists()
