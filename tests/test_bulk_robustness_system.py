"""What the system takes away: the network, the disk, a home to write to, processes, patience."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported_models import ExportedModel
from PIL import Image
from rated_pictures import write_rated_pictures

from pfd_iqa_cli.main import run
from pfd_iqa_hf.scoring.folder import FolderScorer

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "pfd_iqa_cli"]
PICTURES = 60


def _allowed(flags: str, script: str) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", flags, "sh", "-c", script], capture_output=True, timeout=60)
    return tried.returncode == 0


no_network = pytest.mark.skipif(
    not _allowed("-rn", "true"),
    reason="NOT TESTED without a network: this system permits no `unshare -rn`",
)
small_disks = pytest.mark.skipif(
    not _allowed("-rm", "mount -t tmpfs -o size=64k none /mnt"),
    reason="NOT TESTED on full and read-only disks: this system permits no `unshare -rm`",
)


@pytest.fixture(scope="module")
def onnx(exported_model: ExportedModel) -> list[str]:
    """Options of the tiny model; without torch a process starts ten times as fast."""
    return ["--backend", "onnx", "--model", str(exported_model("fp32").path)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(5)
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02d}.png")
    return root


def _environment(**more: str) -> dict[str, str]:
    """That of a user who has set nothing, least of all that there is no network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def _inside(
    flags: str, script: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", flags, "sh", "-c", script, "sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(**environment),
        timeout=300,
    )


