"""Published sets of pictures with human scores, read from the folders their authors distribute.

Every reader yields the same rows: a picture's path and its mean opinion score (MOS) on 0 to 100,
higher is better, whatever the set's own scale is.
"""

from __future__ import annotations

import csv
import hashlib
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Rating", "content_hash", "load_biq2021", "load_livec", "validation_split"]

BIQ2021_ROWS = {"train": 10_000, "test": 2_000}
LIVEC_ROWS = 1_162
_LIVEC_TRAINING_PICTURES = 7  # shown to the raters as an introduction; not part of the set


@dataclass(frozen=True)
class Rating:
    """One picture and what people said about it.

    Attributes:
        image: path of the picture.
        mos: mean opinion score, 0 to 100, higher is better.
        mos_std: standard deviation of the single opinions in the same points, where published.
        reference_id: the undistorted picture it was made from, for synthetic sets.
        distortion: the set's name of its distortion, for synthetic sets.
        level: strength of the distortion, 1 is the mildest.
        split: "train", "validation" or "test" where the set has an official split.
        group: the set's own subset.
    """

    image: Path
    mos: float
    mos_std: float | None = None
    reference_id: str | None = None
    distortion: str | None = None
    level: int | None = None
    split: str | None = None
    group: str | None = None


def load_biq2021(root: str | Path) -> list[Rating]:
    """Reads BIQ2021: 12,000 photographs of 512×512 with authentic distortions, split officially.

    Args:
        root: the folder with `Images/`, `Train (Images and MOS).csv` and
            `Test (Images and MOS).csv`, as in the repository `nisarahmedrana/BIQ2021`.

    Returns:
        The rows of the training file, then those of the test file, in file order. `split` is
        "train" or "test", `group` the subset: "ss01" own photographs, "ss02" deliberate faults,
        "ss03" photographs from Unsplash.

    Raises:
        FileNotFoundError: a folder, a table or a listed picture is missing.
        ValueError: a row cannot be read, or a picture is listed twice.
    """
    root = Path(root)
    pictures = _pictures_by_name(_required(root / "Images", "BIQ2021", "nisarahmedrana/BIQ2021"))
    ratings: list[Rating] = []
    missing: list[str] = []
    for split, name in (("train", "Train"), ("test", "Test")):
        table = _required(
            root / f"{name} (Images and MOS).csv", "BIQ2021", "nisarahmedrana/BIQ2021"
        )
        rows = _read_biq2021_table(table)
        _warn_about_count(f"BIQ2021's {split} split", BIQ2021_ROWS[split], len(rows))
        for picture_name, mos in rows:
            # The tables and the files disagree about upper and lower case.
            picture = pictures.get(picture_name.lower())
            if picture is None:
                missing.append(picture_name)
                continue
            group = picture_name.split(maxsplit=1)[0].lower()
            ratings.append(Rating(picture, 100.0 * mos, split=split, group=group))
    _raise_if_missing(missing, root / "Images", "BIQ2021")
    _raise_if_repeated(ratings, "BIQ2021")
    return ratings


def load_livec(root: str | Path) -> list[Rating]:
    """Reads LIVE In the Wild (LIVEC): 1,162 photographs of about 500×500, distorted authentically.

    The first 7 of the 1,169 entries introduced the raters to the task and are left out. There is
    no official split.

    Args:
        root: the folder `ChallengeDB_release`, or the folder that contains it.

    Returns:
        The rows in the order of the set's tables, `mos_std` included.

    Raises:
        FileNotFoundError: a folder, a table or a listed picture is missing.
        ValueError: the tables disagree in length.
        ImportError: scipy, which reads the tables, is not installed.
    """
    root = Path(root)
    if (root / "ChallengeDB_release").is_dir():
        root = root / "ChallengeDB_release"
    source = "https://live.ece.utexas.edu/research/ChallengeDB"
    tables = {
        name: _required(root / "Data" / f"{name}_release.mat", "LIVEC", source)
        for name in ("AllImages", "AllMOS", "AllStdDev")
    }
    pictures = _pictures_by_name(_required(root / "Images", "LIVEC", source))
    names = [str(np.squeeze(cell)) for cell in _read_mat(tables["AllImages"]).ravel()]
    scores = _read_mat(tables["AllMOS"]).ravel()
    deviations = _read_mat(tables["AllStdDev"]).ravel()
    if not len(names) == len(scores) == len(deviations):
        raise ValueError(
            f"{root / 'Data'}: the tables list {len(names)} pictures, {len(scores)} scores and "
            f"{len(deviations)} deviations; copy the set again"
        )
    kept = range(_LIVEC_TRAINING_PICTURES, len(names))
    _warn_about_count("LIVEC", LIVEC_ROWS, len(kept))
    ratings: list[Rating] = []
    missing: list[str] = []
    for row in kept:
        picture = pictures.get(names[row].lower())
        if picture is None:
            missing.append(names[row])
        else:
            ratings.append(Rating(picture, float(scores[row]), mos_std=float(deviations[row])))
    _raise_if_missing(missing, root / "Images", "LIVEC")
    _raise_if_repeated(ratings, "LIVEC")
    return ratings


