"""Way three into the package, through real processes: what scripts and people rely on."""

import csv
import json
import os
import re
import shlex
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
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.scoring import records as records_module
from pfd_iqa_hf.scoring.records import RECORD_FIELDS

Command = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "pfd_iqa_cli"]


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def _pfd_iqa(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(),
        cwd=cwd,
        timeout=120,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture(scope="module")
def folder(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good pictures, two of them in a sub-folder, one broken, and things to pass over."""
    root = tmp_path_factory.mktemp("photos")
    (root / "sub").mkdir()
    rng = np.random.default_rng(1)
    for index, name in enumerate(["b.png", "a.jpg", "ü.webp", "sub/a.jpg", "sub/z.PNG"]):
        noisy = photograph + rng.normal(0, 15 * index, photograph.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / name)
    (root / "broken.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("no picture either")
    (root / ".hidden.jpg").write_bytes(b"")
    return root


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
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment()
    )
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"pfd-iqa-hf \S+, (checkpoint default, sha256 [0-9a-f]{12}|no ch)", result.stdout
    )


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert _pfd_iqa("--help").returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_idle_threads_leave_the_cores_to_others(chosen: str | None) -> None:
    code = (
        "import os, sys; from pfd_iqa_cli.main import main; sys.argv = ['pfd-iqa', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in _environment().items() if k != "OMP_WAIT_POLICY"}
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
    result = _pfd_iqa(
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
    result = _pfd_iqa("score", "a.jpg", "*.webp", "--model", tiny_checkpoint, cwd=folder)
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


def test_an_interrupted_output_keeps_the_old_file(tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    output.write_text("old")
    with pytest.raises(KeyboardInterrupt), records_module.replaced_when_complete(output) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert output.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_an_output_that_fails_is_named_once_and_not_its_copy(tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    for number, second in ((28, None), (18, str(output))):  # a full disk; a rename that failed
        with (
            pytest.raises(OSError) as caught,
            records_module.replaced_when_complete(output) as path,
        ):
            names = (str(path),) if second is None else (str(path), None, second)
            raise OSError(number, "no room", *names)
        assert str(caught.value) == f"[Errno {number}] no room: {str(output)!r}"


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


def test_an_input_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text("image,mine\na.jpg,5\n")
    for option in ("--output", "--report"):
        assert run(["score", "list.csv", option, str(tmp_path / "list.csv")]) == 64
        assert "would be lost" in " ".join(capsys.readouterr().err.split())
    assert Path("list.csv").read_text() == "image,mine\na.jpg,5\n"


def test_a_write_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    for error in (OSError(28, "No space left"), None):
        with pytest.raises(OSError, match="scores.jsonl") as caught:
            with records_module.replaced_when_complete(output) as beside:
                if error is not None:
                    raise error
                beside.unlink(missing_ok=True)  # nothing to rename
        assert ".part" not in str(caught.value)
    assert not output.exists()


def test_wrong_usage_of_the_process() -> None:
    assert _pfd_iqa("score", "--nonsense").returncode == 64
    assert _pfd_iqa("nonsense").returncode == 64


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["score", "a.jpg", "-o", str(tmp_path / "s.parquet")]) == 64
    assert 'pip install "pfd-iqa-hf[table]"' in capsys.readouterr().err


def test_a_full_disk_is_one_line(folder: Path, tiny_checkpoint: Path) -> None:
    result = _pfd_iqa(
        *("score", folder / "a.jpg", "--model", tiny_checkpoint, "-o", "/dev/full"),
        *("--format", "jsonl"),
    )
    assert result.returncode == 74 and "cannot write" in result.stderr


@pytest.mark.parametrize("action", ["close", "interrupt"])
def test_a_closed_pipe_and_an_interrupt_are_quiet(
    action: str, folder: Path, tiny_checkpoint: Path
) -> None:
    options = ["-r", "--format", "jsonl", "--batch-size", "1", "--model", str(tiny_checkpoint)]
    process = subprocess.Popen(
        [*COMMAND, "score", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        # A shell that starts jobs in the background has them ignore the signal; so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert process.stdout is not None and process.stderr is not None
    if action == "interrupt":
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
    process.stdout.close()
    errors = process.stderr.read()
    assert "Traceback" not in errors and "Exception ignored" not in errors, errors
    # Python ends by the signal itself where it struck inside an import; a shell shows 130 for both.
    expected = {"close": (141,), "interrupt": (130, -signal.SIGINT)}
    assert process.wait(60) in expected[action]


def test_a_terminated_run_leaves_no_file(
    folder: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = records_module.JsonLinesWriter.write

    def terminated(self: Any, record: dict[str, Any]) -> None:
        written(self, record)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("pfd_iqa_onnx.shared.JsonLinesWriter.write", terminated)
    before = signal.getsignal(signal.SIGTERM)
    line = ["score", str(folder / "a.jpg"), "--model", str(tiny_checkpoint)]
    assert run([*line, "-o", str(tmp_path / "scores.jsonl")]) == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("end, code", [("| true", 141), (">/dev/full", 74)])
@pytest.mark.parametrize("command", ["version", "score", "data", "compare"])
def test_a_gone_reader_and_a_full_disk_behind_the_standard_output(
    command: str, end: str, code: int, folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"image,mos\n{folder / 'a.jpg'},20\n")
    model = ["--model", str(tiny_checkpoint)]
    words = {
        "version": ["--version"],
        "score": ["score", str(folder / "a.jpg"), *model],
        "data": ["data", "--dataset", str(tmp_path / "t.csv")],
        "compare": ["compare", str(folder / "a.jpg"), str(folder / "b.png"), *model],
    }[command]
    line = shlex.join([*COMMAND, *words])
    script = f"sleep 0.5; {{ {line}; echo $? >code; }} {end}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=_environment(), capture_output=True, text=True
    )
    assert (tmp_path / "code").read_text() == f"{code}\n", result.stderr
    assert "Traceback" not in result.stderr
    assert ("cannot write" in result.stderr) == (code == 74)


def test_outputs_that_are_one_file_or_a_folder_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, line = tmp_path / "same.csv", ["score", str(folder / "a.jpg")]
    assert run([*line, "-o", str(same), "--report", str(same)]) == 64
    assert "two different files" in capsys.readouterr().err
    same.mkdir()
    for option in ("--output", "--report"):
        assert run([*line, option, str(same)]) == 64
        assert "is a folder" in capsys.readouterr().err


def test_a_standard_output_without_the_letters_costs_no_score(
    folder: Path, tiny_checkpoint: Path
) -> None:
    result = subprocess.run(
        [*COMMAND, "score", str(folder / "ü.webp"), "--model", str(tiny_checkpoint)],
        capture_output=True,
        text=True,
        env={**_environment(), "PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0 and "\\xfc.webp" in result.stdout, result.stderr


def test_names_in_a_table_cannot_write_to_the_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = "\u001b[31mX\nfake \ud800"
    rows = [{"image": str(folder / "a.jpg"), "mos": 20, "group": group}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run(["data", "--dataset", str(tmp_path / "t.jsonl")]) == 0
    assert "\\x1b[31mX\\nfake \\ud800" in capsys.readouterr().out


def test_standard_output_by_its_file_name_is_written_to(
    folder: Path, tiny_checkpoint: Path
) -> None:
    result = _pfd_iqa(
        *("score", folder / "a.jpg", "--model", tiny_checkpoint, "-o", "/dev/stdout"),
        *("--format", "jsonl"),
    )
    assert result.returncode == 0 and json.loads(result.stdout)["score"] is not None


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
