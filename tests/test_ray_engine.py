"""`pfd-iqa score --engine ray`: the rows of the local engine, also when a worker is killed."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pfd_iqa_cli.light_scoring import FoundPicture, RayScoringError, RayWorkers, WorkerSettings
from pfd_iqa_cli.main import run
from pfd_iqa_cli.ray_engine import connect
from pfd_iqa_hf.scoring.records import RECORD_FIELDS, ParquetWriter

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]
COMMAND = [sys.executable, "-m", "pfd_iqa_cli", "score"]
PICTURES = 24


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Ray with two cores, which this process has joined; its address."""
    with pytest.MonkeyPatch.context() as patch:
        if "ray" not in sys.modules:  # it reads these when it is imported
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        assert connect("local", 2)
        import ray

        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(5)
    (root / "photos").mkdir()
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{number:02d}.png")
    (root / "photos" / "07.png").write_bytes(b"broken")
    with tarfile.open(root / "shard.tar", "w") as archive:
        archive.add(root / "photos" / "01.png", "inside.png")
        archive.add(root / "photos" / "07.png", "broken.png")
    data = (root / "photos" / "02.png").read_bytes()
    pq.write_table(pa.table({"image": [data, None, data]}), root / "table.parquet")
    return root


def _records(output: Path) -> list[dict[str, Any]]:
    lines = [line for part in sorted(output.glob("part-*")) for line in part.open()]
    return [json.loads(line) for line in lines]


