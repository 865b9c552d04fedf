"""Every block of the README runs, with tiny models where a command may name one."""

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rated_pictures import write_rated_pictures

from pfd_iqa_cli.main import run
from pfd_iqa_hf.export import onnx_file
from pfd_iqa_hf.export.graph import ScoreGraph

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(command, comments=True)
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    for command in line.split("&&")
]
# What another test or step of CI runs, and why it is not run here.
ELSEWHERE = {
    ("python3", "-m", "venv"): "the first line of CI",
    (".venv/bin/pip", "install"): "the first line of CI",
    (".venv/bin/python", "-m", "pytest"): "this is it",
    ("pip", "install"): "compared with pyproject.toml below",
    ("pfd-iqa", "demo"): "test_demo_cli.py; it does not end by itself",
}


def _is_elsewhere(words: list[str]) -> bool:
    return any(tuple(words[: len(way)]) == way for way in ELSEWHERE)


@pytest.fixture
def desk(
    short_checkpoint: Path, photograph: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with everything that the README names."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for number, name in enumerate(["a.jpg", "b.jpg", "photos/c.jpg", "build/d.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photograph // (number + 1)).save(tmp_path / name)
    write_rated_pictures(tmp_path, 60).rename(tmp_path / "my.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_installed_extras_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    named = {
        extra
        for words in COMMANDS
        for word in words
        if word.startswith(".[")
        for extra in word[2:-1].split(",")
    }
    assert named >= {"dev", "table", "train", "onnx"}
    assert all(re.search(rf"^{extra} = \[", text, re.MULTILINE) for extra in named)


def test_every_command_works(
    desk: Path,
    short_checkpoint: Path,
    traced_once: Callable[[ScoreGraph], tuple[Any, set[str]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnx_file, "onnx_graph", traced_once)
    count = 0
    for words in COMMANDS:
        if not words or _is_elsewhere(words):
            continue
        count += 1
        if words[0] == "python":
            assert words[1:3] == ["-m", "pfd_iqa_onnx"]
            monkeypatch.setattr(sys, "argv", words[2:])
            with pytest.raises(SystemExit) as stop:
                runpy.run_module("pfd_iqa_onnx", run_name="__main__")
            assert stop.value.code in (0, None), capsys.readouterr().err
            continue
        command, *arguments = words
        assert Path(command).name == "pfd-iqa", words
        if arguments[0] == "train":
            arguments += ["--max-train-steps", "2", "--per-device-train-batch-size", "4"]
        takes_model = arguments[0] not in ("data",) and "--help" not in arguments
        if takes_model and "--model" not in arguments:
            arguments += ["--model", str(short_checkpoint)]
        expected = (0, 2) if "--fail-under" in arguments else (0,)
        assert run(arguments) in expected, (arguments, capsys.readouterr().err)
    assert count == 17
    for made in ("scores.csv", "report.html", "mine/model.safetensors", "published/README.md"):
        assert (desk / made).is_file(), made


def test_every_block_of_python_works(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [text for kind, text in BLOCKS if kind == "python"]
    run_here = [text for text in blocks if "openai/clip" not in text]
    assert (len(blocks), len(run_here)) == (3, 2), "that one downloads its towers"
    for text in run_here:
        exec(compile(text, "README.md", "exec"), {})
    score, label, *_ = capsys.readouterr().out.split()
    assert 0 <= float(score) <= 100 and label in ("excellent", "good", "fair", "poor", "bad")
