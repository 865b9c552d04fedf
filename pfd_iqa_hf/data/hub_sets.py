"""Datasets of the library `datasets`: from the Hub or a folder, with pictures in their cells.

Embedded pictures are written out once, byte by byte as they are, under the hash of their content:
everything after that works on files, whatever the dataset was.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pfd_iqa_hf.data.columns import COLUMNS, Columns, stated_row
from pfd_iqa_hf.data.rows import SPLIT_NAMES, StatedRow
from pfd_iqa_hf.data.table import DatasetError, Problem
from pfd_iqa_hf.data.table_files import Cells

__all__ = ["datasets_rows", "stored_picture"]

_SIGNATURES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def datasets_rows(
    dataset: str,
    names: Columns,
    split: str | None = None,
    streaming: bool = False,
    cache_dir: Path | None = None,
) -> tuple[str, list[StatedRow]]:
    """The rows of a Hub dataset, of a folder of parquet files, or of one that `datasets` saved.

    Args:
        dataset: Hub id or folder.
        names: which column is which.
        split: only this split, else all.
        streaming: see `load_ratings`.
        cache_dir: see `load_ratings`.

    Returns:
        The dataset's name and its rows.

    Raises:
        DatasetError: no such dataset or split, no connection, or a missing column.
        ImportError: the library `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        what = f"{dataset}: this kind of dataset needs the library datasets"
        raise ImportError(f"{what}: pip install pfd-iqa-hf[train]") from error
    is_folder = Path(dataset).is_dir()
    name = Path(dataset).resolve().name if is_folder else dataset
    try:
        loaded: Any
        if is_folder and any(
            (Path(dataset) / mark).is_file() for mark in ("dataset_dict.json", "state.json")
        ):
            loaded = datasets.load_from_disk(dataset)
        else:
            loaded = datasets.load_dataset(dataset, streaming=streaming)
    # Of the Hub, the network, the file system, the formats: all say the same to the user.
    except Exception as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        what = f"the library datasets cannot load it ({type(error).__name__}: {first})"
        if is_folder:
            remedy = "write the folder again, or give a table of paths and scores"
        else:
            remedy = "check the name, the connection and `hf auth login`, or give a file"
        raise DatasetError(name, [Problem(dataset, what, remedy)]) from error
    parts: dict[str, Any] = dict(loaded) if isinstance(loaded, Mapping) else {"": loaded}
    if split is not None:
        if split not in parts:
            what = f"it has no split {split!r} (splits: {', '.join(parts)})"
            raise DatasetError(name, [Problem(dataset, what, "name a split that it has")])
        parts = {split: parts[split]}
    rows: list[StatedRow] = []
    for part, content in parts.items():
        # The only split is called "train" whatever it is; a second one makes it a statement.
        stated = part if len(parts) > 1 or split is not None else ""
        stated = stated if stated.casefold() in SPLIT_NAMES else ""
        place = f"{name}, split {part}" if part else name
        rows += _part_rows(content, place, name, names, stated or None, cache_dir)
    return name, _with_unique_keys(rows)


def stored_picture(
    cell: Mapping[str, Any], cache_dir: Path | None, where: str
) -> dict[str, object]:
    """Write an embedded picture out, unless it is there; the fields of its `StatedRow`.

    Args:
        cell: "bytes" and "path", one of which may be None.
        cache_dir: where to write; below Hugging Face's cache if None.
        where: the row's place, for the message.

    Raises:
        DatasetError: the folder cannot be written.
    """
    content, path = cell.get("bytes"), cell.get("path")
    if content is None:
        if path and os.path.exists(path):
            return {"image": Path(path), "name": str(path)}
        content = _remote_bytes(path) if path and "://" in path else None
        if content is None:
            trouble = f"picture {path} is missing" if path else "there is no picture"
            return {"image": None, "name": path or "", "trouble": trouble}
    name = str(path).rpartition("::")[2] if path else ""
    suffix = Path(name).suffix.lower() or next(
        (suffix for mark, suffix in _SIGNATURES.items() if content.startswith(mark)), ".img"
    )
    if cache_dir is None:
        from huggingface_hub.constants import HF_HOME

        cache_dir = Path(HF_HOME) / "pfd_iqa" / "pictures"
    digest = hashlib.sha256(content).hexdigest()
    file = cache_dir / digest[:2] / f"{digest}{suffix}"
    if not file.is_file():
        beside = file.with_name(f"{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
            os.replace(beside, file)
        except OSError as error:
            beside.unlink(missing_ok=True)
            what = f"{file} cannot be written ({error.strerror})"
            remedy = "free some space, or set HF_HOME to a folder that can be written"
            raise DatasetError("cache of pictures", [Problem(where, what, remedy)]) from error
    return {"image": file, "name": name or where, "key": name or None}


def _part_rows(
    content: Any, place: str, source: str, names: Columns, split: str | None, cache_dir: Path | None
) -> Iterator[StatedRow]:
    import datasets

    features = content.features or {}
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    for name in pictures:
        content = content.cast_column(name, datasets.Image(decode=False))
    if (
        len(pictures) == 1
        and "image" not in names.given
        and not any(column in features for column in COLUMNS["image"])
    ):
        names = Columns({**names.given, "image": pictures[0]})
    labels = {n: kind for n, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    found: dict[str, str] = {}
    for number, row in enumerate(content, start=1):
        where = f"{place}, row {number}"
        for name, kind in labels.items():
            if row[name] is not None and row[name] >= 0:
                row[name] = kind.int2str(row[name])
        cells = Cells(list(row), list(row.values()))
        if not found:
            found = names.find(cells, source)
        cell = cells[found["image"]]
        if isinstance(cell, Mapping):
            fields = stored_picture(cell, cache_dir, where)
        elif cell in (None, ""):
            fields = {"image": None, "name": "", "trouble": "there is no picture"}
        else:
            base = Path(source) if Path(source).is_dir() else Path()
            fields = {"image": base / str(cell), "name": str(cell)}
        yield stated_row(where, cells, found, fields, split)


def _with_unique_keys(rows: Iterable[StatedRow]) -> list[StatedRow]:
    """Rows whose keys differ: a name that pictures share, or none, gives way to split and row."""
    rows = list(rows)
    count = Counter((row.key or "").casefold() for row in rows if row.image is not None)
    if all(name and number == 1 for name, number in count.items()):
        return rows
    return [
        replace(row, key=f"{row.where.rpartition(', ')[0]}, {number:07d} {row.key or ''}".strip())
        for number, row in enumerate(rows, start=1)
    ]


def _remote_bytes(path: str) -> bytes | None:
    """A picture of a streamed dataset, which names only where it lies."""
    from datasets.utils.file_utils import xopen

    try:
        with xopen(path, "rb") as file:
            content: bytes = file.read()
    except Exception:
        return None
    return content
