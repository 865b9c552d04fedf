"""`pfd-iqa export`: take the model out of PyTorch."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pfd_iqa_cli.messages import say, write_errors_told
from pfd_iqa_cli.model_options import Model, loading_errors_told, prepare_libraries
from pfd_iqa_cli.output_paths import refuse_folder, refuse_missing_folder

__all__ = ["export"]

_WRONG_FILE = 1
_EXTRA = 'pip install "pfd-iqa-hf[onnx]"'

export = typer.Typer(no_args_is_help=True, help="Take the model out of PyTorch.")


class Precision(StrEnum):
    """What the file computes in."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


@export.callback()
def _group() -> None:
    """Take the model out of PyTorch."""


@export.command()
def onnx(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write, .onnx.")
    ],
    precision: Annotated[
        Precision,
        typer.Option(help="fp16 halves the file; int8 is smallest and fastest on a CPU."),
    ] = Precision.fp32,
    model: Model = None,
    quality_map: Annotated[
        bool, typer.Option(help="Whether the file can tell local quality, for score --map.")
    ] = True,
) -> int:
    """Write the whole model as one ONNX file, and compare it with PyTorch before it is kept.

    Exit code: 0 written; 1 the file would not score like the model and was not kept; 64 wrong
    usage; 74 the file cannot be written.
    """
    refuse_folder(output, "--output")
    refuse_missing_folder(output, "--output")
    _require_onnx()

    # From here on torch is imported.
    prepare_libraries(None)
    from pfd_iqa_hf.export.onnx_file import load_exportable, write_onnx
    from pfd_iqa_onnx.contract import ModelFileError

    started = time.perf_counter()
    with loading_errors_told(model):
        exportable = load_exportable(model, precision.value, quality_map)
    try:
        with write_errors_told():
            written = write_onnx(exportable, output)
    except ModelFileError as error:
        say(str(error))
        return _WRONG_FILE
    agreement = written.agreement
    say(
        f"{output}: {written.size / 1e6:.1f} MB, {precision.value}, "
        f"{time.perf_counter() - started:.0f} s; scores of {agreement.pictures} generated pictures "
        f"differ from PyTorch's by {agreement.mean:.2g} points on average, "
        f"{agreement.largest:.2g} at most"
    )
    return 0


def _require_onnx() -> None:
    import importlib.util

    missing = [
        name
        for name in ("onnx", "onnxscript", "onnxruntime")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise typer.BadParameter(
            f"the export needs {', '.join(missing)}: {_EXTRA}", param_hint="--precision"
        )
