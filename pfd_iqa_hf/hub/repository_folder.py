"""A Hub repository of a checkpoint as a folder: weights, configuration, code, card, and more."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import pipeline

import pfd_iqa_hf
from pfd_iqa_hf.checkpoint import weights_sha256
from pfd_iqa_hf.hub.facts import ResultFact, load_facts, results_of_reports, write_facts
from pfd_iqa_hf.hub.model_card import Sample, make_model_card
from pfd_iqa_hf.hub.repository_check import check_repository_folder
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.registration import TASK

__all__ = ["LoadError", "build_repository_folder"]

_HANDLER = Path(__file__).with_name("handler.py")
_LICENCE_FILES = ("LICENSE", "NOTICE")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# What the code needs beside torch, which an endpoint has and must not exchange.
_REQUIREMENTS = ("diffusers", "huggingface_hub", "numpy", "pillow", "safetensors", "transformers")
# Of a checkout's examples: a clean photograph beside a degraded one says what a score is.
_SAMPLES = (
    ("photographs/cat.jpg", "a clean photograph"),
    ("degraded/cat_jpeg_4.jpg", "the same, compressed too much"),
    ("degraded/cat_blur_5.jpg", "the same, blurred"),
)
_AUTO_CLASSES: tuple[tuple[Any, str], ...] = (
    (PfdIqaConfig, "AutoConfig"),
    (PfdIqaForImageQualityAssessment, "AutoModel"),
    (PfdIqaImageProcessor, "AutoImageProcessor"),
)


class LoadError(ValueError):
    """A checkpoint that cannot be published because it cannot be loaded."""


def build_repository_folder(
    model: str | Path,
    repo_id: str,
    folder: Path,
    *,
    results: Path | None = None,
    onnx: Sequence[Path] = (),
) -> Path:
    """Write everything that a Hub repository of a checkpoint needs, and check it.

    The files load with `trust_remote_code=True` where this package is not installed. The weights
    are those of the source byte for byte, in the precision in which they were stored. The same
    arguments give the same bytes.

    Args:
        model: Folder or Hub id of the checkpoint.
        repo_id: `ORG/NAME` of the repository; the card names it.
        folder: Where to write; it must not exist or be empty. It appears complete or not at all.
        results: Folder of predictions and plots; by default the checkpoint's own `results/`.
        onnx: Files for `onnx/`; by default those in the checkpoint's own `onnx/`.

    Returns:
        `folder`.

    Raises:
        FileExistsError: `folder` holds something already, which would be published too.
        LoadError: the checkpoint cannot be loaded, or holds no safetensors file.
        FactsError: its `training_facts.json` or a report cannot be used.
        RepositoryError: what was built must not be published, such as a path of this machine.
        OSError: the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty: name a new folder")
    source = _local_folder(model)
    assess = _load(source)
    # Here and not before: what was loaded is a checkpoint, and its facts are about it.
    facts = load_facts(source)
    results = results if results is not None else _found(source / "results")
    onnx = onnx or sorted((source / "onnx").glob("*.onnx"))
    measured = results_of_reports(results) if results is not None else []

    beside = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        _save(assess, beside)
        _copy_weights(source, beside)
        _copy_licence(source, beside)
        shutil.copyfile(_HANDLER, beside / _HANDLER.name)
        (beside / "requirements.txt").write_text(_requirements(), encoding="utf-8")
        if facts is not None:
            write_facts(beside, facts)
        _copy_onnx(onnx, beside / "onnx")
        if results is not None:
            _copy_tree(results, beside / "results")
        if (source / "training.png").is_file():
            (beside / "results").mkdir(exist_ok=True)
            shutil.copyfile(source / "training.png", beside / "results" / "training.png")
        samples = _copy_samples(assess, beside)
        card = make_model_card(
            repo_id,
            assess.model.config,
            facts,
            weights_sha256(source),
            results=_shown(measured),
            samples=samples,
            has_results=(beside / "results").is_dir(),
            onnx=[file.name for file in onnx],
        )
        card.save(beside / "README.md")
        check_repository_folder(beside, (source.resolve(), folder.resolve(), beside))
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A disk that fills in the middle of a file tells no name.
        raise OSError(error.errno, error.strerror, str(beside)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _local_folder(model: str | Path) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(str(model)))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LoadError(
            f"{model}: no such folder, and the Hub does not give it: {reason}"
        ) from error


def _load(source: Path) -> Any:
    """Load it with the code that is about to be published: the weights must fit."""
    try:
        weights_sha256(source)
        # Part by part: `pipeline` itself would put whole tracebacks into its message.
        parts: dict[str, Any] = {
            "model": PfdIqaForImageQualityAssessment.from_pretrained(source),
            "image_processor": PfdIqaImageProcessor.from_pretrained(source),
        }
        return pipeline(TASK, device="cpu", **parts)  # type: ignore[call-overload]
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise LoadError(f"{source}: {' '.join(str(error).split())}") from error


def _save(assess: Any, folder: Path) -> None:
    try:
        with _code_is_saved():
            assess.save_pretrained(folder)
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{folder}: {error}") from error


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
    for pattern in _WEIGHTS:
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


def _requirements() -> str:
    """What Inference Endpoints install before they start `handler.py`."""
    lines = []
    for line in requires("pfd-iqa-hf") or []:
        name = re.split(r"[^\w-]", line)[0].lower().replace("-", "_")
        if name in _REQUIREMENTS and "extra ==" not in line:
            lines.append(line.replace(" ", ""))
    return "\n".join(sorted(lines)) + "\n"


def _copy_onnx(files: Sequence[Path], folder: Path) -> None:
    """Copy ONNX files, each with the file of its outer weights if it has one."""
    for file in files:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / file.name)
        outer = file.with_name(file.name + ".data")
        if outer.is_file():
            shutil.copyfile(outer, folder / outer.name)


def _copy_tree(source: Path, folder: Path) -> None:
    """Copy plain files; hidden ones and links stay behind."""
    for file in sorted(source.rglob("*")):
        place = file.relative_to(source)
        if any(part.startswith(".") for part in place.parts) or not file.is_file():
            continue
        if file.is_symlink():
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)


def _copy_samples(assess: Any, folder: Path) -> list[Sample]:
    """Copy and score the samples; an installation without the checkout's examples has none."""
    examples = Path(pfd_iqa_hf.__file__).resolve().parents[1] / "examples"
    samples = []
    for name, title in _SAMPLES:
        if not (examples / name).is_file():
            continue
        place = Path("samples") / Path(name).name
        (folder / "samples").mkdir(exist_ok=True)
        shutil.copyfile(examples / name, folder / place)
        result = assess(str(examples / name))
        kept = {key: result[key] for key in ("score", "label", "uncertainty", "levels")}
        samples.append(Sample(place.as_posix(), title, **kept))
    return samples


def _found(folder: Path) -> Path | None:
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def _shown(measured: list[ResultFact]) -> list[ResultFact]:
    """Results on test pictures where there are any: validation pictures chose the weights."""
    return [result for result in measured if result.split != "validation"] or measured