def content_hash(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex; equal for copies under other names.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def validation_split(
    ratings: Sequence[Rating], fraction: float, seed: int
) -> tuple[list[Rating], list[Rating]]:
    """Splits off a validation part, such that no picture is on both sides.

    Pictures of one reference, and files with equal content, stay together. The result depends on
    the pictures' contents, `fraction` and `seed`, and neither on the order of the rows nor on where
    the set lies. Files are read once for their hash (some seconds for 10,000 photographs).

    Args:
        ratings: rows of a training split.
        fraction: share of the rows for validation, between 0 and 1; reached within one group.
        seed: non-negative.

    Returns:
        The training rows and the validation rows, each in the order given.

    Raises:
        ValueError: `fraction` is not between 0 and 1, or one of the sides would be empty.
        OSError: a picture cannot be read.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    keys = _group_keys(ratings)
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    groups = sorted(sizes)
    wanted = fraction * len(ratings)
    chosen: set[str] = set()
    count = 0
    for position in np.random.default_rng(seed).permutation(len(groups)):
        if count >= wanted:
            break
        chosen.add(groups[position])
        count += sizes[groups[position]]
    if count in (0, len(ratings)):
        raise ValueError(
            f"{len(ratings)} rows in {len(groups)} groups cannot be split at {fraction}: "
            "give more pictures or another fraction"
        )
    training = [rating for rating, key in zip(ratings, keys, strict=True) if key not in chosen]
    validation = [rating for rating, key in zip(ratings, keys, strict=True) if key in chosen]
    return training, validation


def _group_keys(ratings: Sequence[Rating]) -> list[str]:
    """One key a row, equal for rows that must stay together."""
    hashes = [content_hash(rating.image) for rating in ratings]
    # A reference's pictures share its key; a copy of one of them under no reference joins them.
    reference_of = {
        digest: f"reference {rating.reference_id}"
        for digest, rating in zip(hashes, ratings, strict=True)
        if rating.reference_id is not None
    }
    return [
        f"reference {rating.reference_id}"
        if rating.reference_id is not None
        else reference_of.get(digest, digest)
        for digest, rating in zip(hashes, ratings, strict=True)
    ]


def _read_biq2021_table(table: Path) -> list[tuple[str, float]]:
    """Name and MOS in [0, 1] of each row; the training table carries two empty columns more."""
    rows: list[tuple[str, float]] = []
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"Image Name", "MOS"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{table}: expected the columns 'Image Name' and 'MOS'")
        for line, row in enumerate(reader, start=2):
            try:
                mos = float(row["MOS"])
            except (TypeError, ValueError):
                mos = math.nan
            if not row["Image Name"] or not 0.0 <= mos <= 1.0:
                raise ValueError(
                    f"{table}, line {line}: expected a picture's name and a MOS between 0 and 1, "
                    f"got {row['Image Name']!r} and {row['MOS']!r}; copy the table again"
                )
            rows.append((row["Image Name"].strip(), mos))
    return rows


def _read_mat(path: Path) -> np.ndarray:
    """The array of a release table, stored under the file's own name."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("reading LIVEC needs scipy: pip install pfd-iqa-hf[train]") from error
    content: dict[str, Any] = loadmat(path)
    if path.stem not in content:
        raise ValueError(f"{path}: expected an array named {path.stem}; copy the table again")
    array: np.ndarray = content[path.stem]
    return array


def _pictures_by_name(folder: Path) -> dict[str, Path]:
    """Lower-case file name to path, for the files directly in a folder."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}


def _required(path: Path, dataset: str, source: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(
            f"{dataset}: {path} is missing; give the folder of a complete copy (from {source})"
        )
    return path


def _raise_if_missing(names: Sequence[str], folder: Path, dataset: str) -> None:
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise FileNotFoundError(
            f"{dataset}: {len(names)} listed pictures are missing in {folder}: {shown}; "
            "copy the set again"
        )


def _raise_if_repeated(ratings: Iterable[Rating], dataset: str) -> None:
    seen: set[Path] = set()
    for rating in ratings:
        if rating.image in seen:
            raise ValueError(f"{dataset}: {rating.image.name} is listed twice; copy the set again")
        seen.add(rating.image)


def _warn_about_count(what: str, expected: int, found: int) -> None:
    if found != expected:
        warnings.warn(
            f"{what} has {expected:,} rows, this copy lists {found:,}: numbers from it cannot be "
            "compared with published ones",
            stacklevel=3,
        )
