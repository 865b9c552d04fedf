"""What lands on the Hub: a folder that loads where this package is not installed."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from pfd_iqa_hf import PfdIqaConfig, PfdIqaForImageQualityAssessment, PfdIqaImageProcessor
from pfd_iqa_hf.hub import push as push_module
from pfd_iqa_hf.hub.push import main

# The checkout's root and the installed package are both out of sight here.
LOADER = """
import sys
sys.modules["pfd_iqa_hf"] = None  # importing it raises
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline

folder, picture = sys.argv[1:]
assess = pipeline("image-quality-assessment", model=folder, trust_remote_code=True, device="cpu")
assert type(assess).__module__.startswith("transformers_modules."), type(assess)
for auto in (AutoConfig, AutoImageProcessor, AutoModel):
    loaded = type(auto.from_pretrained(folder, trust_remote_code=True))
    assert loaded.__module__.startswith("transformers_modules."), loaded
print(assess(picture)["score"])
"""


@pytest.fixture(scope="module")
def published(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "published"
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", "acme/pfd-iqa-tiny"]
    main([*arguments, "--output-dir", str(folder), "--dry-run"])
    return folder


def test_the_folder_loads_and_scores_alike_without_the_package(
    published: Path, tiny_pipeline: Any, photograph: np.ndarray, tmp_path: Path
) -> None:
    picture = tmp_path / "photograph.png"
    Image.fromarray(photograph).save(picture)
    result = subprocess.run(
        [sys.executable, "-c", LOADER, str(published), str(picture)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    score = float(result.stdout.strip().splitlines()[-1])
    assert score == pytest.approx(tiny_pipeline(str(picture))["score"], abs=0.01)


def test_no_path_of_this_machine_is_published(published: Path, tiny_checkpoint: Path) -> None:
    files = [*published.glob("*.json"), *published.glob("*.md")]
    assert {"config.json", "preprocessor_config.json"} <= {file.name for file in files}
    private = [str(tiny_checkpoint), str(published), str(Path.home()), os.getcwd()]
    for file in files:
        text = file.read_text()
        assert not [path for path in private if len(path) > 1 and path in text], file.name
    config = json.loads((published / "config.json").read_text())
    assert "default" not in config["custom_pipelines"]["image-quality-assessment"]


def test_the_weights_are_the_source_byte_for_byte(published: Path, tiny_checkpoint: Path) -> None:
    source, copy = (
        hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        for folder in (tiny_checkpoint, published)
    )
    assert copy == source
    assert source[:12] in (published / "README.md").read_text()


def test_code_card_and_licence_are_complete(published: Path) -> None:
    modeling = Path(__file__).parents[1] / "modeling"
    code = {file.name for file in modeling.glob("*.py")} - {"__init__.py"}
    assert {file.name for file in published.glob("*.py")} == code
    assert (published / "LICENSE").is_file() and (published / "NOTICE").is_file()
    card = ModelCard.load(published / "README.md")
    assert card.data.library_name == "transformers" and card.data.license == "apache-2.0"
    assert "{{" not in card.text and "acme/pfd-iqa-tiny" in card.text


def test_publishing_leaves_no_mark_on_the_process(published: Path, tmp_path: Path) -> None:
    for marked in (PfdIqaConfig, PfdIqaForImageQualityAssessment, PfdIqaImageProcessor):
        assert marked._auto_class is None
    PfdIqaImageProcessor().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["preprocessor_config.json"]


def test_the_installed_package_needs_no_trust_for_a_published_folder(published: Path) -> None:
    from pfd_iqa_hf.scoring.folder import load_pipeline

    assert type(load_pipeline(str(published), device="cpu")).__module__.startswith("pfd_iqa_hf.")


def test_upload_creates_repository_and_branch_first(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, Any]] = []

    class StubApi:
        def __init__(self, token: str | None = None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo_id: str, **options: Any) -> None:
            calls.append(("create_repo", (repo_id, options)))

        def create_branch(self, repo_id: str, **options: Any) -> None:
            calls.append(("create_branch", (repo_id, options)))

        def upload_folder(self, *, folder_path: Path, **options: Any) -> Any:
            calls.append(("upload_folder", sorted(file.name for file in folder_path.iterdir())))
            assert options["repo_id"] == "acme/tiny" and options["revision"] == "trial"
            return type("Commit", (), {"commit_url": "the commit's address"})

    monkeypatch.setattr(push_module, "HfApi", StubApi)
    arguments = ["--model", str(tiny_checkpoint), "--repo-id", "acme/tiny", "--private"]
    main([*arguments, "--revision", "trial", "--token", "secret"])
    assert [name for name, _ in calls] == [
        "token",
        "create_repo",
        "create_branch",
        "upload_folder",
    ]
    assert calls[0][1] == "secret"
    assert calls[1][1] == ("acme/tiny", {"private": True, "exist_ok": True})
    assert {"README.md", "config.json", "model.safetensors"} <= set(calls[3][1])
    assert "the commit's address" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repo-id", "a/b", "--dry-run"], "--output-dir"),
        (["--repo-id", "a/b/c", "--dry-run", "--output-dir", "new"], "--repo-id"),
        (["--repo-id", "a/b", "--dry-run", "--output-dir", "full"], "not empty"),
        (["--repo-id", "a/b", "--dry-run", "--output-dir", "new", "--model", "empty"], "--model"),
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
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert reason in capsys.readouterr().err
