"""Uploads with the genuine client against a server that speaks the Hub's routes."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_client import TOKENS, environment_of, talking_to
from hub_server import Fault, HubServer, hub_server
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from PIL import Image

from pfd_iqa_cli.main import run
from pfd_iqa_hf.hub import repository_folder
from pfd_iqa_hf.hub.push import PushError, push

REPO = "acme/pfd-iqa-tiny"
UNREACHABLE, CANNOT_WRITE, REFUSED = 69, 74, 77

DOWNLOAD = """
import json, sys
sys.modules["pfd_iqa_hf"] = None
from huggingface_hub import HfApi, hf_hub_download
from transformers import AutoImageProcessor, AutoModel, pipeline

repo, revision, picture = sys.argv[1:]
listed = HfApi().list_repo_files(repo)
tree = [entry.path for entry in HfApi().list_repo_tree(repo, recursive=True)]
old = hf_hub_download(repo, "README.md", revision=revision)
model = AutoModel.from_pretrained(repo, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(repo, trust_remote_code=True)
part = float(model(**processor(picture, return_tensors="pt")).logits[0])
assess = pipeline("image-quality-assessment", model=repo, trust_remote_code=True, device="cpu")
whole = assess(picture)["score"]
answer = {"listed": listed, "tree": tree, "old": open(old).read(), "scores": [part, whole]}
print(json.dumps(answer))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(TOKENS) as server:
        yield server


@pytest.fixture
def here(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with talking_to(hub, monkeypatch, tmp_path):
        yield hub


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("upload") / "repository"
    return repository_folder.build_repository_folder(tiny_checkpoint, REPO, target)


@pytest.fixture
def built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes the built folder: how it is built is not what these tests are about."""

    def copied(model: Any, repo_id: str, target: Path, **options: Any) -> Path:
        return shutil.copytree(folder, target)

    monkeypatch.setattr(repository_folder, "build_repository_folder", copied)


@pytest.fixture
def command(tiny_checkpoint: Path) -> list[str]:
    return ["push", "--model", str(tiny_checkpoint), "--repo-id", REPO]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def commits(hub: HubServer) -> int:
    return sum("/commit/" in line for line in hub.log)


def test_the_command_creates_a_repository_that_loads_by_its_name(
    hub: HubServer,
    command: list[str],
    folder: Path,
    photograph: np.ndarray,
    tiny_pipeline: Any,
    tmp_path: Path,
) -> None:
    picture = tmp_path / "photograph.png"
    Image.fromarray(photograph).save(picture)
    environment = {**os.environ, **environment_of(hub, tmp_path / "home")}

    def program(*words: str) -> str:
        result = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    door = Path(__file__).parents[1] / "push_to_hub.py"
    printed = program(str(door), *command[1:], "--private")
    stored = hub.repositories[REPO]
    assert stored.private and stored.titles == ["initial commit", "Upload PFD-IQA model"]
    assert {**contents(folder), ".gitattributes": b"*.safetensors filter=lfs\n"} == stored.files()
    assert printed.strip() == f"{hub.address}/{REPO}/commit/{stored.branches['main']}"

    first = stored.branches["main"]
    newer = {**stored.files(), "README.md": b"---\nlicense: mit\n---\nnewer\n"}
    stored.commit("main", newer, "by hand")
    answer = json.loads(program("-c", DOWNLOAD, REPO, first, str(picture)).splitlines()[-1])
    assert sorted(answer["listed"]) == sorted(answer["tree"]) == sorted(newer)
    assert answer["old"].encode() == stored.files(first)["README.md"]
    for score in answer["scores"]:
        assert score == pytest.approx(tiny_pipeline(str(picture))["score"], abs=0.01)


def test_pushing_twice_makes_no_second_commit(
    here: HubServer, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 0
    first = capsys.readouterr().out
    assert commits(here) == 1
    assert run(command) == 0
    second = capsys.readouterr()
    assert commits(here) == 1 and len(here.repositories[REPO].titles) == 2
    assert second.out == first and "no commit" in second.err


def test_a_changed_model_updates_what_differs_in_one_commit(
    here: HubServer, folder: Path, tmp_path: Path
) -> None:
    push(folder, REPO)
    stored = here.repositories[REPO]
    foreign = {"notes.txt": b"by hand", "demo/app.py": b"by hand"}
    stale = {"old_module.py": b"", "results/old.png": b"", "model-00001-of-00002.safetensors": b""}
    stored.commit("main", {**stored.files(), **foreign, **stale}, "by hand")
    newer = tmp_path / "newer"
    for name, content in contents(folder).items():
        (newer / name).parent.mkdir(parents=True, exist_ok=True)
        (newer / name).write_bytes(content + b"\n" if name == "README.md" else content)
    published = push(newer, REPO)
    assert published.changed and not published.created
    assert len(stored.titles) == 4
    expected = {**contents(newer), **foreign, ".gitattributes": stored.files()[".gitattributes"]}
    assert stored.files() == expected


def test_a_revision_is_a_branch_and_leaves_main_alone(here: HubServer, folder: Path) -> None:
    published = push(folder, REPO, revision="trial/1")
    stored = here.repositories[REPO]
    assert stored.files("trial/1").keys() > contents(folder).keys()
    assert set(stored.files("main")) == {".gitattributes"}
    assert published.created
    assert not push(folder, REPO, revision="trial/1").changed


@pytest.mark.usefixtures("built")
def test_a_pull_request_needs_no_right_to_write(
    here: HubServer, command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(folder, REPO)
    stored = here.repositories[REPO]
    stored.commit("main", {**stored.files(), "README.md": b"---\n---\n"}, "by hand")
    before = stored.files()
    assert run([*command, "--create-pr", "--token", "hf_reader"]) == 0
    assert capsys.readouterr().out.strip() == f"{here.address}/{REPO}/discussions/1"
    assert stored.files() == before
    assert stored.files("refs/pr/1")["README.md"] == (folder / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("token", "reason", "remedy"),
    [
        ("hf_wrong", "does not accept the access token", "hf auth login"),
        ("hf_reader", "may not write to acme/pfd-iqa-tiny", "--create-pr"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.usefixtures("built")
def test_a_token_without_the_right_changes_nothing(
    here: HubServer,
    command: list[str],
    folder: Path,
    token: str,
    reason: str,
    remedy: str,
    exists: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if exists:
        push(folder, REPO)
        stored = here.repositories[REPO]
        stored.commit("main", {".gitattributes": b""}, "by hand")
    before = {name: list(stored.titles) for name, stored in here.repositories.items()}
    assert run([*command, "--token", token]) == REFUSED
    lines = capsys.readouterr().err.strip().splitlines()
    message = lines[-1]
    assert reason in message and remedy in message and token not in message
    assert "nothing was changed on the Hub" in message
    assert not any("Traceback" in line for line in lines)
    assert {name: stored.titles for name, stored in here.repositories.items()} == before


def test_without_a_token_it_says_how_to_log_in(
    here: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="no access token.*hf auth login"):
        push(folder, REPO)
    assert not here.log


def test_the_offline_mode_is_named(
    here: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(PushError, match="unset HF_HUB_OFFLINE"):
        push(folder, REPO)


@pytest.mark.usefixtures("built")
def test_a_public_repository_never_takes_what_was_to_be_private(
    here: HubServer, command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(folder, REPO)
    assert run([*command, "--private"]) == REFUSED
    assert "exists and is public" in capsys.readouterr().err
    assert len(here.repositories[REPO].titles) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", "/large/", after=1000, times=99),
        Fault("POST", "/preupload/", times=99),
        Fault("POST", "/commit/", after=5000, times=2),
    ],
    ids=["weights", "preupload", "commit"],
)
@pytest.mark.usefixtures("built")
def test_a_cut_connection_leaves_an_empty_repository_and_the_next_run_finishes(
    here: HubServer, command: list[str], fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    here.faults.append(fault)
    assert run(command) == UNREACHABLE
    error = capsys.readouterr().err
    message = error.strip().splitlines()[-1]
    assert f"the connection to {here.address} failed" in message
    assert f"the new repository {REPO} is left empty" in message
    assert "run the same command again" in message and "Traceback" not in error
    stored = here.repositories[REPO]
    assert set(stored.files()) == {".gitattributes"}, "half published"
    here.faults.clear()
    assert run(command) == 0
    assert stored.titles == ["initial commit", "Upload PFD-IQA model"]


def test_a_hiccup_is_retried(here: HubServer, folder: Path) -> None:
    here.faults.append(Fault("PUT", "/large/", after=1000, times=2))
    assert push(folder, REPO).changed


def test_a_cut_connection_leaves_an_existing_repository_as_it_was(
    here: HubServer, folder: Path, tmp_path: Path
) -> None:
    push(folder, REPO)
    stored = here.repositories[REPO]
    stored.commit("main", {".gitattributes": b""}, "by hand")
    here.faults.append(Fault("POST", "/commit/", times=2))
    with pytest.raises(PushError, match="nothing was changed on the Hub"):
        push(folder, REPO, revision="trial")
    assert set(stored.branches) == {"main"}, "the branch made for this upload was not taken back"
    assert set(stored.files()) == {".gitattributes"}


@pytest.mark.parametrize("revision", [None, "trial"])
def test_a_commit_whose_answer_is_lost_counts_and_is_made_once(
    here: HubServer, folder: Path, revision: str | None
) -> None:
    here.faults.append(Fault("POST", "/commit/", late=True))
    published = push(folder, REPO, revision=revision)
    stored = here.repositories[REPO]
    head = stored.branches[revision or "main"]
    assert published.changed and published.address == f"{here.address}/{REPO}/commit/{head}"
    assert stored.titles == ["initial commit", "Upload PFD-IQA model"]


def test_what_cannot_be_known_is_not_claimed(here: HubServer, folder: Path) -> None:
    push(folder, REPO)
    stored = here.repositories[REPO]
    stored.commit("main", {".gitattributes": b""}, "by hand")
    here.faults += [
        Fault("POST", "/commit/", late=True),
        Fault("GET", f"/api/models/{REPO}", skip=4, times=99),
    ]
    with pytest.raises(PushError, match=f"{REPO} holds either all of it or nothing of it"):
        push(folder, REPO, revision="trial")
    assert stored.files("trial").keys() > contents(folder).keys(), "a branch that was published"


def test_an_interrupt_names_what_is_left(
    here: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "create_commit", interrupted)
    with pytest.raises(KeyboardInterrupt, match="is left empty"):
        push(folder, REPO)


@pytest.mark.parametrize(
    ("fault", "reason", "refused"),
    [
        (Fault("POST", "/commit/", status=503, times=2), "the Hub has a fault, status 503", False),
        (Fault("POST", "/commit/", status=429, times=2), "no more requests", True),
        (Fault("POST", "/commit/", status=412, times=2), "changed meanwhile", True),
        (Fault("POST", "/commit/", status=418, times=2), "status 418", True),
        (Fault("POST", "/commit/", status=200, times=2), "does not answer as a Hub does", False),
        (
            Fault("POST", "/validate-yaml", status=502, times=2),
            "does not answer as a Hub does",
            False,
        ),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Fault) else "",
)
def test_an_answer_that_is_none_is_told(
    here: HubServer, folder: Path, fault: Fault, reason: str, refused: bool
) -> None:
    here.faults.append(dataclasses.replace(fault))
    with pytest.raises(PushError, match=f"{reason}.*is left empty") as told:
        push(folder, REPO)
    assert told.value.refused is refused
    assert set(here.repositories[REPO].files()) == {".gitattributes"}


def test_a_card_that_the_hub_refuses_is_told(here: HubServer, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("no metadata")
    with pytest.raises(
        PushError, match="does not accept the card.*no metadata.*training_facts.json"
    ):
        push(tmp_path / "copy", REPO)


def test_the_trainer_publishes_its_folder_the_same_way(
    here: HubServer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from pfd_iqa_hf.training.arguments import TrainArguments
    from pfd_iqa_hf.training.run import _push

    output = tmp_path / "mine"
    shutil.copytree(tiny_checkpoint, output)
    (output / "checkpoints").mkdir()
    (output / "results" / "test").mkdir(parents=True)
    (output / "results" / "test" / "scatter.png").write_bytes(b"plot")
    (output / "training.png").write_bytes(b"curves")
    (output / "log.jsonl").write_text("{}")
    options: dict[str, Any] = {"push_to_hub": True, "hub_model_id": REPO, "hub_private_repo": True}
    _push(TrainArguments(dataset="my.csv", output_dir=str(output), **options), output)
    stored = here.repositories[REPO]
    assert stored.private
    assert {"results/test/scatter.png", "results/training.png"} <= set(stored.files())
    assert not [name for name in stored.files() if "checkpoints" in name or "log" in name]


def test_no_server_at_all_is_told(
    here: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="the connection to http://127.0.0.1:9 failed") as told:
        push(folder, REPO)
    assert not told.value.refused


@pytest.mark.parametrize("room", ["64k", "512k", "668k", "684k", "700k"])
def test_a_full_disk_is_told_and_nothing_is_left(
    here: HubServer,
    command: list[str],
    tmp_path: Path,
    room: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: the case of a full disk is NOT tested")
    try:
        assert run([*command, "--output-dir", str(disk / "published")]) == CANNOT_WRITE
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    error = capsys.readouterr().err
    assert "cannot write" in error and "o space left on device" in error
    assert str(disk) in error and "--output-dir" in error and "Traceback" not in error
    assert not left, "files of a half-built repository"
    assert not here.log, "the Hub was asked before the folder was complete"
