"""Pictures of a `datasets` dataset: `datasets:NAME[:SPLIT]`, a Hub id or a folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .find import FoundPicture
from .http_fetch import fetch, is_http
from .input_options import InputOptions
from .remote import is_address, read_stored

__all__ = ["DATASETS_PREFIX", "dataset_pictures"]

DATASETS_PREFIX = "datasets:"
# What opens a file inside the one that follows it in a chain, and reaches nothing else.
_PACKINGS = ("zip://", "tar://", "gzip://", "bz2://", "xz://", "zstd://", "lz4://")
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
            yield from _pictures(where, rows, _own_folders(name), options)
    except ImportError:
        yield FoundPicture(given, Path("dataset"), _MISSING)
    except Exception as error:  # whatever a loader or its network raises
        detail = " ".join(str(error).split()) or type(error).__name__
        reason = f"the dataset cannot be read ({detail[:300]}); check its name and split"
        yield FoundPicture(where, Path("dataset"), reason)


def _pictures(
    where: str, rows: Any, folders: Sequence[str], options: InputOptions
) -> Iterator[FoundPicture]:
    from .tables import column_of, picture_of_cell

    column = None
    for number, row in enumerate(_undecoded(rows, options.column)):
        column = column or column_of(list(row), options.column)
        cell = row[column]
        if hasattr(cell, "save"):  # decoded by the dataset's own code
            cell = _png(cell)
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            # The path is the dataset's own affair; the row is what names the picture.
            yield _named(str(cell["path"]), f"{where}::{number}", number, folders, options)
            continue
        yield picture_of_cell(cell, where, number, "", options)


def _named(
    file: str, inside: str, number: int, folders: Sequence[str], options: InputOptions
) -> FoundPicture:
    place = Path("dataset", str(number))
    try:
        return FoundPicture(inside, place, read=_reader(file, folders, options), byte_count=None)
    except ValueError as error:
        return FoundPicture(inside, place, f"names {_shortened(file)}, which {error}")


def _reader(file: str, folders: Sequence[str], options: InputOptions) -> Any:
    """What reads a file that a row names: whoever wrote the dataset chose it, and the protocol.

    Raises:
        ValueError: it is not read; says why, and what to do.
    """
    *packings, last = file.split("::")
    if is_http(last):
        if packings:
            raise ValueError("is an address inside another one and refused; fetch it first")
        if not options.fetch:
            raise ValueError("is a web address in a dataset; give --fetch to fetch those")
        return partial(fetch, file, options.seconds, options.allow_private)
    if not all(packing.startswith(_PACKINGS) for packing in packings):
        raise ValueError("is an address that datasets may not hold; fetch it first")
    if not last.startswith("hf://"):
        last = _inside(last, folders)
    return partial(read_stored, "::".join([*packings, last]))


def _inside(path: str, folders: Sequence[str]) -> str:
    """The absolute path of a file in one of the folders; no `..` is left in it."""
    path = path.removeprefix("file://")
    if is_address(path):
        raise ValueError("is an address that datasets may not hold; fetch it first")
    whole = os.path.abspath(path)
    if not any(whole.startswith(os.path.join(folder, "")) for folder in folders):
        raise ValueError("lies outside of the dataset and is refused; list such files in a table")
    return whole


def _own_folders(name: str) -> list[str]:
    """Where the files of a dataset may lie: its own folder, and where `datasets` downloads to."""
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    own = [name, os.path.realpath(name)] if os.path.isdir(name) else []
    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return [os.path.abspath(folder) for folder in (*own, *caches)]


def _shortened(file: str) -> str:
    return file if len(file) <= 300 else f"{file[:300]}..."


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
            yield str(key), rows


def _was_saved(folder: str) -> bool:
    names = ("dataset_info.json", "dataset_dict.json")
    return any(os.path.isfile(os.path.join(folder, name)) for name in names)


def _undecoded(rows: Any, wanted: str | None) -> Any:
    """Only the column of pictures, undecoded: to decode any, `datasets` fetches what they name."""
    import datasets
    from datasets.features.features import require_decoding

    from .tables import column_of

    if not rows.features:  # nothing is known, so nothing is decoded
        return rows
    column = column_of(list(rows.features), wanted)
    rows = rows.select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    if require_decoding(rows.features[column]):
        raise ValueError(f"the column {column!r} holds other things than pictures; give --column")
    return rows
