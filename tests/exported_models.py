"""A tiny checkpoint and its ONNX files, one a precision, written when first asked for."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfd_iqa_hf.export import onnx_file
from pfd_iqa_hf.export.graph import ScoreGraph, onnx_graph
from pfd_iqa_hf.export.onnx_file import ExportedFile, export_onnx

__all__ = ["ExportedModel", "exported_model", "short_checkpoint", "traced_once"]

ExportedModel = Callable[[str], ExportedFile]


@pytest.fixture(scope="session")
def short_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with two denoising steps: tracing takes as long as the graph is."""
    folder = tmp_path_factory.mktemp("short") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_inference_steps": 2, "interval_factors": {"0.8": 1.25}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def traced_once() -> Callable[[ScoreGraph], tuple[Any, set[str]]]:
    """`onnx_graph` that traces the tiny checkpoint once a type."""
    graphs: dict[Any, tuple[Any, set[str]]] = {}

    def _trace(graph: ScoreGraph) -> tuple[Any, set[str]]:
        key = (graph.model.dtype, graph.quality_map)
        if key not in graphs:
            graphs[key] = onnx_graph(graph)
        return copy.deepcopy(graphs[key])

    return _trace


@pytest.fixture(scope="session")
def exported_model(
    short_checkpoint: Path,
    traced_once: Callable[[ScoreGraph], tuple[Any, set[str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportedModel:
    """Give the exported file of a precision."""
    folder = tmp_path_factory.mktemp("onnx")
    files: dict[str, ExportedFile] = {}

    def _exported(precision: str) -> ExportedFile:
        if precision not in files:
            output = folder / precision / "model.onnx"
            output.parent.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(onnx_file, "onnx_graph", traced_once)
                files[precision] = export_onnx(output, str(short_checkpoint), precision)
        return files[precision]

    return _exported
