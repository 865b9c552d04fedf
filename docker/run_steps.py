"""Execute a Dockerfile's steps in a fresh folder, where there is no container engine.

    python docker/run_steps.py [--build-arg NAME=VALUE]... [--keep FOLDER] [ARGUMENT...]

Each stage gets a folder of its own; absolute paths below its working directory mean that folder, in
COPY, RUN and ENTRYPOINT alike.  `python` is this interpreter: what the base image brings along is
taken for given.  At the end the entry point runs with the arguments, as the Dockerfile's user where
this process may change its user.  The exit code is the entry point's.

Known are ARG, FROM, WORKDIR, COPY (with --from), RUN, ENV, USER, ENTRYPOINT and CMD; the rest is
an error, so that no step is passed over in silence.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["Stage", "instructions", "run_dockerfile"]

_ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Stage:
    """What a stage has said so far.

    Attributes:
        folder: What stands for its working directory.
        workdir: The working directory as the Dockerfile has it.
        variables: ARG and ENV.
        user: Numeric user and group, None before USER.
        entry: ENTRYPOINT.
        command: CMD.
    """

    folder: Path
    workdir: str = "/"
    variables: dict[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = None
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """The real place of a path of this stage.

        Raises:
            ValueError: it lies outside the working directory, which has no stand-in here.
        """
        whole = PurePosixPath(self.workdir) / path
        if not whole.is_relative_to(self.workdir) or self.workdir == "/":
            raise ValueError(f"{path} lies outside the working directory {self.workdir}")
        return self.folder / whole.relative_to(self.workdir)

    def translated(self, text: str) -> str:
        """A text with the working directory's name replaced where a path begins with it."""
        return re.sub(rf"(?<![\w./]){re.escape(self.workdir)}(?=/|\b)", str(self.folder), text)


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and argument of every instruction; comments gone, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), argument.strip()) for name, _, argument in pairs]


def run_dockerfile(
    dockerfile: Path, context: Path, scratch: Path, given: dict[str, str], arguments: list[str]
) -> int:
    """Execute all stages in order, then the entry point of the last one.

    Args:
        dockerfile: The file; `<its name>.dockerignore` beside it limits the context.
        context: What COPY copies from.
        scratch: An empty folder for the stages.
        given: Build arguments.
        arguments: Of the entry point; without any, CMD's.

    Returns:
        The entry point's exit code.

    Raises:
        ValueError: an instruction that is not known, or a path that has no stand-in.
        subprocess.CalledProcessError: a step failed.
    """
    stages: dict[str, Stage] = {}
    outside: dict[str, str] = {}
    stage: Stage | None = None
    for name, argument in instructions(dockerfile.read_text("utf-8")):
        print(f"--- {name} {argument}", flush=True)
        if name == "ARG":
            key, _, default = argument.partition("=")
            (outside if stage is None else stage.variables)[key] = given.get(key, default)
        elif name == "FROM":
            label = argument.split()[2] if " AS " in argument.upper() else str(len(stages))
            stage = stages[label] = Stage(scratch / label)
            stage.folder.mkdir(parents=True)
            stage.folder.chmod(0o755)
        elif stage is None:
            raise ValueError(f"{name} before FROM")
        elif name == "WORKDIR":
            stage.workdir = argument
        elif name == "ENV":
            key, _, value = argument.partition("=")
            stage.variables[key] = value
        elif name == "COPY":
            _copy(stage, argument, stages, context, _ignored(dockerfile))
        elif name == "RUN":
            command = ["/bin/sh", "-c", stage.translated(argument)]
            subprocess.run(command, cwd=stage.folder, env=_environment(stage), check=True)
        elif name == "USER":
            stage.user = _numeric_user(argument)
        elif name in ("ENTRYPOINT", "CMD"):
            words = [stage.translated(word) for word in json.loads(argument)]
            setattr(stage, "entry" if name == "ENTRYPOINT" else "command", words)
        else:
            raise ValueError(f"{name} is not known to {Path(__file__).name}")
    assert stage is not None
    return _enter(stage, arguments)


