"""Uploaded files: a folder of their own that is swept and removed, and how they are read."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pfd_iqa_hf.modeling.picture_reading import PictureError

__all__ = [
    "holds_address",
    "private_cache",
    "read_upload",
    "stored_bytes",
    "sweep",
    "swept_regularly",
]

_CACHE_VARIABLE = "GRADIO_TEMP_DIR"
_LONGEST_NAME = 120
_DEEPEST = 20


@contextlib.contextmanager
def private_cache() -> Iterator[Path]:
    """Give a new folder that is gradio's upload cache inside the block, and remove it after."""
    before = os.environ.get(_CACHE_VARIABLE)
    # Resolved, because gradio compares real paths.
    folder = Path(tempfile.mkdtemp(prefix="pfd-iqa-demo-")).resolve()
    os.environ[_CACHE_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop(_CACHE_VARIABLE, None)
        else:
            os.environ[_CACHE_VARIABLE] = before
        shutil.rmtree(folder, ignore_errors=True)


def stored_bytes(folder: Path) -> int:
    """Size of all files in `folder`; those that go meanwhile count nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def sweep(folder: Path, seconds: float) -> int:
    """Delete the files in `folder` that are older, and folders that have been empty as long.

    Gradio's own `delete_cache` keeps the folders, and the files of uploads that broke off.

    Returns:
        How many files were deleted.
    """
    oldest = time.time() - seconds
    deleted = 0
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                path = os.path.join(place, name)
                # Not the time of writing: the same file that is sent again is only renamed.
                if os.lstat(path).st_ctime <= oldest:
                    os.unlink(path)
                    deleted += 1
        for name in folders:
            with contextlib.suppress(OSError):  # not empty
                path = os.path.join(place, name)
                if os.lstat(path).st_mtime <= oldest:
                    os.rmdir(path)
    return deleted


@contextlib.contextmanager
def swept_regularly(folder: Path, seconds: float, after: Callable[[], None]) -> Iterator[None]:
    """Sweep `folder` inside the block, four times in `seconds`, and call `after` each time."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds / 4):
            sweep(folder, seconds)
            after()

    thread = threading.Thread(target=work, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_upload(file: Mapping[str, Any], max_bytes: int) -> tuple[bytes, str]:
    """The bytes of an uploaded file, and the name that its sender gave it.

    Args:
        file: As gradio hands it over unprocessed: `path` in the cache, `orig_name`. Gradio has
            checked that `path` lies in the cache.
        max_bytes: Largest size.

    Raises:
        PictureError: it is larger, or has been deleted meanwhile.
    """
    path = str(file["path"])
    name = Path(str(file.get("orig_name") or path)).name
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}…"
    try:
        with open(path, "rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError:
        raise PictureError(name, "is no longer in the upload cache", "send it again") from None
    if len(data) > max_bytes:
        raise PictureError(
            name, f"is larger than the limit of {max_bytes:,} bytes", "send a smaller file"
        )
    return data, name


def holds_address(value: Any, depth: int = 0) -> bool:
    """Whether gradio would download a part of a call's data instead of taking a sent file."""
    if depth > _DEEPEST:
        return True  # no call of ours is that deep
    if isinstance(value, Mapping):
        path = value.get("path")
        if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
            return True
        return any(holds_address(part, depth + 1) for part in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds_address(part, depth + 1) for part in value)
    return False
