"""The Dockerfile holds only steps that can be executed without an engine, and they are."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def run_steps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_steps", ROOT / "docker" / "run_steps.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_steps"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_our_dockerfile_is_slim_and_not_root(run_steps: ModuleType) -> None:
    steps = run_steps.instructions(DOCKERFILE.read_text())
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in steps} <= known
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    final = steps[last:]
    assert final[0][1].endswith("-slim")
    user = next(argument for name, argument in final if name == "USER")
    assert 0 not in run_steps._numeric_user(user)
    assert "torch" not in " ".join(argument for name, argument in final if name == "RUN")
    for name, argument in steps:
        if name == "COPY" and "--from" not in argument:
            assert argument.split()[0] == ".", "the context is limited by the .dockerignore alone"


def test_the_context_is_what_the_package_is_built_from(
    run_steps: ModuleType, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    for name in ("modeling/views.py", "modeling/__pycache__/x.pyc", "tests/test_x.py", "README.md"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("x")
    stage = run_steps.Stage(tmp_path / "stage", workdir="/app")
    run_steps._copy(stage, ". source", {}, context, run_steps._ignored(DOCKERFILE))
    copied = {
        path.relative_to(stage.folder).as_posix()
        for path in stage.folder.rglob("*")
        if path.is_file()
    }
    assert copied == {"source/modeling/views.py", "source/README.md"}


def test_steps_run_in_their_folders(
    run_steps: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "greeting.txt").write_text("hello")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "# a comment\n"
        "FROM python AS first\n"
        "WORKDIR /made\n"
        "ARG NAME=nobody\n"
        "COPY greeting.txt .\n"
        'RUN echo "$(cat /made/greeting.txt) $NAME" \\\n'
        "    > result.txt\n"
        "FROM python\n"
        "WORKDIR /app\n"
        "COPY --from=first /made/result.txt .\n"
        'ENTRYPOINT ["/bin/cat", "/app/result.txt"]\n'
        "CMD []\n"
    )
    scratch = tmp_path / "scratch"
    code = run_steps.run_dockerfile(
        dockerfile, tmp_path / "context", scratch, {"NAME": "world"}, []
    )
    assert code == 0 and capfd.readouterr().out.rstrip().endswith("hello world")
    assert sorted(path.name for path in scratch.iterdir()) == ["1", "first"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("FROM x\nWORKDIR /a\nVOLUME /data", "VOLUME is not known"),
        ("FROM x\nWORKDIR /a\nUSER nobody", "give numbers"),
        ("FROM x\nWORKDIR /a\nCOPY a /etc", "outside the working directory"),
        ("RUN true", "RUN before FROM"),
    ],
)
def test_what_cannot_be_executed_is_an_error(
    run_steps: ModuleType, lines: str, reason: str, tmp_path: Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(lines)
    with pytest.raises(ValueError, match=reason):
        run_steps.run_dockerfile(dockerfile, tmp_path, tmp_path / "scratch", {}, [])
