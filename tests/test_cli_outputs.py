"""Where the command writes to: files, pipes and full disks, and what an end by a signal leaves."""

import json
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import COMMAND, command_environment, pfd_iqa, write_photo_folder

from pfd_iqa_cli.main import run
from pfd_iqa_hf.scoring import records as records_module


@pytest.fixture(scope="module")
def folder(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo_folder(tmp_path_factory.mktemp("photos"), photograph)


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


def test_a_full_disk_is_one_line(folder: Path, tiny_checkpoint: Path) -> None:
    result = pfd_iqa(
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
        env=command_environment(),
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
        ["bash", "-c", script],
        cwd=tmp_path,
        env=command_environment(),
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "code").read_text() == f"{code}\n", result.stderr
    assert "Traceback" not in result.stderr
    assert ("cannot write" in result.stderr) == (code == 74)


def test_an_input_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text("image,mine\na.jpg,5\n")
    for option in ("--output", "--report"):
        assert run(["score", "list.csv", option, str(tmp_path / "list.csv")]) == 64
        assert "would be lost" in " ".join(capsys.readouterr().err.split())
    assert Path("list.csv").read_text() == "image,mine\na.jpg,5\n"


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
    for option, place in (("--map", folder / "a.jpg"), ("--output", folder / "a.jpg" / "s.csv")):
        assert run([*line, option, str(place)]) == 64
        assert "is a file" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_standard_output_without_the_letters_costs_no_score(
    folder: Path, tiny_checkpoint: Path
) -> None:
    result = subprocess.run(
        [*COMMAND, "score", str(folder / "ü.webp"), "--model", str(tiny_checkpoint)],
        capture_output=True,
        text=True,
        env={**command_environment(), "PYTHONIOENCODING": "ascii"},
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
    result = pfd_iqa(
        *("score", folder / "a.jpg", "--model", tiny_checkpoint, "-o", "/dev/stdout"),
        *("--format", "jsonl"),
    )
    assert result.returncode == 0 and json.loads(result.stdout)["score"] is not None
