"""The checkpoint inside the package, and the name of any checkpoint's weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["default_checkpoint", "weights_sha256"]


def default_checkpoint() -> Path:
    """Folder of the bundled default checkpoint."""
    return Path(__file__).resolve().parent / "checkpoints" / "default"


def weights_sha256(folder: str | Path) -> str:
    """First 12 hex digits of the SHA-256 of a folder's `*.safetensors` in name order.

    For a single file these are the first digits that `sha256sum` prints.

    Raises:
        FileNotFoundError: the folder holds no safetensors file.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors file")
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
