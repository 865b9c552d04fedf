"""What `pfd-iqa --version` prints, without importing torch."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

__all__ = ["version_text"]


def version_text() -> str:
    """Package version, bundled checkpoint and the first 12 digits of its weights' SHA-256."""
    try:
        package = version("pfd-iqa-hf")
    except PackageNotFoundError:
        package = "0+unknown"
    checkpoint = _checkpoint_module()
    try:
        digest = checkpoint.weights_sha256(checkpoint.default_checkpoint())
    except OSError:
        return f"pfd-iqa-hf {package}, no checkpoint bundled"
    return f"pfd-iqa-hf {package}, checkpoint default, sha256 {digest}"


def _checkpoint_module() -> ModuleType:
    """Load `pfd_iqa_hf.checkpoint` alone: its package would import torch and transformers."""
    package = importlib.util.find_spec("pfd_iqa_hf")
    assert package is not None and package.origin is not None  # installed together
    file = Path(package.origin).with_name("checkpoint.py")
    spec = importlib.util.spec_from_file_location("_pfd_iqa_checkpoint", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
