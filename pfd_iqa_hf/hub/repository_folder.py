"""A Hub repository of a checkpoint as a folder: weights, configuration, code, card, licence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, snapshot_download
from transformers import pipeline

from pfd_iqa_hf.checkpoint import weights_sha256
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.registration import TASK

__all__ = ["build_repository_folder"]

_CARD = Path(__file__).with_name("model_card.md")
_LICENCE_FILES = ("LICENSE", "NOTICE")
_AUTO_CLASSES: tuple[tuple[Any, str], ...] = (
    (PfdIqaConfig, "AutoConfig"),
    (PfdIqaForImageQualityAssessment, "AutoModel"),
    (PfdIqaImageProcessor, "AutoImageProcessor"),
)


def build_repository_folder(model: str | Path, repo_id: str, folder: Path) -> None:
    """Write everything that a Hub repository of a checkpoint needs.

    The files load with `trust_remote_code=True` where this package is not installed. The weights
    are those of the source byte for byte, in the precision in which they were stored.

    Args:
        model: Folder or Hub id of the checkpoint.
        repo_id: `ORG/NAME` of the repository; the card names it.
        folder: Where to write; it must not exist or be empty.

    Raises:
        FileExistsError: `folder` holds something already, which would be published too.
        FileNotFoundError: the checkpoint holds no safetensors file.
        OSError, ValueError: the checkpoint cannot be loaded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    source = Path(model) if Path(model).is_dir() else Path(snapshot_download(str(model)))
    digest = weights_sha256(source)
    # Loading checks that the weights fit the code that is about to be published with them.
    assess: Any = pipeline(TASK, model=str(source), device="cpu")  # type: ignore[call-overload]
    with _code_is_saved():
        assess.save_pretrained(folder)
    _copy_weights(source, folder)
    _copy_licence(source, folder)
    card = ModelCard.from_template(
        ModelCardData(
            license="apache-2.0",
            library_name="transformers",
            pipeline_tag="image-classification",  # the Hub has no tag for image quality
            tags=["image-quality-assessment", "no-reference-iqa", "pfd-iqa", "custom_code"],
        ),
        template_path=str(_CARD),
        repo_id=repo_id,
        weights_sha256=digest,
    )
    card.save(folder / "README.md")


@contextmanager
def _code_is_saved() -> Iterator[None]:
    """Let `save_pretrained` copy the code, within the block only.

    The mark lies on the classes. Left there, every later save in this process would copy code as
    well, and configurations would take themselves for code from a repository.
    """
    try:
        for marked, auto_class in _AUTO_CLASSES:
            marked.register_for_auto_class(auto_class)
        yield
    finally:
        for marked, _ in _AUTO_CLASSES:
            if "_auto_class" in vars(marked):
                del marked._auto_class


def _copy_weights(source: Path, folder: Path) -> None:
    for pattern in ("*.safetensors", "*.safetensors.index.json"):
        for file in folder.glob(pattern):
            file.unlink()
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _copy_licence(source: Path, folder: Path) -> None:
    """Take the checkpoint's own licence and notices, else the package's."""
    installed = {file.name: file for file in distribution("pfd-iqa-hf").files or []}
    for name in _LICENCE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
        elif name in installed:
            shutil.copyfile(str(installed[name].locate()), folder / name)
