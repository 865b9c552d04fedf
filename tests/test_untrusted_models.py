"""Checkpoints from strangers: weights in pickles are never read, and no code of theirs is run."""

import ast
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, pipeline

from pfd_iqa_cli.main import run
from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.hub.handler import EndpointHandler

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling", "pfd_iqa_hf", "pfd_iqa_cli", "pfd_iqa_onnx", "demo", "metrics")


class _Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.write_text, (self.place, "sprung")


@pytest.fixture(params=["pickle", "torch", "beside other tensors"])
def trapped(
    request: pytest.FixtureRequest,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A checkpoint whose weights are a pickle that does harm; nothing may even look into it."""
    folder = tmp_path / "trapped"
    shutil.copytree(tiny_checkpoint, folder)
    weights = folder / "model.safetensors"
    trap = {"weight": _Trap(tmp_path / "sprung")}
    if request.param == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, folder / "pytorch_model.bin")
    if request.param == "beside other tensors":
        weights.rename(folder / "other.safetensors")
    else:
        weights.unlink()

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a pickle is read")

    monkeypatch.setattr(torch, "load", loaded)
    monkeypatch.setattr(pickle, "load", loaded)
    return folder


def test_pickled_weights_are_not_read(
    trapped: Path, photograph: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build: Any = pipeline  # its overloads list transformers' own tasks only
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(trapped)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        build("image-quality-assessment", model=str(trapped), device="cpu")
    Image.fromarray(photograph).save(tmp_path / "a.png")
    assert run(["score", str(tmp_path / "a.png"), "--model", str(trapped)]) == 64
    errors = " ".join(capsys.readouterr().err.split())
    assert "trapped" in errors and "model.safetensors" in errors and "Traceback" not in errors
    assert not (tmp_path / "sprung").exists()


def test_code_of_a_repository_is_run_only_by_the_repository_itself() -> None:
    """`trust_remote_code` is for users to set; the endpoint's file runs what it lies beside."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.keyword) and node.arg == "trust_remote_code")
        or (isinstance(node, ast.Constant) and node.value == "trust_remote_code")
    }
    assert found == {"pfd_iqa_hf/hub/handler.py"}


def test_the_endpoint_takes_no_repository_from_elsewhere() -> None:
    with pytest.raises(ValueError, match="'stranger/model' is no folder"):
        EndpointHandler("stranger/model")


def test_the_endpoint_bounds_a_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pfd_iqa_hf.hub.handler.pipeline", lambda *_, **__: None)
    with pytest.raises(ValueError, match="65 pictures in one request, at most 64"):
        EndpointHandler(str(tmp_path))({"inputs": [b""] * 65})


@pytest.mark.parametrize("command", [["score"], ["compare"]])
@pytest.mark.parametrize("broken", ["cut off", "wrong type"])
def test_a_broken_checkpoint_is_one_line(
    command: list[str],
    broken: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if broken == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), "text_embed_dim": "a"}))
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, picture in enumerate(pictures):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(picture)
    assert run([*command, *map(str, pictures), "--model", str(folder)]) == 64
    said = capsys.readouterr().err
    assert "cannot load" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("preprocessor_config.json", b'{"size": -3}', "size"),
        ("config.json", b"[]", "config.json"),
        ("config.json", None, "config.json"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_a_damaged_file_of_a_checkpoint_is_named(
    file: str,
    content: bytes | None,
    message: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    photograph: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_checkpoint, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    Image.fromarray(photograph).save(tmp_path / "a.png")
    assert run(["score", str(tmp_path / "a.png"), "--model", str(folder)]) == 64
    errors = " ".join(capsys.readouterr().err.split())
    assert "damaged" in errors and message in errors and "Traceback" not in errors


def test_a_folder_without_a_configuration_is_no_default_model(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "config.json").unlink()
    with pytest.raises(OSError, match=r"bare.* holds no config\.json"):
        PfdIqaForImageQualityAssessment.from_pretrained(folder)
