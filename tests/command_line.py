"""The command in a process of its own, and a folder of pictures for it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["COMMAND", "command_environment", "pfd_iqa", "write_photo_folder"]

COMMAND = [sys.executable, "-m", "pfd_iqa_cli"]


def command_environment() -> dict[str, str]:
    """One thread a process, and tables of a fixed width."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def pfd_iqa(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; it must not end in a traceback."""
    result = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=command_environment(),
        cwd=cwd,
        timeout=120,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def write_photo_folder(root: Path, photograph: np.ndarray) -> Path:
    """Five good pictures, two of them in a sub-folder, one broken, and things to pass over."""
    (root / "sub").mkdir()
    rng = np.random.default_rng(1)
    for index, name in enumerate(["b.png", "a.jpg", "ü.webp", "sub/a.jpg", "sub/z.PNG"]):
        noisy = photograph + rng.normal(0, 15 * index, photograph.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / name)
    (root / "broken.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("no picture either")
    (root / ".hidden.jpg").write_bytes(b"")
    return root
