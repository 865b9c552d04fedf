"""A folder that `pfd-iqa distort` wrote as a dataset of the Hub: its table and its card."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES

__all__ = ["write_distortions_card"]

_TEMPLATE = Path(__file__).with_name("distortions_card.md")
_COPY = re.compile(rf"(?P<picture>.+)_(?P<type>{'|'.join(DISTORTION_TYPES)})_(?P<level>[1-5])\.png")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def write_distortions_card(folder: str | Path, repo_id: str, license: str | None = None) -> Path:
    """Write `metadata.csv` and `README.md` into a folder of degraded copies.

    Args:
        folder: What `pfd-iqa distort --output-dir` wrote; files of other names are left alone.
        repo_id: `ORG/NAME` that the dataset will have.
        license: Of the pictures, as the Hub writes it, such as "cc0-1.0".

    Returns:
        The card.

    Raises:
        ValueError: the folder holds no degraded copy.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    rows = []
    for file in sorted(folder.rglob("*.png")):
        if found := _COPY.fullmatch(file.name):
            place = file.relative_to(folder)
            picture = (place.parent / found["picture"]).as_posix()
            rows.append((place.as_posix(), picture, found["type"], int(found["level"])))
    if not rows:
        raise ValueError(
            f"{folder} holds no copies such as cat_jpeg_3.png; make them with `pfd-iqa distort "
            "PICTURES --output-dir FOLDER`"
        )
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file_name", "reference_id", "distortion", "level"))
        writer.writerows(rows)
    counts = Counter(row[2] for row in rows)
    card = DatasetCard.from_template(
        DatasetCardData(
            license=license or "other",
            pretty_name=repo_id.split("/")[-1],
            task_categories=["image-classification"],
            size_categories=[next((name for most, name in _SIZES if len(rows) < most), "n>1M")],
            tags=["image-quality-assessment", "synthetic-distortions", "pfd-iqa"],
        ),
        template_path=str(_TEMPLATE),
        title=repo_id.split("/")[-1],
        repo_id=repo_id,
        license=license,
        copies=len(rows),
        pictures=len({row[1] for row in rows}),
        types=[
            (name, DISTORTION_GROUP[name], counts[name])
            for name in DISTORTION_TYPES
            if counts[name]
        ],
    )
    card.save(folder / "README.md")
    return folder / "README.md"
