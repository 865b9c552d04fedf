"""`pfd-iqa export onnx`: from a checkpoint to one checked ONNX file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.export.agreement import Agreement, check_agreement
from pfd_iqa_hf.export.graph import ScoreGraph, onnx_graph
from pfd_iqa_hf.export.quantization import quantized
from pfd_iqa_hf.scoring.folder import checkpoint_origin, load_pipeline
from pfd_iqa_hf.scoring.records import replaced_when_complete
from pfd_iqa_onnx.contract import METADATA_KEY, Contract
from pfd_iqa_onnx.scorer import OnnxScorer
from pfd_iqa_onnx.shared import VIEW_STRATEGIES

__all__ = [
    "PRECISIONS",
    "Exportable",
    "ExportedFile",
    "export_onnx",
    "load_exportable",
    "write_onnx",
]

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class ExportedFile:
    """A finished model file.

    Attributes:
        path: Where it lies.
        size: Bytes.
        contract: What it says of itself.
        agreement: How far its scores are from PyTorch's in fp32.
    """

    path: Path
    size: int
    contract: Contract
    agreement: Agreement


@dataclass(frozen=True)
class Exportable:
    """A loaded checkpoint, ready to be written.

    Attributes:
        reference: The model in float32, which the file is compared with.
        traced: What is exported: the same, or the model in half precision.
        contract: What the file will say of itself.
    """

    reference: ScoreGraph
    traced: ScoreGraph
    contract: Contract


def export_onnx(
    output: str | Path,
    model: str | None = None,
    precision: str = "fp32",
    quality_map: bool = True,
) -> ExportedFile:
    """Write the whole model as one ONNX file, after comparing it with PyTorch.

    Args:
        output: The file.
        model: Folder or Hub id of a checkpoint; None is the bundled one.
        precision: `"fp32"`, `"fp16"` (weights and arithmetic of all but the head) or `"int8"` (the
            backbone's matrix products, but for the first layer).
        quality_map: Whether the file can tell local quality too.

    Raises:
        ValueError: unknown precision, or a checkpoint that cannot be exported.
        OSError: the checkpoint cannot be read or the file not written.
        ModelFileError: the file would not score like the model; it is not kept.
    """
    return write_onnx(load_exportable(model, precision, quality_map), output)


def load_exportable(
    model: str | None = None, precision: str = "fp32", quality_map: bool = True
) -> Exportable:
    """Load a checkpoint for `write_onnx`; arguments and errors are those of `export_onnx`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    source = str(default_checkpoint()) if model is None else model
    pipeline = load_pipeline(source, device="cpu", dtype=torch.float32)
    reference = traced = ScoreGraph(pipeline.model, quality_map).eval()
    if precision == "fp16":
        half = load_pipeline(source, device="cpu", dtype=torch.float16)
        traced = ScoreGraph(half.model, quality_map).eval()
    return Exportable(reference, traced, _contract(pipeline, precision, model))


def write_onnx(exportable: Exportable, output: str | Path) -> ExportedFile:
    """Export a loaded checkpoint, compare the file with PyTorch, and keep it only if it agrees.

    The file is written beside its place and renamed at the end, so that a wrong or half-written
    one never stands there, and another one that did stays until then.

    Raises:
        OSError: the file cannot be written.
        ModelFileError: it would not score like the model.
    """
    import onnx

    target, contract = Path(output), exportable.contract
    with replaced_when_complete(target) as beside:
        with open(beside, "wb"):  # a place that cannot be written to is told before the work
            pass
        proto, robust = onnx_graph(exportable.traced)
        if contract.precision == "int8":
            with tempfile.TemporaryDirectory(prefix="pfd-iqa-export-") as folder:
                proto = quantized(proto, robust, Path(folder))
        onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
        proto.producer_name, proto.producer_version = "pfd-iqa-hf", contract.version
        beside.write_bytes(proto.SerializeToString(deterministic=True))
        agreement = check_agreement(exportable.reference, OnnxScorer(beside), target)
        size = beside.stat().st_size
    return ExportedFile(target, size, contract, agreement)


def _contract(pipeline: Any, precision: str, model: str | None) -> Contract:
    config, processor = pipeline.model.config, pipeline.image_processor
    side = config.vision_config.image_size
    sides = {side} if isinstance(side, int) else set(side)
    if sides != {processor.size["height"]}:
        raise ValueError(
            f"the image processor cuts views of {processor.size['height']} pixels, the backbone "
            f"was made for {side}; an exported graph has one size: make them equal"
        )
    factors = config.interval_factors
    origin = checkpoint_origin(model)
    return Contract(
        precision=precision,
        view_strategy=processor.view_strategy,
        views=VIEW_STRATEGIES[processor.view_strategy],
        view_size=int(processor.size["height"]),
        short_side=int(processor.short_side),
        max_pixels=int(processor.max_pixels),
        rescale_factor=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        image_mean=_channels(processor.image_mean if processor.do_normalize else 0.0),
        image_std=_channels(processor.image_std if processor.do_normalize else 1.0),
        score_range=[float(bound) for bound in config.score_range],
        level_names=list(config.level_names),
        level_borders=[float(border) for border in config.level_borders],
        distortion_names=list(config.distortion_names),
        interval_factors=None if factors is None else {k: float(v) for k, v in factors.items()},
        num_inference_steps=int(config.num_inference_steps),
        # A folder's name, not its path: files are passed on.
        model=Path(origin["model"]).name if Path(origin["model"]).is_dir() else origin["model"],
        model_sha256=origin["model_sha256"],
        version=origin["version"],
        familiarity_threshold=(
            float(config.familiarity_threshold) if config.familiarity_directions else None
        ),
    )


def _channels(values: Any) -> list[float]:
    return [float(values)] * 3 if isinstance(values, int | float) else [float(v) for v in values]
