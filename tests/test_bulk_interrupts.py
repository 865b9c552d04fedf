"""An interrupt or an error in the middle of a run costs no record that was complete."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from bulk_parts import MANIFEST, record_of

from pfd_iqa_cli.score_folder import kept_on_interrupt
from pfd_iqa_hf.scoring.parts import OutputFolder


@pytest.fixture
def interrupts() -> Iterator[None]:
    """As on a terminal: jobs in the background of a shell ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _paths(folder: Path, kind: str) -> list[str]:
    paths: list[str] = []
    output = OutputFolder(folder, kind, 3)
    output.resume(MANIFEST, lambda record: paths.append(record["path"]))
    output.release()
    return paths


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("place", ["replace", "fsync"])
def test_an_interrupt_while_a_part_is_completed_comes_after_it(
    kind: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupts: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = OutputFolder(tmp_path / "run", kind, 3)
    output.start(MANIFEST)
    whole = getattr(os, place)

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return whole(*arguments)

    with pytest.raises(typer.Exit) as end, kept_on_interrupt(output):
        for name in ("a.png", "b.png"):
            output.write(record_of(name))
        monkeypatch.setattr(os, place, interrupted)
        output.write(record_of("c.png"))  # completes the part
        output.write(record_of("d.png"))
    monkeypatch.undo()
    assert end.value.exit_code == 130 and "what was scored" in capsys.readouterr().err
    assert _paths(tmp_path / "run", kind) == ["a.png", "b.png", "c.png"]
    assert not list((tmp_path / "run").glob(".*"))


def test_a_second_interrupt_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupts: None
) -> None:
    output = OutputFolder(tmp_path / "run", "jsonl", 100)
    output.start(MANIFEST)
    whole = os.replace

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        whole(*arguments)

    with pytest.raises(typer.Exit), kept_on_interrupt(output):
        output.write(record_of("a.png"))
        monkeypatch.setattr(os, "replace", interrupted)
        signal.raise_signal(signal.SIGINT)
    monkeypatch.undo()
    assert _paths(tmp_path / "run", "jsonl") == ["a.png"]


@pytest.mark.parametrize("failing", ["writing", "scoring"])
def test_an_error_keeps_what_can_be_kept(
    failing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = OutputFolder(tmp_path / "run", "jsonl", 2)
    output.start(MANIFEST)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = typer.Exit if failing == "writing" else RuntimeError
    with pytest.raises(expected), kept_on_interrupt(output):
        for name in ("a.png", "b.png", "c.png"):
            output.write(record_of(name))
        if failing == "scoring":
            raise RuntimeError("the model is broken")
        monkeypatch.setattr(os, "fsync", full)
        output.write(record_of("d.png"))
    monkeypatch.undo()
    errors = capsys.readouterr().err
    assert "--resume" in errors and ("cannot write" in errors) == (failing == "writing")
    kept = ["a.png", "b.png"] if failing == "writing" else ["a.png", "b.png", "c.png"]
    assert not list((tmp_path / "run").glob(".*"))
    assert _paths(tmp_path / "run", "jsonl") == kept
