"""`--model` and what belongs to it, the same in every command that runs a model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfd_iqa_cli.messages import interrupts_raise

if TYPE_CHECKING:
    import torch

    from pfd_iqa_hf.modeling.pipeline_pfd_iqa import ImageQualityAssessmentPipeline

__all__ = [
    "BatchSize",
    "Device",
    "Dtype",
    "Model",
    "Views",
    "check_dtype",
    "checked_dtype",
    "dtype_name",
    "loading_errors_told",
    "open_model",
    "prepare_libraries",
    "run_facts",
]

_DTYPES = {
    "fp32": "float32",
    "float32": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
}

Model = Annotated[
    str | None, typer.Option(help="Folder or Hub id of a checkpoint; else the bundled one.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default an accelerator if any.")
]
Dtype = Annotated[
    str, typer.Option(help="fp32, bf16 or fp16, of the backbone; the score is always fp32.")
]
Views = Annotated[
    str | None,
    typer.Option(help="View strategy: thorough, standard or fast; else the checkpoint's."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures that go through the model together.")]


def check_dtype(name: str) -> None:
    """Refuse a type that is none, before torch is imported.

    Raises:
        typer.BadParameter: names the types there are.
    """
    if name not in _DTYPES:
        raise typer.BadParameter(f"{name!r} is not one of fp32, bf16, fp16", param_hint="--dtype")


def dtype_name(name: str) -> str:
    """Torch's name of the type that `--dtype` names."""
    check_dtype(name)
    return _DTYPES[name]


def checked_dtype(name: str) -> torch.dtype:
    """The torch type that `--dtype` names."""
    import torch

    dtype: torch.dtype = getattr(torch, dtype_name(name))
    return dtype


def prepare_libraries(device: str | None) -> None:
    """Silence what libraries say about themselves, and try the device.

    Raises:
        typer.BadParameter: the device cannot be used.
    """
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Remarks on harmless oddities of a file; what matters is in its record.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (AssertionError, RuntimeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise typer.BadParameter(f"{device}: {reason}", param_hint="--device") from error


@contextlib.contextmanager
def loading_errors_told(model: str | None) -> Iterator[None]:
    """Turn what loading a checkpoint raises into one line.

    Raises:
        typer.BadParameter: names the checkpoint and the reason.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    broken = (KeyError, TypeError, AttributeError, SafetensorError, StrictDataclassError)
    try:
        yield
        interrupts_raise()
    except (OSError, RuntimeError, ValueError, *broken) as error:
        reason = " ".join(str(error).split())
        raise typer.BadParameter(
            f"cannot load {model or 'the bundled checkpoint'}: {reason}", param_hint="--model"
        ) from error


def open_model(
    model: str | None, device: str | None, dtype: str, views: str | None = None
) -> tuple[ImageQualityAssessmentPipeline, dict[str, Any]]:
    """Load a checkpoint for a command.

    Args:
        model: Folder or Hub id; None is the bundled one.
        device: Where to; None is an accelerator if there is any.
        dtype: As `--dtype` names it.
        views: View strategy instead of the checkpoint's.

    Returns:
        The pipeline, and the facts of the run: `model`, `model_sha256`, `version` and more.

    Raises:
        typer.BadParameter: device or checkpoint cannot be used.
    """
    prepare_libraries(device)
    from pfd_iqa_hf.scoring.folder import FolderScorer

    with loading_errors_told(model):
        scorer = FolderScorer(model, device, checked_dtype(dtype))
    if views is not None:
        processor: Any = scorer.pipeline.image_processor
        processor.view_strategy = views
    return scorer.pipeline, {**scorer.origin, **run_facts(scorer.pipeline, _DTYPES[dtype])}


def run_facts(pipeline: ImageQualityAssessmentPipeline, dtype: str = "float32") -> dict[str, Any]:
    """What the numbers of a run depend on beside the weights; JSON values."""
    config: Any = pipeline.model.config
    processor: Any = pipeline.image_processor
    factors = config.interval_factors
    return {
        "dtype": dtype,
        "view_strategy": processor.view_strategy,
        "level_names": list(config.level_names),
        "level_borders": [float(border) for border in config.level_borders],
        "distortion_names": list(config.distortion_names),
        "interval_factors": None if factors is None else dict(factors),
    }
