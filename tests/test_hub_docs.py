"""Every command of docs/hub.md runs; the cards of metric and degraded pictures are sound."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_client import TOKENS, environment_of, talking_to
from hub_server import HubServer, hub_server
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.hub.distortions_card import write_distortions_card

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(bash|python|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of the reference of Spaces' configuration.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def desk(
    tiny_checkpoint: Path, photograph: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with everything that the document's commands name."""
    desk = tmp_path / "desk"
    shutil.copytree(tiny_checkpoint, desk / "runs" / "mine")
    shutil.copytree(ROOT / "metrics", desk / "metrics")
    (desk / "evaluation").mkdir()
    (desk / "evaluation" / "scatter.png").write_bytes(b"plot")
    (desk / "model.onnx").write_bytes(b"graph")
    (desk / "photographs").mkdir()
    for name in ("photograph.jpg", "photographs/one.jpg"):
        Image.fromarray(photograph).save(desk / name)
    monkeypatch.chdir(desk)
    return desk


@pytest.fixture
def hub(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server(TOKENS) as server, talking_to(server, monkeypatch, desk):
        yield server


def test_every_command_of_the_document_works(
    hub: HubServer, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "hub.md").read_text())
    commands = []
    for kind, text in blocks:
        if kind == "json":
            facts = json.loads(text)
            (desk / "runs" / "mine" / "training_facts.json").write_text(text)
            assert run("push --model runs/mine --repo-id acme/facts".split()) == 0
        elif kind == "python":
            monkeypatch.setattr(sys, "path", list(sys.path))
            exec(compile(text, "docs/hub.md", "exec"), {})
        else:
            for line in text.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line)
                commands.append(program)
                if program == "pfd-iqa":
                    assert run(arguments) == 0, line
                else:
                    client(hub, desk, program, *arguments)
    assert commands.count("pfd-iqa") == 6 and commands.count("hf") == 2
    assert set(hub.repositories) == {
        "acme/mine",
        "acme/facts",
        "spaces/acme/iqa_correlation",
        "datasets/acme/degraded",
    }
    mine = hub.repositories["acme/mine"]
    assert mine.private and {"main", "v2", "refs/pr/1"} == set(mine.branches)
    assert {"results/scatter.png", "onnx/model.onnx"} <= set(mine.files())
    card = ModelCard(hub.repositories["acme/facts"].files()["README.md"].decode())
    assert card.data.to_dict()["license"] == facts["license"]
    for text in (facts["limits"][0], facts["split_note"], facts["cost"], facts["recipe"]):
        assert text in card.text
    assert "good" in capsys.readouterr().out, "the endpoint's answer"


def client(hub: HubServer, desk: Path, program: str, *arguments: str) -> None:
    """Run the Hub's own command line."""
    result = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        capture_output=True,
        text=True,
        cwd=desk,
        env={**os.environ, **environment_of(hub, desk / "home")},
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_metrics_card_is_a_spaces_configuration() -> None:
    folder = ROOT / "metrics" / "iqa_correlation"
    card: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert card["sdk"] == "gradio" and re.fullmatch(r"\d+\.\d+\.\d+", card["sdk_version"])
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert (folder / card["app_file"]).is_file() and (folder / "requirements.txt").is_file()
    assert len(card["short_description"]) <= 60 and card["license"] == "apache-2.0"
    assert {"evaluate", "metric"} <= set(card["tags"]), "evaluate's own way to find metrics"


def test_degraded_pictures_load_as_a_dataset_with_their_card(
    photograph: np.ndarray, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "photographs").mkdir()
    for name in ("a_b", "c"):
        Image.fromarray(photograph[:64, :64]).save(tmp_path / "photographs" / f"{name}.png")
    folder = tmp_path / "degraded"
    wanted = ["--type", "jpeg", "--type", "white_noise", "--level", "1", "--level", "5"]
    made = ["distort", str(tmp_path / "photographs"), *wanted, "--output-dir", str(folder)]
    assert run(made) == 0
    write_distortions_card(folder, "acme/degraded", license="cc0-1.0")
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"), split="train"
    )
    found = {(row["reference_id"].split("/")[-1], row["distortion"], row["level"]) for row in rows}
    assert len(rows) == 8
    assert found == {
        (p, t, n) for p in ("a_b", "c") for t in ("jpeg", "white_noise") for n in (1, 5)
    }
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc0-1.0" and card.data.size_categories == ["n<1K"]
    assert "8 degraded copies of 2 pictures" in card.text and "cc0-1.0." in card.text
    assert "| `white_noise` | noise | 4 |" in card.text and "{{" not in card.text


def test_a_folder_without_copies_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no copies.*pfd-iqa distort"):
        write_distortions_card(tmp_path, "acme/degraded")
