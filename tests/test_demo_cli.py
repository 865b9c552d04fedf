"""`pfd-iqa demo` as a process, and the Space: it starts, tells nobody, and leaves nothing."""

import importlib.util
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pfd_iqa_cli.main
from pfd_iqa_cli.main import run

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "demo"
# The colours that the Hub draws cards in.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}

# Python runs it at its start: whoever is asked for outside of this machine is written down.
WATCH = """
import os, sys
def watch(event, arguments):
    host = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host not in (None, "", "127.0.0.1", "localhost", "::1", "0.0.0.0"):
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{event} {host}\\n")
sys.addaudithook(watch)
"""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pfd_iqa_cli.main import run; assert run(['demo', '--help']) == 0;"
        "print(sorted({'torch', 'transformers', 'gradio', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    for option in ("--host", "--port", "--max-pixels", "--max-file-size", "--queue-size"):
        assert option in result.stdout
    assert "--share" not in result.stdout


def test_without_gradio_one_line_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name)
    )
    assert run(["demo"]) == 64
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert 'the demo needs gradio: pip install "pfd-iqa-hf[demo]"' in told


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_tells_nobody_and_leaves_nothing(
    tiny_checkpoint: Path, odd_pictures: dict[str, Path], tmp_path: Path, end: signal.Signals
) -> None:
    pytest.importorskip("gradio", reason='needs the extra "demo"')
    from gradio_client import Client, handle_file

    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "watched").mkdir()
    log = tmp_path / "connections.txt"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GRADIO_", "HF_HUB_"))},
        "PYTHONPATH": str(tmp_path),
        "TMPDIR": str(tmp_path / "watched"),
        "WATCH_LOG": str(log),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pfd_iqa_cli", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [*command, "--model", str(tiny_checkpoint)],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        # A shell's background job, such as a CI run, ignores Ctrl-C and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            address = re.search(r"the demo runs on (http://127\.0\.0\.1:\d+/)", line)
            assert address, line
            file = handle_file(str(odd_pictures["plain.jpg"]))
            client = Client(address[1], verbose=False)
            assert 0 <= client.predict(file, api_name="/assess")["score"] <= 100
            assert list((tmp_path / "watched").rglob("plain.jpg")), "the cache is here"
            process.send_signal(end)
            rest = process.communicate(timeout=60)[1]
            assert process.returncode == 0 and "Traceback" not in rest, rest
        finally:
            process.kill()
    left = [path for path in (tmp_path / "watched").rglob("*") if path.is_file()]
    assert left == [] and not list((tmp_path / "watched").glob("pfd-iqa-demo-*"))
    assert not log.exists(), log.read_text()


def test_the_space_is_configured_as_the_hub_expects() -> None:
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    card: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    assert card["sdk"] == "gradio" and re.fullmatch(r"\d+\.\d+\.\d+", card["sdk_version"])
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert (SPACE / card["app_file"]).is_file() and card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60 and card["title"] and len(card["emoji"]) == 1
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", model) for model in card["models"])
    assert card["pinned"] is False and card["python_version"] == "3.11"
    assert (SPACE / "requirements.txt").read_text().split() == ["pfd-iqa-hf[demo]"]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, ["--host", "127.0.0.1", "--port", "7860"]),
        (
            {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "80", "MODEL": "acme/mine"},
            ["--host", "0.0.0.0", "--port", "80", "--model", "acme/mine"],
        ),
    ],
)
def test_the_space_runs_the_command(
    environment: dict[str, str], wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    called: list[list[str]] = []

    def note(arguments: list[str]) -> int:
        called.append(arguments)
        return 0

    monkeypatch.setattr(pfd_iqa_cli.main, "run", note)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert end.value.code == 0 and called == [["demo", *wanted]]
