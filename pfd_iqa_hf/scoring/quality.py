"""What `--quality` stands for: how many views a picture gets, and in which precision they run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["QUALITIES", "QualitySettings", "quality_settings"]

QUALITIES = ("thorough", "standard", "fast")
"""Names, the most careful first."""


@dataclass(frozen=True)
class QualitySettings:
    """What a name means on a device.

    Attributes:
        views: View strategy.
        dtype: Precision of the model.
    """

    views: str
    dtype: torch.dtype


def quality_settings(quality: str, device: str | None = None) -> QualitySettings:
    """Resolve a name.

    Each takes the view strategy of its name; in float32, but `fast` in bfloat16 where the device
    multiplies in it.

    Args:
        quality: One of `QUALITIES`.
        device: Such as `cpu` or `cuda:0`; None is where the pipeline would go.

    Raises:
        ValueError: there is no such name.
    """
    if quality not in QUALITIES:
        raise ValueError(f"'quality' must be one of {', '.join(QUALITIES)}, got {quality!r}")
    quick = quality == "fast" and _has_bfloat16(device)
    return QualitySettings(quality, torch.bfloat16 if quick else torch.float32)


def _has_bfloat16(device: str | None) -> bool:
    kind = device.split(":")[0] if device else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    features = torch.cpu.get_capabilities()
    return any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