def _assert_same_rows(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    numbers = dict.fromkeys(("score", "uncertainty", "levels", "distortions"))
    for one, other in zip(some, others, strict=True):
        assert {**one, **numbers} == {**other, **numbers}
        assert one["score"] == pytest.approx(other["score"], abs=0.01)
        assert one["uncertainty"] == pytest.approx(other["uncertainty"], abs=0.01)
        if other["levels"] is not None:
            assert {e["label"]: e["score"] for e in one["levels"]} == pytest.approx(
                {e["label"]: e["score"] for e in other["levels"]}, abs=1e-4
            )


@pytest.fixture(scope="module")
def expected(folder: Path, tiny_checkpoint: Path) -> list[dict[str, Any]]:
    """What the local engine says about the folder."""
    file = folder / "local.jsonl"
    photos, model = str(folder / "photos"), str(tiny_checkpoint)
    assert run(["score", photos, "--model", model, "--output", str(file)]) == 1
    return [json.loads(line) for line in file.open()]


def _wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 300
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A job in the background ignores interrupts, and what it starts does so too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


def test_every_input_gives_the_rows_of_the_local_engine(
    cluster: str,
    folder: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)  # workers run elsewhere, and paths are relative
    inputs = ["photos", "shard.tar", "table.parquet", "no/such.png"]
    options = ["--model", str(tiny_checkpoint), "--batch-size", "4", "--workers", "2"]
    written = []
    for engine in ("local", "ray"):
        page = tmp_path / f"{engine}.html"
        output = ["--output", f"{engine}.jsonl", "--engine", engine, "--report", str(page)]
        assert run(["score", *inputs, *options, *output]) == 1
        written.append([json.loads(line) for line in Path(f"{engine}.jsonl").open()])
        assert page.read_text().count("data:image/jpeg;base64,") == 24
    _assert_same_rows(written[1], written[0])
    paths = [record["path"] for record in written[1]]
    assert paths[:PICTURES] == [f"photos/{number:02d}.png" for number in range(PICTURES)]
    assert paths[PICTURES:] == [
        *("shard.tar::inside.png", "shard.tar::broken.png"),
        *(f"table.parquet::{row}" for row in range(3)),
        "no/such.png",
    ]
    assert [record["path"] for record in written[1] if record["error"]] == [
        *("photos/07.png", "shard.tar::broken.png", "table.parquet::1", "no/such.png")
    ]
    import ray

    assert ray.is_initialized(), "who was connected before stays connected"
    assert capsys.readouterr().out == ""


def _scoring_worker() -> int | None:
    """Process of a worker that is scoring this very moment: Ray names it after its task."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            title = Path("/proc", name, "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::RayWorker.score"):
            return int(name)
    return None


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks processes up in /proc")
def test_a_killed_worker_costs_nothing(
    cluster: str,
    folder: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    expected: list[dict[str, Any]],
) -> None:
    output = tmp_path / "run"
    process = _start(
        *(folder / "photos", "--model", tiny_checkpoint, "--output-dir", output),
        *("--format", "jsonl", "--batch-size", 2, "--part-size", 3),
        *("--engine", "ray", "--ray-address", cluster, "--workers", 2),
    )
    _wait_for(lambda: any(output.glob("part-*")), process)
    os.kill(_wait_for(_scoring_worker, process), signal.SIGKILL)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert printed == "" and "Traceback" not in errors
    _assert_same_rows(_records(output), expected)


def test_an_interrupted_run_is_finished_by_the_local_engine(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    # Without an address: this process has a Ray of its own.
    output = tmp_path / "run"
    options = [folder / "photos", "--model", tiny_checkpoint, "--output-dir", output]
    options += ["--format", "jsonl", "--batch-size", 1, "--part-size", 2]
    process = _start(*options, "--engine", "ray", "--workers", 1)
    _wait_for(lambda: any(output.glob("part-*")), process)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert printed == "" and "Traceback" not in errors and "--resume" in errors
    with pytest.raises(ProcessLookupError):  # none of Ray's processes is left
        os.killpg(process.pid, 0)
    assert 0 < len(_records(output)) < PICTURES
    assert run(["score", *map(str, options), "--resume"]) == 1
    _assert_same_rows(_records(output), expected)


def test_rows_of_ray_data_have_one_schema(
    cluster: str, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import ray
    import ray.data

    from pfd_iqa_hf.scoring.ray import RowScorer

    ray.data.DataContext.get_current().enable_progress_bars = False
    names = [f"{number:02d}.png" for number in (0, 1, 2, 7)]
    rows = [
        {"image": (folder / "photos" / name).read_bytes(), "name": name, "mos": 1} for name in names
    ]
    # Two blocks: one without a failure, and one of failures alone.
    blocks = [pa.Table.from_pylist(rows[:3]), pa.Table.from_pylist(rows[3:])]
    scored = ray.data.from_arrow(blocks).map_batches(
        RowScorer,
        fn_constructor_kwargs={
            **{"model": str(tiny_checkpoint), "device": "cpu"},
            **{"column": "image", "name_column": "name"},
        },
        batch_size=3,
        concurrency=1,
    )
    scored.write_parquet(str(tmp_path / "scores"))
    ParquetWriter(tmp_path / "ours.parquet").close()
    files = list((tmp_path / "scores").glob("*.parquet"))
    assert len(files) == 2
    schema = pq.read_schema(tmp_path / "ours.parquet")
    assert all(pq.read_schema(file).equals(schema) for file in files)
    table = pa.dataset.dataset(tmp_path / "scores").to_table().sort_by("path")
    records = table.to_pylist()
    assert [record["path"] for record in records] == names
    assert tuple(records[0]) == RECORD_FIELDS and len(records[0]["levels"]) == 5
    assert [record["error"] is None for record in records] == [True, True, True, False]
    assert records[3]["score"] is None and records[3]["levels"] is None


def test_the_recipe_of_the_document(
    cluster: str, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "scoring.md").read_text("utf-8")
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "RowScorer" in b]
    given = f'{{"model": {str(tiny_checkpoint)!r}, "device": "cpu", '
    code = code.replace("kwargs={", f"kwargs={given}").replace("/data", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        names = [f"{10 + 2 * number}.png", f"{11 + 2 * number}.png"]
        data = [(folder / "photos" / name).read_bytes() for name in names]
        table = pa.table({"image": data, "name": names})
        pq.write_table(table, tmp_path / "pictures" / f"{number}.parquet")
    exec(compile(code, "docs/scoring.md", "exec"), {})
    records = pa.dataset.dataset(tmp_path / "scores").to_table().to_pylist()
    assert sorted(r["path"] for r in records) == [f"{number}.png" for number in range(10, 14)]
    assert all(0 <= record["score"] <= 100 for record in records)


def test_a_worker_with_another_model_is_not_mixed_in(
    cluster: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    workers = RayWorkers(WorkerSettings(str(tiny_checkpoint), "cpu"), 1)
    try:
        assert workers.facts["view_strategy"] == "standard"
        workers.facts = {**workers.facts, "model_sha256": "0" * 12}
        actor: Any = workers._all[0]
        workers._joining[actor.facts.remote()] = actor
        with pytest.raises(RayScoringError, match="model_sha256 = .*the same model"):
            workers._collect(60)
        # What fails for another reason than a picture is told, not retried for ever.
        wrong: Any = [FoundPicture("a.png", Path("a.png")), 3]
        workers._running[task := actor.score.remote(wrong)] = actor
        with pytest.raises(RayScoringError, match="a worker failed .AttributeError"):
            workers._value(task)
    finally:
        workers.close()
    assert run(["score", str(tmp_path), "--engine", "ray"]) == 64, "there is no picture"


def test_a_model_that_workers_cannot_load(
    cluster: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(folder / "photos"), "--engine", "ray", "--workers", "1"]
    assert run([*arguments, "--model", str(tmp_path)]) == 64
    told = " ".join(capsys.readouterr().err.split())
    assert f"cannot load {tmp_path}" in told.replace(" │ │ ", " ") and "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray", "--backend", "onnx", "--model", "m.onnx"], "PyTorch"),
        (["--engine", "ray", "--map", "maps"], "heat maps"),
        (["--engine", "ray", "--device", "cuda:1"], "Ray chooses"),
        (["--engine", "ray", "--views", "many"], "'many' is not one of"),
        (["--ray-address", "auto"], "--engine ray"),
        (["--engine", "dask"], "'dask'"),
    ],
)
def test_options_that_ray_cannot_take(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(["score", "a.jpg", *arguments]) == 64
    assert message in " ".join(capsys.readouterr().err.split())


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: name != "ray" and find(name, *more) or None
    )
    assert run(["score", "a.jpg", "--engine", "ray"]) == 64
    assert 'pip install "pfd-iqa-hf[ray]"' in " ".join(capsys.readouterr().err.split())


def test_a_cluster_that_is_not_there_is_told_at_once(folder: Path, tiny_checkpoint: Path) -> None:
    # In a process of its own: this one may be connected already.
    began = time.monotonic()
    process = _start(
        *(folder / "photos" / "00.png", "--model", tiny_checkpoint),
        *("--engine", "ray", "--ray-address", "127.0.0.1:1"),
    )
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 64 and printed == ""
    assert "no cluster at 127.0.0.1:1" in errors and "refused" in errors
    assert time.monotonic() - began < 60
