"""`pfd-iqa score --backend onnx`: its options, and loading its model without torch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pfd_iqa_onnx.scorer import OnnxScorer

__all__ = ["check_onnx_options", "check_views", "load_onnx"]


def check_onnx_options(
    model: str | None, device: str | None, dtype: str, explain: bool = False
) -> None:
    """Refuse what a model file decides itself, before anything is loaded.

    Raises:
        typer.BadParameter: names the option.
    """
    if model is None:
        raise typer.BadParameter(
            "--backend onnx needs the file that `pfd-iqa export onnx` wrote", param_hint="--model"
        )
    if explain:
        raise typer.BadParameter(
            "a model file cannot tell what distortions cost; leave --backend onnx out",
            param_hint="--explain",
        )
    if device not in (None, "cpu"):
        raise typer.BadParameter(
            f"--backend onnx runs on the cpu, not on {device}", param_hint="--device"
        )
    if dtype not in ("fp32", "float32"):
        raise typer.BadParameter(
            f"a model file has its precision in it: export one with --precision, not {dtype} here",
            param_hint="--dtype",
        )


def load_onnx(
    model: str,
    batch_size: int,
    views: str | None,
    max_pixels: int | None,
    with_map: bool,
    threads: int | None = None,
) -> OnnxScorer:
    """Load a model file; `with_map` asks for a map in it, `threads` None is one a core.

    Raises:
        typer.BadParameter: onnxruntime is missing, or the file or an option cannot be used.
    """
    check_views(views)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        from pfd_iqa_onnx.contract import ModelFileError
        from pfd_iqa_onnx.scorer import OnnxScorer
    except ImportError as error:
        raise typer.BadParameter(
            f'{error}: pip install "pfd-iqa-hf[onnx]"', param_hint="--backend"
        ) from error
    try:
        scorer = OnnxScorer(model, batch_size, views, max_pixels, threads)
    except ModelFileError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error
    if with_map and not scorer.has_quality_map:
        raise typer.BadParameter(
            f"{model} holds no quality map; export it with --quality-map", param_hint="--map"
        )
    return scorer


def check_views(views: str | None) -> None:
    """Refuse a view strategy that is none.

    Raises:
        typer.BadParameter: names those there are.
    """
    from pfd_iqa_onnx.shared import VIEW_STRATEGIES

    if views is not None and views not in VIEW_STRATEGIES:
        known = ", ".join(sorted(VIEW_STRATEGIES))
        raise typer.BadParameter(f"{views!r} is not one of {known}", param_hint="--views")
