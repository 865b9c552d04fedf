"""`pfd-iqa export onnx` and `pfd-iqa score --backend onnx`: what scripts and people rely on."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_models import ExportedModel
from PIL import Image
from tiny_models import tiny_config

from pfd_iqa_cli.main import run
from pfd_iqa_hf.export import onnx_file
from pfd_iqa_hf.export.graph import ScoreGraph
from pfd_iqa_hf.scoring.records import RECORD_FIELDS
from pfd_iqa_onnx import OnnxScorer

Score = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def folder(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for index, name in enumerate(["a.jpg", "b.png", "ü.webp"]):
        noisy = photograph + rng.normal(0, 15 * index, photograph.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / name)
    return root


@pytest.fixture
def score(exported_model: ExportedModel, capsys: pytest.CaptureFixture[str]) -> Score:
    """Run `pfd-iqa score --backend onnx` in this process: exit code, records and messages."""

    def _score(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        model = ["--backend", "onnx", "--model", str(exported_model("fp32").path)]
        capsys.readouterr()
        code = run(["score", *map(str, arguments), *model, "--format", "jsonl"])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return _score


@pytest.mark.slow
def test_score_runs_without_torch(exported_model: ExportedModel, folder: Path) -> None:
    model = str(exported_model("fp32").path)
    arguments = ["score", str(folder), "--backend", "onnx", "--model", model, "--format", "jsonl"]
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers'): sys.modules[name] = None\n"
        "from pfd_iqa_cli.main import run\n"
        f"code = run({arguments!r})\n"
        "assert 'pfd_iqa_hf' not in sys.modules\n"
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3 and "3 pictures" in result.stderr


@pytest.mark.slow
def test_both_backends_give_the_same_records(
    score: Score, folder: Path, short_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, records, _ = score(folder, "--worst", 2)
    options = ["--model", str(short_checkpoint), "--device", "cpu", "--worst", "2"]
    assert run(["score", str(folder), *options, "--format", "jsonl"]) == code == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record, reference in zip(records, expected, strict=True):
        assert tuple(record) == tuple(reference) == RECORD_FIELDS
        assert record["score"] == pytest.approx(reference["score"], abs=0.05)
        same = ("path", "label", "width", "height", "model_sha256", "version")
        assert all(record[field] == reference[field] for field in same)


@pytest.mark.slow
def test_options_and_exit_codes(score: Score, folder: Path, tmp_path: Path) -> None:
    _, records, _ = score(folder)
    lowest = min(record["score"] for record in records)
    assert score(folder, "--fail-under", lowest + 0.1)[0] == 2
    assert score(folder, "--fail-under", lowest - 0.1)[0] == 0
    code, some, errors = score(folder / "a.jpg", tmp_path / "gone.jpg")
    assert code == 1 and "no such file" in some[1]["error"] and "gone.jpg" in errors
    fast = score(folder / "a.jpg", "--views", "fast")[1]
    assert fast[0]["score"] != records[0]["score"]
    assert score(folder, "--map", tmp_path / "maps")[0] == 0
    assert len(list((tmp_path / "maps").glob("*.map.png"))) == 3
    assert "over the limit of 10" in score(folder / "a.jpg", "--max-pixels", 10)[1][0]["error"]
    code, _, errors = score(folder, "--dtype", "bf16")
    assert code == 64 and "--precision" in " ".join(errors.split())
    code, _, errors = score(folder, "--device", "cuda")
    assert code == 64 and "--device" in errors


@pytest.mark.slow
def test_files_are_written_too(exported_model: ExportedModel, folder: Path, tmp_path: Path) -> None:
    model = ["--backend", "onnx", "--model", str(exported_model("fp32").path)]
    output = tmp_path / "scores.csv"
    assert run(["score", str(folder), *model, "-o", str(output)]) == 0
    assert tuple(next(csv.reader(output.read_text("utf-8").splitlines()))) == RECORD_FIELDS


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (None, "needs the file that `pfd-iqa export onnx` wrote"),
        ("gone.onnx", "no such file"),
        ("a.jpg", "cannot load it"),
        (".", "is a folder"),
    ],
)
def test_a_wrong_model_file_is_64(
    model: str | None,
    reason: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    given = [] if model is None else ["--model", model]
    assert run(["score", "a.jpg", "--backend", "onnx", *given]) == 64
    errors = capsys.readouterr().err
    assert reason in " ".join(errors.replace("│", " ").split()) and "--model" in errors


@pytest.mark.slow
def test_export_without_a_map(
    short_checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "model.onnx"
    output.write_text("old")
    given = ["--model", str(short_checkpoint), "--no-quality-map"]
    assert run(["export", "onnx", "-o", str(output), *given]) == 0
    assert "differ from PyTorch's by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "one file, renamed"
    names = [value.name for value in onnx.load(str(output)).graph.output]
    assert names == ["score", "uncertainty", "levels", "distortions"]
    given = ["--backend", "onnx", "--model", str(output), "--map", str(tmp_path / "maps")]
    assert run(["score", str(folder), *given]) == 64
    assert "holds no quality map" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    with pytest.raises(ValueError, match="holds no quality map"):
        OnnxScorer(output).assess(folder / "a.jpg", quality_map=True)


@pytest.mark.slow
def test_a_wrong_file_is_not_kept(
    short_checkpoint: Path,
    traced_once: Callable[[ScoreGraph], tuple[Any, set[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoilt(graph: ScoreGraph) -> tuple[Any, set[str]]:
        model, backbone = traced_once(graph)
        for entry in model.graph.initializer:  # as a fault in a kernel or a translation would
            values = onnx.numpy_helper.to_array(entry)
            if values.dtype == np.float32 and values.ndim == 2:
                entry.CopyFrom(onnx.numpy_helper.from_array(values * 1.2, entry.name))
        return model, backbone

    monkeypatch.setattr(onnx_file, "onnx_graph", spoilt)
    output = tmp_path / "model.onnx"
    output.write_text("old")
    assert run(["export", "onnx", "-o", str(output), "--model", str(short_checkpoint)]) == 1
    assert "the file was not kept" in capsys.readouterr().err
    assert output.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_terminated_export_leaves_nothing(
    short_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(graph: ScoreGraph) -> None:
        assert [path.name[-5:] for path in tmp_path.iterdir()] == [".part"]
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(onnx_file, "onnx_graph", terminated)
    before = signal.getsignal(signal.SIGTERM)
    output = str(tmp_path / "x.onnx")
    assert run(["export", "onnx", "-o", output, "--model", str(short_checkpoint)]) == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_places_that_cannot_be_written_to(
    short_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(graph: ScoreGraph) -> tuple[Any, set[str]]:
        return onnx.helper.make_model(onnx.GraphProto(name="x" * 100_000)), set()

    monkeypatch.setattr(onnx_file, "onnx_graph", full)
    model = ["--model", str(short_checkpoint)]
    assert run(["export", "onnx", "-o", str(tmp_path), *model]) == 64
    assert run(["export", "onnx", "-o", str(tmp_path / "no" / "x.onnx"), *model]) == 64
    assert "there is no folder" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert run(["export", "onnx", "-o", "/dev/full", *model]) == 74
    assert "cannot write" in capsys.readouterr().err


def test_models_that_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["-o", str(tmp_path / "x.onnx")]
    assert run(["export", "onnx", *output, "--model", "no-such-folder"]) == 64
    assert "cannot load no-such-folder" in " ".join(capsys.readouterr().err.split())
    from pfd_iqa_hf import PfdIqaForImageQualityAssessment

    bare = PfdIqaForImageQualityAssessment(tiny_config(prior_discovery=False))
    with pytest.raises(ValueError, match="without prior discovery"):
        ScoreGraph(bare)
    with pytest.raises(ValueError, match="one of fp32, fp16, int8, got 'fp8'"):
        onnx_file.export_onnx(tmp_path / "x.onnx", precision="fp8")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert run(["export", "onnx", *output]) == 64
    assert 'pip install "pfd-iqa-hf[onnx]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
