"""`pfd-iqa score --output-dir`: no picture lost and none twice, whatever ends the run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported_models import ExportedModel
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.scoring.parts import OutputFolder, OutputFolderError
from pfd_iqa_hf.scoring.records import RECORD_FIELDS, make_record
from pfd_iqa_hf.scoring.report import report_page
from pfd_iqa_hf.scoring.summary import Summary, failure_reason

try:
    import resource
except ImportError:  # no POSIX system
    resource = None  # type: ignore[assignment]

COMMAND = [sys.executable, "-m", "pfd_iqa_cli", "score"]
PICTURES = 240
KILLS = 10
MANIFEST = {"model_sha256": "0" * 12, "inputs": {}, "began": "now"}


@pytest.fixture(scope="module")
def model(exported_model: ExportedModel) -> list[str]:
    """Options of the tiny model; without torch a process starts ten times as fast."""
    return ["--backend", "onnx", "--model", str(exported_model("fp32").path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(3)
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:04d}.png")
    (root / "0100.png").write_bytes(b"broken")
    return root


def _records(output: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for part in sorted(output.glob("part-*")):
        if part.suffix == ".parquet":
            records += pq.read_table(part).to_pylist()
        else:
            records += [json.loads(line) for line in part.read_text("utf-8").splitlines()]
    return records


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


_NUMBERS = dict.fromkeys(("score", "uncertainty", "levels", "distortions"))


@pytest.mark.slow
def test_a_run_killed_ten_times_loses_nothing(
    folder: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [*model, "--format", "parquet", "--workers", "1", "--batch-size", "2"]
    assert run(["score", str(folder), *options, "--output-dir", str(whole)]) == 1
    expected = _records(whole)
    assert len(expected) == PICTURES and len({r["path"] for r in expected}) == PICTURES

    rng = random.Random(7)
    options += ["--output-dir", str(killed), "--part-size", "4", "--resume"]
    kills = 0
    for _ in range(KILLS):
        before = len(list(killed.glob("part-*")))
        process = _start(folder, *options)
        # Some are killed while they start, most in the middle of the work.
        if rng.random() < 0.8:
            _wait_for(lambda: len(list(killed.glob("part-*"))) > before, process)  # noqa: B023
        time.sleep(rng.uniform(0.0, 0.15))
        kills += process.poll() is None
        process.kill()
        process.communicate(timeout=60)
        some = _records(killed)  # what is there is complete
        assert len({record["path"] for record in some}) == len(some)
    assert kills == KILLS, "a run was through before it could be killed: take more pictures"
    # Once more, through to the end, the last go in this process.
    assert run(["score", str(folder), *options]) == 1
    # Other pictures share a batch after a kill, and a sum may round otherwise.
    for found, one in zip(
        sorted(_records(killed), key=_path), sorted(expected, key=_path), strict=True
    ):
        assert {**found, **_NUMBERS} == {**one, **_NUMBERS}
        assert found["score"] == pytest.approx(one["score"], abs=1e-3)
        assert found["uncertainty"] == pytest.approx(one["uncertainty"], abs=1e-3)
    assert not [name for name in os.listdir(killed) if name.startswith(".")]
    assert json.loads((killed / "summary.json").read_text())["pictures"] == PICTURES
    parts = len(list(killed.glob("part-*")))
    capsys.readouterr()
    assert run(["score", str(folder), *options]) == 1
    assert "240 pictures have a record" in capsys.readouterr().err
    assert len(list(killed.glob("part-*"))) == parts, "nothing is left to score"


def _path(record: dict[str, Any]) -> str:
    return str(record["path"])


@pytest.mark.parametrize(
    "number, times, code",
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 4, 130), (signal.SIGTERM, 1, 143)],
)
def test_an_interrupt_keeps_what_was_scored(
    number: int, times: int, code: int, folder: Path, model: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    options = [*model, "--format", "jsonl", "--output-dir", output, "--part-size", "3"]
    process = _start(folder, *options, "--batch-size", "1", "--workers", "1")
    _wait_for(lambda: any(output.glob("part-*")), process)
    for _ in range(times):  # impatient users press the keys again
        process.send_signal(number)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors and "--resume" in errors and str(output) in errors
    records = _records(output)
    assert records and all(tuple(record) == RECORD_FIELDS for record in records)
    assert not list(output.glob(".*"))


@pytest.mark.skipif(resource is None, reason="needs limits of a process")
def test_a_full_disk_leaves_complete_parts_and_one_line(
    folder: Path, model: list[str], tmp_path: Path
) -> None:
    def limit_files() -> None:  # as a disk that takes no more than this of a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    output = tmp_path / "run"
    options = [*model, "--format", "jsonl", "--output-dir", output, "--part-size", 1000]
    result = subprocess.run(
        [*COMMAND, *map(str, [folder, *options])],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limit_files,
    )
    assert result.returncode == 74, result.stderr
    assert "cannot write: " in result.stderr and "Traceback" not in result.stderr
    assert os.listdir(output) == ["manifest.json"]


def test_a_run_its_report_and_its_summary(
    folder: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, page = tmp_path / "run", tmp_path / "report.html"
    arguments = ["score", str(folder), *model, "--output-dir", str(output), "--report", str(page)]
    assert run(arguments) == 1
    records = _records(output)
    assert [Path(r["path"]).name for r in records] == sorted(os.listdir(folder))
    scores = sorted(record["score"] for record in records if record["error"] is None)
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["scored"], summary["failed"]) == (PICTURES - 1, 1)
    assert summary["mean"] == pytest.approx(np.mean(scores))
    assert summary["median"] == pytest.approx(np.median(scores), abs=0.11)
    few = Summary()
    for score in (36.0, 86.0, None):
        few.add({"path": "a", "score": score, "error": None if score else "is none"})
    assert few.quantile(0.5) == pytest.approx(61.0, abs=0.11)
    assert [entry["score"] for entry in summary["worst"]] == scores[:12]
    assert [entry["score"] for entry in summary["best"]] == scores[::-1][:12]
    edges = np.array(summary["histogram"]["edges"])
    assert summary["histogram"]["pictures"] == np.histogram(scores, edges)[0].tolist()
    assert summary["failures"][0]["examples"] == [str(folder / "0100.png")]
    assert "1 failed: is not a picture that Pillow can read" in capsys.readouterr().err

    text = page.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 24
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|url\(|<script", text)
    assert "default-src 'none'" in text and "0100.png" in text

    assert run(arguments) == 64, "a run is not overwritten"
    assert "--resume" in capsys.readouterr().err
    assert run([*arguments, "--resume", "--views", "fast"]) == 64
    assert 'view_strategy = "standard", not "fast"' in " ".join(capsys.readouterr().err.split())
    assert run([*arguments, "--resume", "--every", "3"]) == 64, "another grid of frames"
    assert "every = 1.0, not 3.0" in " ".join(capsys.readouterr().err.split())


def test_the_summary_of_a_list_goes_to_any_output(
    folder: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(f"path\n{folder}/0001.png\n{folder}/0002.png\n")
    page = tmp_path / "r.html"
    assert run(["score", str(tmp_path / "list.csv"), *model, "--report", str(page)]) == 0
    assert "0001.png" in capsys.readouterr().out and "0002.png" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--output-dir"),
        (["--output-dir", "out", "--output", "a.csv"], "--output"),
        (["--output-dir", "out", "--worst", "3"], "sort what it wrote"),
        (["--output-dir", "out", "--format", "csv"], "parquet or jsonl"),
        (["--map", "maps", "--workers", "2"], "--map"),
        (["--report", "no/folder/r.html"], "no folder"),
        (["--workers", "0"], "--workers"),
        (["--every", "0"], "--every"),
        (["--output-dir", "file/out"], "cannot write to"),
    ],
)
def test_options_that_contradict_each_other(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    assert run(["score", "a.jpg", *arguments]) == 64
    assert message in " ".join(capsys.readouterr().err.split())


def _record(path: str, score: float | None = 50.0, error: str | None = None) -> dict[str, Any]:
    result = None if score is None else {"score": score, "label": "fair", "uncertainty": 1.0}
    return make_record(path, {"model": "m"}, result, (8, 8), error)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_parts_are_complete_or_absent(kind: str, tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "run", kind, part_size=3)
    output.start(MANIFEST)
    names = [*(f"{number}.png" for number in range(7)), "\udcff.png"]
    for name in names[:-1]:
        output.write(_record(name))
    assert len(_records(tmp_path / "run")) == 6, "the seventh waits for its part"
    output.release()  # as the system does for a process that was killed
    # As kill -9 leaves it: another go finds two parts, and an unfinished one that it removes.
    again = OutputFolder(tmp_path / "run", kind, part_size=3)
    counted: list[str] = []
    done = again.resume(MANIFEST, lambda record: counted.append(record["path"]))
    assert counted == names[:6] and len(done) == 6
    for name in names[6:]:
        assert name not in done
        again.write(_record(name))
    again.close_part()
    again.release()
    last = OutputFolder(tmp_path / "run", kind, part_size=3)
    done = last.resume(MANIFEST, lambda record: None)
    assert all(name in done for name in names), "also one that is no valid UTF-8"
    files = sorted(os.listdir(tmp_path / "run"))
    assert files == ["manifest.json", *(f"part-{number:05d}.{kind}" for number in range(3))]


def test_a_slow_run_keeps_what_five_minutes_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = OutputFolder(tmp_path, "jsonl", part_size=1000)
    output.start(MANIFEST)
    now = time.monotonic()
    output.write(_record("a.png"))
    monkeypatch.setattr(time, "monotonic", lambda: now + 301)
    output.write(_record("b.png"))
    assert len(_records(tmp_path)) == 2


def test_a_damaged_part_is_told(tmp_path: Path) -> None:
    first = OutputFolder(tmp_path, "parquet", 3)
    first.start(MANIFEST)
    first.release()
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(OutputFolderError, match="part-00000.parquet is damaged"):
        OutputFolder(tmp_path, "parquet", 3).resume(MANIFEST, lambda record: None)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    first = OutputFolder(tmp_path, "jsonl", 3)
    first.start(MANIFEST)
    with pytest.raises(OutputFolderError, match="another process"):
        OutputFolder(tmp_path, "jsonl", 3).resume(MANIFEST, lambda record: None)
    first.release()
    OutputFolder(tmp_path, "jsonl", 3).resume(MANIFEST, lambda record: None)


def test_failures_of_one_kind_count_together() -> None:
    summary = Summary()
    errors = [
        "30,000 x 30,000 is 900,000,000 pixels, over the limit of 100,000,000; raise max_pixels",
        "20,000 x 9,000 is 180,000,000 pixels, over the limit of 100,000,000; raise max_pixels",
        "cannot be decoded (broken data stream (a; b)); fetch it again",
    ]
    for number, error in enumerate(errors):
        summary.add(_record(f"{number}.png", None, error))
    assert [(f["count"], f["examples"]) for f in summary.failures] == [
        *((2, ["0.png", "1.png"]), (1, ["2.png"]))
    ]
    assert failure_reason(errors[2]) == "cannot be decoded"
    assert summary.to_json()["mean"] is None


def test_a_report_takes_no_orders_from_file_names() -> None:
    summary = Summary()
    summary.add(_record('<script>alert(1)</script>" onerror="x.png'))
    summary.add(_record("\x1b[31m\udcff.png", None, "<b>bad</b>; no"))
    page = report_page(summary, {"paths": "<i>"})
    assert "<script" not in page and "<i>" not in page and "<b>bad" not in page
    assert "\x1b" not in page and page.encode("utf-8")
