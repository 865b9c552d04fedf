"""The ways to score a picture that `run.py` measures: this package's, and what people use instead.

Every loader takes the folder of files and the model's name, and returns a function of a path. Peers
run in an environment of their own, from public packages and repositories; the networks of pyiqa
have random weights, so only their time and memory mean anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["OWN", "PEERS", "WAYS", "Score"]

Score = Callable[[str], float]
Loader = Callable[[Path, str | None], Score]

_PYIQA = ("topiq_nr", "musiq", "dbcnn", "nima", "clipiqa", "liqe", "hyperiqa")


def _torch(quality: str | None = None, steps: int | None = None) -> Loader:
    def load(_: Path, model: str | None) -> Score:
        import torch

        from pfd_iqa_hf.scoring.find import FoundPicture
        from pfd_iqa_hf.scoring.folder import FolderScorer
        from pfd_iqa_hf.scoring.quality import quality_settings

        views, dtype = None, torch.float32
        if quality is not None:
            settings = quality_settings(quality, "cpu")
            views, dtype = settings.views, settings.dtype
        scorer = FolderScorer(model, "cpu", dtype, 1, views)
        if steps is not None:
            scorer.pipeline.model.config.num_inference_steps = steps
        return lambda path: float(
            next(iter(scorer.score([FoundPicture(path, Path(path))])))["score"]
        )

    return load


def _onnx(precision: str, views: str | None = None) -> Loader:
    def load(files: Path, _: str | None) -> Score:
        from pfd_iqa_onnx.scorer import OnnxScorer

        scorer = OnnxScorer(files / f"{precision}.onnx", threads=_threads(), view_strategy=views)
        return lambda path: float(scorer.assess(path)["score"])

    return load


def _threads() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _pyiqa(name: str) -> Loader:
    def load(_: Path, __: str | None) -> Score:
        _declare_torchvision()
        import torch

        pyiqa = importlib.import_module("pyiqa")
        _download_nothing()
        network = pyiqa.create_metric(name, device="cpu", pretrained=False)

        def score(path: str) -> float:
            with torch.inference_mode():
                return float(network(path))

        return score

    return load


# Arguments of pyiqa's CLIP: embedding, side, layers, width and patch of the vision tower; context,
# vocabulary, width, heads and layers of the text tower.
_CLIP = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
}


def _download_nothing() -> None:
    """Let pyiqa build its networks as they are initialised, backbones too."""
    cache = importlib.import_module("pyiqa.utils.download_util").DEFAULT_CACHE_DIR
    Path(cache).mkdir(parents=True, exist_ok=True)  # LIQE stores embeddings of its prompts
    timm: Any = importlib.import_module("timm")
    create = timm.create_model
    timm.create_model = lambda *names, **options: create(*names, **options | {"pretrained": False})
    models: Any = importlib.import_module("torchvision.models")
    vgg16 = models.vgg16
    models.vgg16 = lambda **_: vgg16()
    clip = importlib.import_module("pyiqa.archs.clip_model")

    def random_clip(backbone: str, *_: object, **__: object) -> Any:
        return clip.CLIP(*_CLIP[backbone]).eval()

    for architecture in ("clipiqa", "liqe", "dbcnn"):
        module = importlib.import_module(f"pyiqa.archs.{architecture}_arch")
        module.load = random_clip  # type: ignore[attr-defined]
        module.load_pretrained_network = lambda *_, **__: None  # type: ignore[attr-defined]


def _declare_torchvision() -> None:
    """Declare torchvision's operators: without its C++ part it cannot be imported otherwise."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", "roi_align", "qroi_align", "ps_roi_align", "roi_pool"):
        library.define(f"{name}(Tensor a) -> Tensor")
    for name in ("ps_roi_pool", "deform_conv2d"):
        library.define(f"{name}(Tensor a) -> Tensor")
    for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
        library.define(f"_{name}_backward(Tensor a) -> Tensor")
    _KEPT.append(library)  # its declarations go with it


_KEPT: list[Any] = []


def _brisque_opencv(sources: Path, _: str | None) -> Score:
    import cv2

    folder = sources / "opencv_contrib" / "modules" / "quality" / "samples"
    files = [str(folder / f"brisque_{what}_live.yml") for what in ("model", "range")]
    quality: Any = cv2.quality
    return lambda path: float(quality.QualityBRISQUE_compute(cv2.imread(path), *files)[0])


def _brisque(_: Path, __: str | None) -> Score:
    import numpy as np
    from PIL import Image

    scorer = importlib.import_module("brisque").BRISQUE(url=False)
    return lambda path: float(scorer.score(np.asarray(Image.open(path).convert("RGB"))))


def _piqe(_: Path, __: str | None) -> Score:
    import cv2

    piqe = importlib.import_module("pypiqe").piqe
    return lambda path: float(piqe(cv2.imread(path))[0])


def _niqe(sources: Path, _: str | None) -> Score:
    import cv2

    folder = sources / "BasicSR" / "basicsr"
    # Its package imports training code at the top; empty packages with its folders do not.
    for name in ("basicsr", "basicsr.metrics", "basicsr.utils"):
        module = types.ModuleType(name)
        module.__path__ = [str(folder.parent / name.replace(".", "/"))]
        sys.modules[name] = module
    color = importlib.import_module("basicsr.utils.color_util")
    sys.modules["basicsr.utils"].bgr2ycbcr = color.bgr2ycbcr  # type: ignore[attr-defined]
    niqe = importlib.import_module("basicsr.metrics.niqe").calculate_niqe
    return lambda path: float(niqe(cv2.imread(path), crop_border=0))


def _cnniqa(sources: Path, _: str | None) -> Score:
    _declare_torchvision()
    import torch
    from PIL import Image

    sys.path.insert(0, str(sources / "CNNIQA"))
    code = importlib.import_module("test_demo")
    network = code.CNNIQAnet()
    network.load_state_dict(torch.load(sources / "CNNIQA" / "models" / "CNNIQA-LIVE", "cpu"))
    network.eval()

    def score(path: str) -> float:
        with torch.inference_mode():
            patches = code.NonOverlappingCropPatches(Image.open(path).convert("L"), 32, 32)
            return float(network(torch.stack(list(patches))).mean())

    return score


OWN: dict[str, Loader] = {
    "pfd-iqa": _torch(),
    "pfd-iqa --quality standard": _torch("standard"),
    "pfd-iqa --quality fast": _torch("fast"),
    "pfd-iqa, onnx fp32": _onnx("fp32"),
    "pfd-iqa, onnx int8": _onnx("int8"),
    "pfd-iqa --quality standard, onnx fp32": _onnx("fp32", "standard"),
    "pfd-iqa --quality standard, onnx int8": _onnx("int8", "standard"),
    "pfd-iqa --quality fast, onnx fp32": _onnx("fp32", "fast"),
    "pfd-iqa --quality fast, onnx int8": _onnx("int8", "fast"),
    "pfd-iqa, 1 step": _torch(steps=1),
    "pfd-iqa, 10 steps": _torch(steps=10),
}
"""Ways of this package, run by the interpreter that runs the benchmark."""

PEERS: dict[str, Loader] = {
    "BRISQUE (OpenCV)": _brisque_opencv,
    "BRISQUE (brisque)": _brisque,
    "NIQE (BasicSR)": _niqe,
    "PIQE (pypiqe)": _piqe,
    "CNNIQA": _cnniqa,
    **{f"{name} (pyiqa)": _pyiqa(name) for name in _PYIQA},
}
"""Ways of others, run by the interpreter of `--peer-python`."""

WAYS = OWN | PEERS
