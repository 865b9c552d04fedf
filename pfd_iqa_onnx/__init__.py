"""Score pictures with an exported PFD-IQA model; needs numpy, Pillow and onnxruntime only.

    from pfd_iqa_onnx import OnnxScorer

    scorer = OnnxScorer("pfd-iqa.onnx")
    scorer.assess("photograph.jpg")["score"]

Neither torch nor transformers is imported, nor `pfd_iqa_hf`, which would import both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pfd_iqa_onnx.contract import Contract, ModelFileError
    from pfd_iqa_onnx.scorer import OnnxScorer
    from pfd_iqa_onnx.shared import PictureError

__all__ = ["Contract", "ModelFileError", "OnnxScorer", "PictureError"]

# Looked up when asked for: the command line uses `shared` where there is no onnxruntime.
_HOMES = {
    "Contract": "contract",
    "ModelFileError": "contract",
    "OnnxScorer": "scorer",
    "PictureError": "shared",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
