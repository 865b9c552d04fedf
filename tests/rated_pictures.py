"""Generated pictures with scores that a model can learn, as a CSV, and options of tiny runs."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from pfd_iqa_hf.data.table import Rating

__all__ = ["pristine_ratings", "tiny_arguments", "write_rated_pictures"]


def write_rated_pictures(folder: Path, count: int = 40) -> Path:
    """Blurred noise, the score falling with the blur; returns the table."""
    draw = np.random.default_rng(0)
    rows = []
    (folder / "pictures").mkdir(parents=True)
    for number in range(count):
        score = float(draw.uniform(10, 95))
        coarse = Image.fromarray(draw.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        picture = coarse.resize((260, 240), Image.Resampling.BICUBIC)
        name = f"pictures/p{number:02d}.jpg"
        picture.filter(ImageFilter.GaussianBlur((95 - score) / 10)).save(folder / name)
        rows.append((name, round(score, 2)))
    with open(folder / "rated.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "mos"), *rows])
    return folder / "rated.csv"


def pristine_ratings(folder: Path) -> list[Rating]:
    """Six smooth pictures of random colours, each with a score of 80."""
    ratings = []
    for number in range(6):
        random = np.random.default_rng(number)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((96, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        ratings.append(Rating(folder / f"{number}.png", 80.0))
    return ratings


def tiny_arguments(table: Path, output: Path, model: Path | None = None, **options: Any) -> Any:
    """A run of two steps on four pictures each."""
    from pfd_iqa_hf.training.arguments import TrainArguments

    defaults: dict[str, Any] = {
        "dataset": str(table),
        "output_dir": str(output),
        "model": None if model is None else str(model),
        "max_train_steps": 2,
        "per_device_train_batch_size": 4,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "check_pictures": False,
    }
    return TrainArguments(**(defaults | options))
