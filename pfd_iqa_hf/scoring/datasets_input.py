"""Pictures of a `datasets` dataset: `datasets:NAME[:SPLIT]`, a Hub id or a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .find import FoundPicture
from .http_fetch import fetch
from .input_options import LARGEST_FILE, InputOptions
from .remote import read_stored

__all__ = ["DATASETS_PREFIX", "dataset_pictures"]

DATASETS_PREFIX = "datasets:"
_MISSING = 'needs the datasets package: pip install "pfd-iqa-hf[train]"'


def dataset_pictures(given: str, options: InputOptions) -> Iterator[FoundPicture]:
    """Yield the pictures of all splits, or of the one named, streamed and not decoded here.

    A record's path is `datasets:NAME:SPLIT::ROW`.
    """
    name, split = _name_and_split(given)
    where = given
    try:
        for split_name, rows in _splits(name, split):
            where = f"{DATASETS_PREFIX}{name}:{split_name}"
            yield from _pictures(where, rows, options)
    except ImportError:
        yield FoundPicture(given, Path("dataset"), _MISSING)
    except Exception as error:  # whatever a loader or its network raises
        detail = " ".join(str(error).split()) or type(error).__name__
        reason = f"the dataset cannot be read ({detail[:300]}); check its name and split"
        yield FoundPicture(where, Path("dataset"), reason)


def _pictures(where: str, rows: Any, options: InputOptions) -> Iterator[FoundPicture]:
    from .tables import column_of, picture_of_cell

    column = None
    for number, row in enumerate(rows):
        column = column or column_of(list(row), options.column)
        cell = row[column]
        if hasattr(cell, "save"):  # decoded by the dataset's own code
            cell = _png(cell)
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            # The path is the dataset's own affair; the row is what names the picture.
            file = str(cell["path"])
            inside = f"{where}::{number}"
            place = Path("dataset", str(number))
            yield FoundPicture(inside, place, read=_reader(file, options), byte_count=None)
            continue
        yield picture_of_cell(cell, where, number, "", options)


def _reader(file: str, options: InputOptions) -> Any:
    """Reads a file that a row names; whoever wrote the dataset chose it."""

    def read(largest: int = LARGEST_FILE) -> bytes:
        if "http://" in file.lower() or "https://" in file.lower():
            if not options.fetch:
                raise OSError("is a web address in a dataset; give --fetch to fetch those")
            if "::" in file:
                raise OSError("is an address inside another one, which is refused; fetch it first")
            return fetch(file, options.seconds, options.allow_private, largest)
        return read_stored(file, largest)

    return read


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _name_and_split(given: str) -> tuple[str, str | None]:
    name = given[len(DATASETS_PREFIX) :]
    if not os.path.exists(name) and ":" in name:
        name, _, split = name.rpartition(":")
        return name, split
    return name, None


def _splits(name: str, split: str | None) -> Iterator[tuple[str, Any]]:
    import datasets

    if os.path.isdir(name) and _was_saved(name):
        loaded: Any = datasets.load_from_disk(name)
    else:
        loaded = datasets.load_dataset(name, streaming=True)
    if not isinstance(loaded, dict):
        loaded = {str(getattr(loaded, "split", None) or "all"): loaded}
    if split is not None and split not in loaded:
        raise ValueError(f"no split {split!r}; there are {', '.join(map(str, loaded))}")
    for key, rows in loaded.items():
        if split in (None, key):
            yield str(key), _undecoded(rows)


def _was_saved(folder: str) -> bool:
    names = ("dataset_info.json", "dataset_dict.json")
    return any(os.path.isfile(os.path.join(folder, name)) for name in names)


def _undecoded(rows: Any) -> Any:
    import datasets

    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows
