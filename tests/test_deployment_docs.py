"""Every command and every block of Python in docs/deployment.md runs, with a tiny model."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_models import ExportedModel
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.export import onnx_file
from pfd_iqa_hf.export.graph import ScoreGraph

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "deployment.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]


def _python(word: str) -> str:
    (block,) = [text for kind, text in BLOCKS if kind == "python" and word in text]
    return str(block)


def _commands(*beginning: str) -> list[list[str]]:
    words = [shlex.split(line) for line in COMMANDS]
    return [line for line in words if tuple(line[: len(beginning)]) == beginning]


@pytest.fixture
def desk(photograph: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the pictures that the document names."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(["photograph.jpg", "photos/a.jpg", "photos/b.jpg"]):
        Image.fromarray(photograph // (number + 1)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_export(
    monkeypatch: pytest.MonkeyPatch, traced_once: Callable[[ScoreGraph], tuple[Any, set[str]]]
) -> None:
    monkeypatch.setattr(onnx_file, "onnx_graph", traced_once)


def test_no_command_is_left_out() -> None:
    ways = [
        *(("pip", "install"), ("pfd-iqa",), ("python", "-m", "pfd_iqa_onnx")),
        *(("python", "benchmarks/deployment.py"), ("python", "benchmarks/startup_onnx.py")),
        *(("docker",), ("python", "docker/run_steps.py")),
    ]
    assert len(COMMANDS) == sum(len(_commands(*way)) for way in ways) == 12
    assert [kind for kind, _ in BLOCKS].count("python") == 3


def test_what_is_to_be_installed_is_what_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        re.split(r"[<>=\[]", requirement)[0]
        for requirement in [*project["dependencies"], *extras["onnx"]]
    }
    for _, _, *words in _commands("pip", "install"):
        for word in words:
            name, _, extra = word.partition("[")
            assert name in {*declared, ".", "-e", "-c", "constraints.txt", "--no-deps"}
            assert not extra or extra.rstrip("]") in extras


def test_the_commands_export_and_score(
    desk: Path, quick_export: None, short_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _, *words in _commands("pfd-iqa"):
        if words[0] == "export":
            words += ["--model", str(short_checkpoint)]
        assert run(words) == 0, words
    assert {file.name for file in desk.glob("*.onnx")} == {"pfd-iqa.onnx", "pfd-iqa-int8.onnx"}
    assert "b.jpg" in capsys.readouterr().out
    (runner,) = _commands("python", "-m", "pfd_iqa_onnx")
    result = subprocess.run(
        [sys.executable, *runner[1:]], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('"error": null') == 2

    exec(compile(_python("OnnxScorer"), "docs/deployment.md", "exec"), {})
    score, uncertainty, _ = capsys.readouterr().out.split()
    assert 0 <= float(score) <= 100 and float(uncertainty) > 0


@pytest.mark.parametrize("name", ["deployment", "startup_onnx"])
def test_the_measurements_run(
    name: str,
    desk: Path,
    quick_export: None,
    exported_model: ExportedModel,
    short_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ((_, script, *words),) = _commands("python", f"benchmarks/{name}.py")
    # Small: what they measure depends on the machine, and stands in the results.
    words = [word.replace("path/to/100/pictures", "photos") for word in words]
    words += ["--model", str(short_checkpoint), "--rounds", "1", "--output", str(desk / "r.json")]
    if name == "deployment":
        words += ["--warm-up", "0", "--no-compile"]
    else:
        words += ["--file", str(exported_model("fp32").path)]
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert (desk / "r.json").stat().st_size > 100
    assert "|---|" in capsys.readouterr().out


def test_the_container_is_the_one_that_ci_builds_without_an_engine() -> None:
    ((_, _, *build), (_, _, *start)) = _commands("docker")
    text = (ROOT / build[build.index("-f") + 1]).read_text("utf-8")
    options = re.findall(r"`--build-arg\s(\w+)=", DOCS)
    assert sorted(options) == ["MODEL", "PRECISION", "TORCH_INDEX"]
    assert all(re.search(rf"^ARG {name}=", text, re.MULTILINE) for name in options)
    assert build[build.index("-t") + 1] in start and "none" in start, "the image that was built"
    # The steps take minutes and an index of packages: CI has a step of its own for them.
    ((_, script, pictures),) = _commands("python", "docker/run_steps.py")
    assert f'{script} "$root/{pictures}"' in (ROOT / ".ci" / "run").read_text("utf-8")
    assert (ROOT / pictures).is_dir()


def _inputs() -> dict[str, torch.Tensor]:
    values = torch.randn(2, 5, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": values, "low_resolution": torch.tensor([False, True])}


def test_a_compiled_model_gives_the_same_scores(
    short_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    code = _python("torch.compile").replace("default_checkpoint()", repr(str(short_checkpoint)))
    names: dict[str, Any] = {}
    exec(compile(code, "docs/deployment.md", "exec"), names)
    with torch.no_grad():
        score = names["compiled"](**_inputs()).logits
        assert score.tolist() == pytest.approx(
            names["model"](**_inputs()).logits.tolist(), abs=0.01
        )


def test_the_archive_of_torch_export(desk: Path, short_checkpoint: Path) -> None:
    code = _python("torch.export").replace("default_checkpoint()", repr(str(short_checkpoint)))
    names: dict[str, Any] = {}
    exec(compile(code, "docs/deployment.md", "exec"), names)
    assert (desk / "pfd-iqa.pt2").is_file()
    model = PfdIqaForImageQualityAssessment.from_pretrained(short_checkpoint).eval()
    with torch.no_grad():
        zeros = torch.zeros(1, 5, 3, 224, 224)
        expected = model(zeros, low_resolution=torch.tensor([False]))
        assert names["score"].tolist() == pytest.approx(expected.logits.tolist(), abs=0.01)
        # Pictures and views are free, as the document says of the ONNX file's inputs.
        score = names["run"](*_inputs().values())[0]
        assert score.tolist() == pytest.approx(model(**_inputs()).logits.tolist(), abs=0.01)
