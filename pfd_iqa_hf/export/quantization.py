"""Eight bits for the backbone's matrix products, which are most of the file and of the time."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["quantized"]


def quantized(model: Any, robust: Collection[str], folder: Path) -> Any:
    """Dynamic quantisation: weights are stored in 8 bits, activations get their scale as they come.

    Only the backbone behind its first layer is touched; that layer makes half of the error, and
    priors, denoiser and head cost little: they stay in float32.
    Each output channel has its own scale.  Weights use 7 of the 8 bits: processors without VNNI add
    two products in 16 bits, which overflows with all 8, and scores would depend on the processor.

    Args:
        model: A float32 `onnx.ModelProto`; may be changed.
        robust: Names of the nodes that may be quantised.
        folder: For intermediate files; the caller removes it.

    Returns:
        The quantised `onnx.ModelProto`.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = folder / "fp32.onnx", folder / "int8.onnx"
    onnx.save(model, str(source))
    nodes = [
        node.name
        for node in model.graph.node
        if node.name in robust and node.op_type in ("MatMul", "Gemm")
    ]
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends another tool, on the root logger
    try:
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=nodes,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
    finally:
        logger.setLevel(level)
    return onnx.load(str(target))