@no_network
def test_pipeline_and_metric_need_no_network(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    program = (
        "import json, socket, sys, urllib.request\n"
        "try:\n"
        "    socket.create_connection(('192.0.2.1', 80), 5)\n"
        "    sys.exit('there is a network')\n"
        "except OSError:\n"
        "    pass\n"
        "import evaluate, pfd_iqa_hf\n"
        "from transformers import pipeline\n"
        "assess = pipeline('image-quality-assessment', model=sys.argv[1], device='cpu')\n"
        "score = assess(sys.argv[2])['score']\n"
        "metric = evaluate.load('metrics/iqa_correlation', keep_in_memory=True)\n"
        "told = metric.compute(predictions=[1.0, 2.0, 4.0, 3.0], references=[1.0, 2.0, 3.0, 4.0])\n"
        "print(json.dumps([score, told['srcc']]))\n"
    )
    arguments = (sys.executable, "-c", program, tiny_checkpoint, folder / "00.png")
    result = _inside("-rn", 'exec "$@"', *arguments, HF_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
    score, correlation = json.loads(result.stdout.splitlines()[-1])
    assert 0 <= score <= 100 and correlation == pytest.approx(0.8)


@no_network
def test_the_command_needs_no_network_but_for_addresses(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    script = '"$@" --version && exec "$@" score "$A" "$B" --model "$MODEL" --format jsonl'
    result = _inside(
        *("-rn", script, *COMMAND),
        A=str(folder / "00.png"),
        B="https://example.com/b.png",
        MODEL=str(tiny_checkpoint),
        HF_HOME=str(tmp_path),
    )
    assert result.returncode == 1, result.stderr
    good, bad = (json.loads(line) for line in result.stdout.splitlines()[-2:])
    assert good["error"] is None and 0 <= good["score"] <= 100
    assert "cannot be downloaded" in bad["error"] and "the network" in bad["error"]
    assert "Traceback" not in result.stderr and "https://example.com/b.png: " in result.stderr


@no_network
@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "compare $PICTURES/00.png $PICTURES/01.png --model $MODEL",
        "evaluate --dataset $TABLE --output-dir $OUT --model $MODEL",
        "train --dataset $TABLE --output-dir $OUT --model $MODEL --max-train-steps 2 "
        "--per-device-train-batch-size 4",
        "push --model $MODEL --repo-id acme/quality --output-dir $OUT --dry-run",
        "export onnx --output $OUT.onnx --model $MODEL",
        "score datasets:$SAVED --model $MODEL --format jsonl",
    ],
    ids=lambda command: command.split()[0],
)
def test_other_commands_need_no_network(
    command: str, folder: Path, short_checkpoint: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved"
    if "$SAVED" in command:
        import datasets

        rows = [{"image": str(file)} for file in sorted(folder.iterdir())[:3]]
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_list(rows, features).save_to_disk(saved)
    names = {
        "PICTURES": str(folder),
        "MODEL": str(short_checkpoint),
        "TABLE": str(write_rated_pictures(tmp_path / "rated")),
        "OUT": str(tmp_path / "out"),
        "SAVED": str(saved),
        "HF_HOME": str(tmp_path / "home"),
    }
    script = f'exec "$@" {command}'
    result = _inside("-rn", script, *COMMAND, **names)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def _records(output: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for part in sorted(output.glob("part-*")):
        if part.suffix == ".parquet":
            records += pq.read_table(part).to_pylist()
        else:
            records += [json.loads(line) for line in part.read_text("utf-8").splitlines()]
    return records


@small_disks
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_disk_that_runs_full_keeps_its_parts(
    kind: str, folder: Path, onnx: list[str], tmp_path: Path
) -> None:
    for name in ("disk", "full", "whole"):
        (tmp_path / name).mkdir()
    script = (
        'cd "$T"; mount -t tmpfs -o size=64k none disk || exit 99\n'
        '"$@"; echo $?; cp -a disk/. full\n'
        "mount -o remount,size=8m disk || exit 99\n"
        '"$@" --resume; echo $?; cp -a disk/. whole\n'
    )
    options = ["--output-dir", "disk", "--part-size", 5, "--format", kind, "--batch-size", 1]
    result = _inside("-rm", script, *COMMAND, "score", folder, *onnx, *options, T=str(tmp_path))
    assert result.stdout.split() == ["74", "0"], result.stderr
    errors = result.stderr
    assert "cannot write: [Errno 28]" in errors and "No space left" in errors
    assert "go on with: " in errors and "--resume" in errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    before, after = _records(tmp_path / "full"), _records(tmp_path / "whole")
    assert 5 <= len(before) < PICTURES and len(before) % 5 == 0
    assert after[: len(before)] == before, "what was complete is not touched"
    assert [Path(r["path"]).name for r in after] == sorted(os.listdir(folder))
    for place in ("full", "whole"):
        assert not list((tmp_path / place).glob(".*")), "nothing half-written is left"


@small_disks
def test_a_home_that_cannot_be_written_is_not_needed(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    script = (
        'mount -t tmpfs -o ro,size=64k none "$HOME" || exit 99\ncd "$HOME" || exit 99\nexec "$@"\n'
    )
    command = [*COMMAND, "score", folder, "--model", tiny_checkpoint, "--output-dir"]
    result = _inside("-rm", script, *command, tmp_path / "out", HOME=str(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    assert len(_records(tmp_path / "out")) == PICTURES
    assert "Traceback" not in result.stderr and "Read-only" not in result.stderr


@small_disks
@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--output-dir=ro/run", 64, "cannot write to ro/run (Read-only file system)"),
        ("--output-dir=ro", 64, "cannot write to ro (Read-only file system)"),
        ("--output=ro/s.csv", 74, "cannot write: [Errno 30] Read-only file system"),
        ("--report=ro/r.html", 74, "cannot write: [Errno 30] Read-only file system"),
        ("--map=ro/maps", 64, "no folder ro/maps"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_message(
    option: str, code: int, message: str, folder: Path, onnx: list[str], tmp_path: Path
) -> None:
    (tmp_path / "ro").mkdir()
    script = 'cd "$T"; mount -t tmpfs -o ro,size=64k none ro || exit 99; exec "$@"'
    command = [*COMMAND, "score", folder / "00.png", *onnx, option]
    result = _inside("-rm", script, *command, T=str(tmp_path), COLUMNS="200")
    assert result.returncode == code, result.stderr
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_processes_that_do_not_start_are_no_fault_of_the_output(
    folder: Path,
    onnx: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken" / "PIL"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half installed')")
    options = ["--output-dir", str(tmp_path / "run"), "--format", "jsonl", "--workers", "1"]
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(broken.parent))  # for processes that are started
        assert run(["score", str(folder), *onnx, *options]) == 71
    errors = capsys.readouterr().err
    assert "cannot go on: the processes that decode pictures cannot be started" in errors
    assert "half installed" in errors and "--workers" in errors and "--resume" in errors
    assert "cannot write" not in errors and not _records(tmp_path / "run")
    assert run(["score", str(folder), *onnx, *options, "--resume"]) == 0
    assert len(_records(tmp_path / "run")) == PICTURES


@pytest.fixture
def dripping() -> Iterator[tuple[str, threading.Event]]:
    """A server whose headers never end, and whether somebody has asked it."""
    server = socket.create_server(("127.0.0.1", 0))
    asked, over = threading.Event(), threading.Event()

    def serve() -> None:
        with suppress(OSError):
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\n")
                asked.set()
                while not over.wait(0.1):
                    client.sendall(b"X-Slow: 1\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png", asked
    over.set()
    server.close()
    thread.join(10)


def test_an_interrupt_waits_for_no_server(
    dripping: tuple[str, threading.Event], folder: Path, onnx: list[str], tmp_path: Path
) -> None:
    address, asked = dripping
    output = tmp_path / "run"
    options = ["--output-dir", output, "--workers", 1, "--batch-size", 1, "--format", "jsonl"]
    more = ["--allow-private-addresses", "--time-limit", 90]
    # The address comes last: what was scored before is to be kept.
    command = [*COMMAND, "score", folder, address, *onnx, *options, *more]
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        # Jobs in the background of a shell ignore interrupts, and what they start does too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        assert asked.wait(120)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=45)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "--resume" in errors and "Traceback" not in errors and "Exception" not in errors
    assert not list(output.glob(".*"))


def test_sixteen_threads_share_one_model(folder: Path, tiny_checkpoint: Path) -> None:
    scorer = FolderScorer(str(tiny_checkpoint), "cpu")
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())[:24]]

    def score(picture: Image.Image) -> tuple[float, float]:
        result: dict[str, Any] = scorer.pipeline(picture)
        return result["score"], result["uncertainty"]

    alone = [score(picture) for picture in pictures]
    assert len(set(alone)) == len(alone)
    start = threading.Barrier(16)
    with ThreadPoolExecutor(16, initializer=start.wait) as threads:
        together = list(threads.map(score, pictures * 4))
    assert together == alone * 4
