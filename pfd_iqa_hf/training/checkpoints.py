"""Checkpoints of a run: complete or absent, found again after a kill, and room for them checked.

A checkpoint is written into a folder whose name ends in `.part`, which is renamed when everything
in it has reached the disk.  Whatever moment a run is killed at, the newest folder without that
ending is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

__all__ = [
    "check_room",
    "checkpoint_folders",
    "checkpoint_name",
    "checkpoint_step",
    "find_checkpoint",
    "load_tensors",
    "prune_checkpoints",
    "read_json",
    "save_tensors",
    "write_folder",
    "write_text",
]

_NAME = re.compile(r"(?P<stage>[a-z]+)-(?P<step>\d{7})")


def checkpoint_name(stage: str, step: int) -> str:
    """Name of a checkpoint's folder; names sort as the steps do."""
    return f"{stage}-{step:07d}"


def checkpoint_step(folder: Path) -> int:
    """The step after which a checkpoint was written.

    Raises:
        ValueError: the folder's name is not that of a checkpoint.
    """
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is no checkpoint; its name should be like student-0000100")
    return int(match["step"])


def checkpoint_folders(parent: Path, stage: str) -> list[Path]:
    """Complete checkpoints of a stage, oldest first."""
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.name.startswith(f"{stage}-"))


def find_checkpoint(parent: Path, stage: str) -> Path | None:
    """The newest complete checkpoint of a stage; leftovers of a killed save are removed."""
    if parent.is_dir():
        for leftover in parent.glob("*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
    folders = checkpoint_folders(parent, stage)
    return folders[-1] if folders else None


def prune_checkpoints(parent: Path, stage: str, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of a stage."""
    for folder in checkpoint_folders(parent, stage)[:-keep]:
        # Renamed first: a kill in the middle must not leave half a folder under a good name.
        doomed = folder.with_name(folder.name + ".part")
        os.replace(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write a folder beside `target`, force it to the disk, then rename it.

    Args:
        target: The finished folder; an older one of that name is replaced.
        fill: Writes the content into the folder that it is given.

    Raises:
        OSError: the disk is full or may not be written to; nothing under `target` has changed.
    """
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        fill(part)
        for file in part.rglob("*"):
            if file.is_file():
                _sync(file)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if target.exists():
        old = target.with_name(f"{target.name}-{uuid.uuid4().hex[:6]}.part")
        os.replace(target, old)
        os.replace(part, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(part, target)
    _sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small file beside and rename it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    _sync(part)
    os.replace(part, path)


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the disk is full or may not be written to.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:  # which is no OSError, whatever its cause
        raise OSError(f"{path} could not be written ({error}); free some room") from error
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # safetensors makes files that nobody else may read


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        OSError: the file is missing or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is damaged ({error}); remove it and go on") from error
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def check_room(folder: Path, needed: int) -> None:
    """Make the folder, and fail now if the run could not write into it hours later.

    Args:
        folder: Where the run will write.
        needed: Bytes that it will take at most.

    Raises:
        OSError: the folder cannot be made or written to, or its disk has too little room.
    """
    probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written to ({error.strerror}); give another --output-dir"
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} has {free / 2**20:,.0f} MiB free and the run needs up to "
            f"{needed / 2**20:,.0f} MiB; free some, lower --checkpoints-total-limit, or give "
            "another --output-dir"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if path.is_file():
            what = f"{path} did not reach the disk: {error.strerror}"
            raise OSError(error.errno, what) from error
    finally:
        os.close(descriptor)