def _enter(stage: Stage, arguments: list[str]) -> int:
    command = [*stage.entry, *(arguments or stage.command)]
    identity = _identity(stage)
    who = f"user {stage.user[0]}" if identity and stage.user else "the user that runs this"
    print(f"--- {who}: {' '.join(command)}", flush=True)
    environment = _environment(stage)
    return subprocess.run(command, cwd=stage.folder, env=environment, **identity).returncode


def _identity(stage: Stage) -> dict[str, Any]:
    """The Dockerfile's user, where this process may become it and it can reach the interpreter."""
    if stage.user is None or os.geteuid() != 0:
        return {}
    identity: dict[str, Any] = {"user": stage.user[0], "group": stage.user[1], "extra_groups": []}
    try:
        subprocess.run([stage.entry[0], "-c", ""], check=True, capture_output=True, **identity)
    except (OSError, subprocess.CalledProcessError):
        print(f"--- user {stage.user[0]} cannot reach this machine's Python")
        return {}
    return identity


def _environment(stage: Stage) -> dict[str, str]:
    base = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}
    # Where packages come from is the machine's business, as in an engine's build.
    passed = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("PIP_", "SSL_", "REQUESTS_", "OMP_")) or key.lower().endswith("_proxy")
    }
    return {**passed, **base, "HOME": str(stage.folder), "LANG": "C.UTF-8", **stage.variables}


def _numeric_user(argument: str) -> tuple[int, int]:
    user, _, group = argument.partition(":")
    if not user.isdigit() or not (group or user).isdigit():
        raise ValueError(f"USER {argument}: give numbers, a slim image knows few names")
    return int(user), int(group or user)


def _copy(
    stage: Stage, argument: str, stages: dict[str, Stage], context: Path, ignored: list[str]
) -> None:
    words = argument.split()
    origin = next((word[7:] for word in words if word.startswith("--from=")), None)
    *sources, target = [word for word in words if not word.startswith("--")]
    place = stage.place(target)
    for source in sources:
        if origin is not None:
            path = stages[origin].place(source)
        else:
            path = context / source
        if path.is_dir():
            root = context if origin is None else None
            shutil.copytree(
                path, place, ignore=_leave_out(root, ignored), dirs_exist_ok=True, symlinks=True
            )
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place / path.name)


def _ignored(dockerfile: Path) -> list[str]:
    file = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _leave_out(root: Path | None, patterns: list[str]) -> Callable[[str, list[str]], set[str]]:
    def _ignore(folder: str, names: list[str]) -> set[str]:
        if root is None:
            return set()
        return {
            name
            for name in names
            if _is_left_out((Path(folder) / name).relative_to(root).as_posix(), patterns)
        }

    return _ignore


def _is_left_out(path: str, patterns: list[str]) -> bool:
    """The last pattern that fits decides; what lies in a folder that is let in is let in."""
    left_out = False
    for pattern in patterns:
        wanted = pattern.startswith("!")
        plain = pattern.lstrip("!").removeprefix("**/")
        parts = PurePosixPath(path).parts
        deep = pattern.lstrip("!").startswith("**/")
        candidates = parts if deep else (parts[0],)
        if any(fnmatch(part, plain) for part in candidates):
            left_out = not wanted
    return left_out


def main() -> int:
    """Read the command line and run the Dockerfile beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--file", type=Path, default=_ROOT / "docker" / "Dockerfile")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--keep", type=Path, help="folder for the stages; default: a temporary one")
    parser.add_argument("arguments", nargs="*", help="arguments of the entry point")
    options = parser.parse_args()
    given = dict(entry.split("=", 1) for entry in options.build_arg)
    with tempfile.TemporaryDirectory(prefix="dockerfile-") as temporary:
        scratch = options.keep or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o755)
        return run_dockerfile(options.file, _ROOT, scratch, given, options.arguments)


if __name__ == "__main__":
    sys.exit(main())
