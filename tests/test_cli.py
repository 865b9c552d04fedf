"""Way three into the package, through real processes: what scripts and people rely on."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import command_environment, pfd_iqa, write_photo_folder
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.scoring.records import RECORD_FIELDS


@pytest.fixture(scope="module")
def folder(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo_folder(tmp_path_factory.mktemp("photos"), photograph)


@pytest.fixture
def score(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """Run `pfd-iqa score` in this process: exit code, records and messages."""

    def _score(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        options = ["--model", tiny_checkpoint, "--device", "cpu", "--format", "jsonl"]
        code = run(["score", *map(str, [*arguments, *options])])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return _score


def test_help_and_version_import_no_framework() -> None:
    code = (
        "import sys; from pfd_iqa_cli.main import run;"
        "codes = [run(['--help']), run(['score', '--help']), run(['--version'])];"
        "heavy = {'torch', 'transformers', 'pfd_iqa_hf', 'numpy', 'PIL'} & set(sys.modules);"
        "assert codes == [0, 0, 0] and not heavy, (codes, heavy)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=command_environment()
    )
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"pfd-iqa-hf \S+, (checkpoint default, sha256 [0-9a-f]{12}|no ch)", result.stdout
    )


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        assert pfd_iqa("--help").returncode == 0
        after = os.times()
        # Of a core, not of the clock: other work may go on beside it.
        spent = after.children_user + after.children_system
        seconds.append(spent - before.children_user - before.children_system)
    assert 0 < min(seconds) < 1


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_idle_threads_leave_the_cores_to_others(chosen: str | None) -> None:
    code = (
        "import os, sys; from pfd_iqa_cli.main import main; sys.argv = ['pfd-iqa', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in command_environment().items() if k != "OMP_WAIT_POLICY"}
    if chosen is not None:
        environment["OMP_WAIT_POLICY"] = chosen
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert result.stdout.splitlines()[-1] == (chosen or "PASSIVE"), result.stderr


def test_a_folder_with_a_broken_picture(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    result = pfd_iqa(
        *("score", folder, "-r", "--format", "jsonl", "--model", tiny_checkpoint, "--map", maps),
    )
    assert result.returncode == 1
    records = [json.loads(line) for line in result.stdout.splitlines()]
    names = [os.path.relpath(record["path"], folder) for record in records]
    assert names == ["a.jpg", "b.png", "broken.jpg", "ü.webp", "sub/a.jpg", "sub/z.PNG"]
    for record in records:
        assert tuple(record) == RECORD_FIELDS
        assert record["model"] == str(tiny_checkpoint)
        assert re.fullmatch("[0-9a-f]{12}", record["model_sha256"]) and record["version"]
    broken = records.pop(2)
    assert "not a picture" in broken["error"]
    assert all(broken[key] is None for key in ("score", "label", "levels", "width", "height"))
    for record in records:
        assert record["error"] is None and 0 <= record["score"] <= 100
        assert (record["width"], record["height"]) == (300, 260)
    # The pipeline in another process agrees.
    from pfd_iqa_hf.scoring.folder import FolderScorer

    assess = FolderScorer(str(tiny_checkpoint), "cpu").pipeline
    for record in records:
        assert assess(record["path"])["score"] == pytest.approx(record["score"], abs=0.01)
    saved = sorted(str(path.relative_to(maps)) for path in maps.rglob("*.png"))
    assert saved == [
        f"{name}.map.png" for name in ("a.jpg", "b.png", "sub/a.jpg", "sub/z.PNG", "ü.webp")
    ]
    heat_map = Image.open(maps / "a.jpg.map.png")
    assert heat_map.width >= 300 and heat_map.height >= 260


def test_table_for_people(folder: Path, tiny_checkpoint: Path) -> None:
    result = pfd_iqa("score", "a.jpg", "*.webp", "--model", tiny_checkpoint, cwd=folder)
    assert result.returncode == 0
    assert "a.jpg" in result.stdout and "ü.webp" in result.stdout and "score" in result.stdout
    assert "2 pictures" in result.stderr


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_files_are_complete_and_agree(
    format: str, score: Any, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code, expected, _ = score(folder)
    output = tmp_path / f"scores.{format}"
    output.write_text("old")
    assert (
        run(["score", str(folder), "--model", str(tiny_checkpoint), "-o", str(output)]) == code == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == [output.name], "nothing left beside it"
    if format == "parquet":
        assert pq.read_table(output).to_pylist() == expected
        return
    text = output.read_text("utf-8")
    if format == "jsonl":
        assert [json.loads(line) for line in text.splitlines()] == expected
        return
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == list(RECORD_FIELDS)
    for row, record in zip(rows, expected, strict=True):
        assert row["path"] == record["path"] and row["error"] == (record["error"] or "")
        if record["error"] is None:
            assert float(row["score"]) == record["score"]
            assert json.loads(row["levels"]) == record["levels"]


def test_worst_and_sort(score: Any, folder: Path) -> None:
    good = [folder / "b.png", folder / "sub", folder / "ü.webp"]
    _, everything, _ = score(*good)
    ascending = sorted(record["score"] for record in everything)
    assert len(set(ascending)) == 4
    assert [r["score"] for r in score(*good, "--worst", 2)[1]] == ascending[:2]
    assert [r["score"] for r in score(*good, "--sort", "worst")[1]] == ascending
    assert [r["score"] for r in score(*good, "--sort", "best")[1]] == ascending[::-1]
    assert [r["score"] for r in score(*good, "--worst", 2, "--sort", "best")[1]] == (
        ascending[:2][::-1]
    )
    paths = [r["path"] for r in score(*good, "--sort", "path")[1]]
    assert paths == sorted(paths)
    code, some, _ = score(folder, "--worst", 1)
    assert code == 1 and [r["error"] is None for r in some] == [True, False]


def test_fail_under(score: Any, folder: Path) -> None:
    picture = folder / "b.png"
    _, [record], _ = score(picture)
    assert score(picture, "--fail-under", record["score"] + 0.1)[0] == 2
    assert score(picture, "--fail-under", record["score"] - 0.1)[0] == 0
    assert score(folder, "--fail-under", 100)[0] == 1, "a failure leaves the verdict open"


def test_each_picture_once_in_the_order_given(score: Any, folder: Path) -> None:
    given = [folder / "b.png", folder / "sub" / ".." / "a.jpg", folder / "b.png", folder / "a.jpg"]
    _, records, _ = score(*given, folder / "*.png")
    assert [record["path"] for record in records] == [str(given[0]), str(given[1])]


def test_an_explicit_path_is_always_tried(score: Any, folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "picture.without_known_suffix"
    odd.write_bytes((folder / "a.jpg").read_bytes())
    code, records, errors = score(odd, folder / "notes.txt", folder / "gone.jpg")
    assert code == 1
    assert [record["error"] is None for record in records] == [True, False, False]
    assert "no such file" in records[2]["error"] and "gone.jpg: there is no such file" in errors


def test_batches_and_settings(score: Any, folder: Path) -> None:
    _, one, _ = score(folder, "--batch-size", 1)
    _, many, _ = score(folder, "--batch-size", 32)
    for left, right in zip(one, many, strict=True):
        assert left["path"] == right["path"] and left["label"] == right["label"]
        assert left["score"] == pytest.approx(right["score"], abs=0.01)
    _, fast, _ = score(folder / "a.jpg", "--views", "fast")
    assert fast[0]["score"] != one[0]["score"]
    code, small, _ = score(folder / "a.jpg", "--max-pixels", 1000)
    assert code == 1 and "over the limit of 1,000" in small[0]["error"]
    _, half, _ = score(folder / "a.jpg", "--dtype", "bf16")
    assert half[0]["score"] == pytest.approx(one[0]["score"], abs=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["a.jpg", "--nonsense"], "No such option"),
        (["a.jpg", "--worst", "0"], "--worst"),
        (["a.jpg", "--fail-under", "101"], "--fail-under"),
        (["a.jpg", "--dtype", "int3"], "--dtype"),
        (["a.jpg", "--format", "xml"], "--format"),
        (["a.jpg", "--format", "parquet"], "--output"),
        (["a.jpg", "--output", "scores.xyz"], "--format"),
        (["a.jpg", "--output", "-", "--format", "csv"], "standard output"),
        (["a.jpg", "--output", "no/such/folder.csv"], "no folder"),
        (["a.jpg", "--views", "bogus"], "--views"),
        (["a.jpg", "--device", "bogus"], "--device"),
        (["a.jpg", "--model", "no-such-folder"], "cannot load no-such-folder"),
        (["no-such-*.jpg"], "no picture"),
        (["."], "no picture"),
    ],
)
def test_wrong_usage_is_64(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["score", *arguments]) == 64
    assert message in " ".join(capsys.readouterr().err.split())


def test_wrong_usage_of_the_process() -> None:
    assert pfd_iqa("score", "--nonsense").returncode == 64
    assert pfd_iqa("nonsense").returncode == 64


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["score", "a.jpg", "-o", str(tmp_path / "s.parquet")]) == 64
    assert 'pip install "pfd-iqa-hf[table]"' in capsys.readouterr().err


def test_fast_is_two_views_in_what_the_processor_is_quick_in(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests: list[dict[str, Any]] = []
    for native in (True, False):
        monkeypatch.setattr("pfd_iqa_hf.scoring.quality._has_bfloat16", lambda device, n=native: n)
        for options in ([], ["--dtype", "fp32"], ["--views", "standard"]):
            output = tmp_path / f"run{len(manifests)}"
            line = ["score", str(folder / "a.jpg"), "--model", str(tiny_checkpoint)]
            line += ["--device", "cpu", "--quality", "fast", "--output-dir", str(output)]
            assert run([*line, "--format", "jsonl", *options]) == 0
            manifests.append(json.loads((output / "manifest.json").read_text()))
    found = [(m["view_strategy"], m["dtype"]) for m in manifests]
    assert found == [
        *(("fast", "bfloat16"), ("fast", "float32"), ("standard", "bfloat16")),
        *(("fast", "float32"), ("fast", "float32"), ("standard", "float32")),
    ]
