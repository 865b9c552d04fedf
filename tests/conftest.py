"""Pictures of every kind, good and bad, and a tiny random checkpoint."""

import os

# Spinning OpenMP threads slow a busy two-core machine many times over. Before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_models import exported_model, short_checkpoint, traced_once  # noqa: F401 fixtures
from found_pictures import png_bytes
from PIL import Image, ImageCms


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A stand-in for a photograph: smooth light, an edge, texture; uint8 (260, 300, 3)."""
    rows, columns = np.mgrid[0:260, 0:300].astype(np.float64)
    light = 90 + 60 * np.sin(columns / 41) + 40 * np.cos(rows / 57)
    light[rows + columns > 330] *= 0.55
    noise = np.random.default_rng(5).normal(0, 6, (260, 300, 3))
    tint = np.array([1.0, 0.9, 0.75])
    return np.clip(light[..., None] * tint + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def odd_pictures(
    photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files that Pillow can decode and that image tools like to stumble over."""
    folder = tmp_path_factory.mktemp("odd")
    picture = Image.fromarray(photograph)
    grey = picture.convert("L")
    alpha = picture.copy()
    alpha.putalpha(grey)
    sixteen = np.asarray(grey).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[274] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", picture.size)]}
    palette = grey.convert("P")
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "plain.jpg": (picture, {}),
        "grey.jpg": (grey, {}),
        "bilevel.png": (picture.convert("1"), {}),
        "alpha.png": (alpha, {}),
        "grey-alpha.png": (alpha.convert("LA"), {}),
        "palette.png": (picture.convert("P"), {}),
        "palette-transparent.png": (palette, {"transparency": 7}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "sixteen.png": (Image.fromarray(sixteen), {}),
        "sixteen.tif": (Image.fromarray(sixteen), {}),
        "float.tif": (Image.fromarray(np.asarray(grey) / np.float32(255)), {}),
        "nan.tif": (Image.fromarray(np.diag([np.nan] * 9).astype(np.float32)), {}),
        "profile.png": (picture, {"icc_profile": profile}),
        "broken-profile.png": (picture, {"icc_profile": b"broken"}),
        "turned.jpg": (picture, {"exif": exif}),
        "animated.gif": (picture, frames),
        "animated.webp": (picture, frames),
        "animated.png": (picture, frames),
        "one.png": (Image.new("RGB", (1, 1), "red"), {}),
        "column.png": (picture.resize((1, 4000)), {}),
        "strip.png": (picture.resize((20_000, 50)), {}),
        "black.png": (Image.new("RGB", (300, 300)), {}),
        "white.png": (Image.new("L", (64, 64), 255), {}),
        "[brackets] é ü.png": (picture, {}),
    }
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
    return {name: folder / name for name in files}


@pytest.fixture(scope="session")
def broken_pictures(
    photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """Files that cannot be scored, and a part of the reason that must be given."""
    folder = tmp_path_factory.mktemp("broken")
    whole = folder / "whole.jpg"
    Image.fromarray(photograph).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is no picture.")
    Image.new("1", (30_000, 30_000)).save(folder / "bomb.png")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    reasons = {
        "truncated.jpg": "cannot be decoded",
        "empty.jpg": "empty",
        "text.jpg": "not a picture",
        "bomb.png": "over the limit",
        "loop.jpg": "cannot be opened",
        "vanished.jpg": "no such file",
    }
    if os.geteuid() != 0:  # root may read everything
        (folder / "locked.jpg").write_bytes(data)
        (folder / "locked.jpg").chmod(0)
        reasons["locked.jpg"] = "may not be read"
    return {name: (folder / name, reason) for name, reason in reasons.items()}


def _tiny_config() -> Any:
    from pfd_iqa_hf import PfdIqaConfig

    return PfdIqaConfig(
        vision_config={
            "model_type": "dinov2",
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 224,
            "patch_size": 28,
        },
        text_config={
            "model_type": "bert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "vocab_size": 50,
        },
        text_embed_dim=16,
        text_pooling="mean",
        feature_levels=[1, 2],
        prior_rank=8,
        denoising_width=24,
        condition_heads=2,
        head_num_attention_heads=2,
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete, tiny, random PFD-IQA model whose scores differ between pictures."""
    import torch

    from pfd_iqa_hf import PfdIqaForImageQualityAssessment, PfdIqaImageProcessor

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = PfdIqaForImageQualityAssessment(_tiny_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Zero-initialised layers would make whole boxes idle, and scores nearly equal.
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    PfdIqaImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_checkpoint: Path) -> Any:
    """The pipeline with the tiny checkpoint."""
    from pfd_iqa_hf.scoring.folder import load_pipeline

    return load_pipeline(str(tiny_checkpoint), device="cpu")


@pytest.fixture
def two_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with `8.png` and `9.png`, squares of so many pixels."""
    for side in (8, 9):
        (tmp_path / f"{side}.png").write_bytes(png_bytes(side))
    monkeypatch.chdir(tmp_path)
    return tmp_path
