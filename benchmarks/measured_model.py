"""What the benchmarks share: loading the model as users do, and writing down what was measured."""

from __future__ import annotations

import argparse
import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline, pipeline

import pfd_iqa_hf
from pfd_iqa_cli.process_memory import steady_memory

RESULTS = Path(__file__).parent / "results"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, `--dtype`, `--threads` and `--output`."""
    parser.add_argument("--model", help="folder or Hub id; default: the bundled checkpoint")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--output", type=Path, help="JSON file; default: in benchmarks/results/")


def load_pipeline(arguments: argparse.Namespace) -> Pipeline:
    """The pipeline of the model in `arguments`, with memory kept as `pfd-iqa score` keeps it."""
    steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = arguments.model or str(pfd_iqa_hf.default_checkpoint())
    build: Any = pipeline  # its overloads list transformers' own tasks only
    loaded: Pipeline = build(
        "image-quality-assessment", model=model, dtype=getattr(torch, arguments.dtype)
    )
    return loaded


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """The facts that a number needs beside it: model, hash, views, precision, threads, versions."""
    folder = Path(arguments.model) if arguments.model else pfd_iqa_hf.default_checkpoint()
    weights = folder / "model.safetensors"
    try:
        package = version("pfd-iqa-hf")
    except PackageNotFoundError:
        package = None
    return {
        # A folder's name, not its path: results are published.
        "model": folder.name if folder.is_dir() else arguments.model,
        "model_sha256": _sha256(weights)[:12] if weights.is_file() else None,
        "view_strategy": getattr(arguments, "views", None) or view_strategy(folder),
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "pfd_iqa_hf": package,
        "torch": torch.__version__,
    }


def write_result(arguments: argparse.Namespace, name: str, result: dict[str, Any]) -> None:
    """Writes the result as JSON to `--output` or `benchmarks/results/<name>.json`."""
    path = arguments.output or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {path}")


def view_strategy(folder: Path) -> str | None:
    """The views that a checkpoint's image processor cuts; None if the folder does not say."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None
    found: str | None = json.loads(file.read_text("utf-8")).get("view_strategy")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
