"""What must hold for a folder before it is published."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from pfd_iqa_hf.hub.card_metadata import problems_of_model_metadata

__all__ = ["RepositoryError", "check_repository_folder"]

_NEEDED = (
    "LICENSE",
    "NOTICE",
    "README.md",
    "config.json",
    "handler.py",
    "preprocessor_config.json",
    "requirements.txt",
)
_BLOCK = 1 << 24


class RepositoryError(ValueError):
    """A folder that must not be published; the message lists what is wrong with it."""


def check_repository_folder(folder: Path, private: Sequence[Path] = ()) -> None:
    """Check that a folder is complete, loads as code from a repository, and tells no secrets.

    Args:
        folder: What is about to be uploaded.
        private: Paths of this machine that no file may contain, beside the home and the working
            folder.

    Raises:
        RepositoryError: names each file, what is wrong and what to do.
    """
    problems = [*_missing(folder), *_code(folder), *_card(folder), *_paths(folder, private)]
    if problems:
        raise RepositoryError("; ".join(problems))


def _missing(folder: Path) -> Iterator[str]:
    for name in _NEEDED:
        if not (folder / name).is_file():
            yield f"{name} is missing; reinstall pfd-iqa-hf, or add the file to the checkpoint"
    if not any(folder.glob("*.safetensors")):
        yield "there are no weights; save the model as safetensors"


def _code(folder: Path) -> Iterator[str]:
    """Each class that the configurations name is there, and so is each file that code imports."""
    named: list[str] = []
    for name in ("config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            named += _named_classes(content)
            if "auto_map" not in content:
                yield f"{name} has no auto_map; save with the installed package's classes"
    for reference in named:
        module, _, attribute = reference.rpartition(".")
        file = folder / f"{module}.py"
        if not file.is_file() or not re.search(
            rf"^class {re.escape(attribute)}\b", file.read_text(encoding="utf-8"), re.MULTILINE
        ):
            yield f"{reference} is named by a configuration and not in the code"
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), file.name)):
            if isinstance(node, ast.ImportFrom) and node.level:
                if node.level > 1 or not (folder / f"{node.module}.py").is_file():
                    place = "." * node.level + (node.module or "")
                    yield f"{file.name} imports {place}, which is not in the folder"


def _named_classes(content: dict[str, Any]) -> list[str]:
    pipelines = content.get("custom_pipelines", {}).values()
    return [*content.get("auto_map", {}).values(), *(entry["impl"] for entry in pipelines)]


def _card(folder: Path) -> Iterator[str]:
    if not (folder / "README.md").is_file():
        return
    try:
        metadata = ModelCard.load(folder / "README.md").data.to_dict()
    except ValueError as error:
        yield f"README.md: {error}"
        return
    for problem in problems_of_model_metadata(metadata):
        yield f"README.md: {problem}"
    for example in metadata.get("widget", []):
        if not (folder / example["src"]).is_file():
            yield f"README.md: the example {example['src']} is not in the folder"


def _paths(folder: Path, private: Sequence[Path]) -> Iterator[str]:
    """Files that contain a path of this machine, in whatever format."""
    texts = {str(path) for path in (*private, Path.home(), Path.cwd())}
    texts = {text for text in texts if len(Path(text).parts) > 1}  # "/" is in every address
    if not texts:
        return
    alternatives = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.-])(?:{alternatives})(?![\w.-])".encode())
    for file in sorted(folder.rglob("*")):
        if file.is_file() and (found := _first(pattern, file)):
            yield (
                f"{file.relative_to(folder).as_posix()} names {found} of this machine; make it "
                "anew with relative paths"
            )


def _first(pattern: re.Pattern[bytes], file: Path) -> str | None:
    kept = b""
    with open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            if match := pattern.search(kept + block):
                return match[0].decode("utf-8", "backslashreplace")
            kept = block[-4096:]
    return None
