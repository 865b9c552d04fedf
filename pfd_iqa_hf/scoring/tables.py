"""Pictures that a table names or holds: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .find import FoundPicture
from .input_options import InputOptions
from .records import require_pyarrow
from .remote import address_picture, is_address, may_be_listed

__all__ = ["TABLE_SUFFIXES", "column_of", "listed_picture", "picture_of_cell", "table_pictures"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
# The first that a table has is taken where --column does not say.
_USUAL = ("image", "path", "file", "file_name", "filename", "image_path", "image_name", "bytes")
_ROWS_AT_ONCE = 16
# What readers raise over damaged tables; those of pyarrow inherit from them.
_DAMAGES = (
    *(csv.Error, ImportError, LookupError, MemoryError, NotImplementedError),
    *(OSError, RecursionError, ValueError),
)


class _BrokenRow:
    """A row that cannot be read while the next one can."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def table_pictures(
    name: str, suffix: str, opened: Callable[[], BinaryIO], options: InputOptions
) -> Iterator[FoundPicture]:
    """Yield the pictures of one table; relative paths in it start at its folder.

    Args:
        name: Path or address of the table.
        suffix: One of `TABLE_SUFFIXES`.
        opened: Opens it.
        options: Which column, and whether addresses in it may be fetched.
    """
    rows = _parquet_rows if suffix == ".parquet" else _text_rows
    row = -1
    try:
        with opened() as stream:
            for row, cell in enumerate(rows(stream, suffix, options.column)):
                yield picture_of_cell(cell, name, row, os.path.dirname(name), options)
    except _DAMAGES as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        after = f" after row {row}" if row >= 0 else ""
        yield FoundPicture(name, _place(name), f"the table cannot be read{after} ({detail})")


def picture_of_cell(
    cell: Any, name: str, row: int, folder: str, options: InputOptions
) -> FoundPicture:
    """The picture that one cell names or holds: a path, bytes, or {"bytes", "path"}."""
    inside = f"{name}::{row}"
    if isinstance(cell, _BrokenRow):
        return FoundPicture(inside, _place(name), f"{cell.reason}; correct it")
    if isinstance(cell, dict):  # how datasets stores pictures
        cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray, memoryview)):
        data = bytes(cell)
        place = Path(_place(name).name, str(row))
        return FoundPicture(inside, place, read=lambda: data, byte_count=len(data))
    if isinstance(cell, str) and cell:
        return listed_picture(cell, folder, options)
    reason = (
        "the row names no picture" if cell in (None, "") else "the cell is neither text nor bytes"
    )
    return FoundPicture(inside, _place(name), f"{reason}; give --column")


def listed_picture(path: str, folder: str, options: InputOptions) -> FoundPicture:
    """A picture that a list names: a file, or an address if those may be fetched."""
    if is_address(path) and not os.path.lexists(path):
        if not options.fetch:
            reason = "is an address in a list, which is not fetched unless --fetch is given"
            return FoundPicture(path, Path("address"), reason)
        if not may_be_listed(path):
            reason = "is an address that lists may not hold; name it on the command line"
            return FoundPicture(path, Path("address"), reason)
        return address_picture(path, options)
    if is_address(folder):
        whole = path if path.startswith("/") else f"{folder}/{path}"
        return address_picture(whole, options)
    if "\0" in path:
        return FoundPicture(path, Path("picture"), "the path holds a NUL byte; check the list")
    whole = os.path.join(folder, path)
    return FoundPicture(whole, Path(os.path.basename(path) or "picture"))


def column_of(names: list[str], wanted: str | None) -> str:
    """The column that holds the pictures.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    for name in (wanted,) if wanted is not None else _USUAL:
        if name in names:
            return str(name)
    missing = f"no column {wanted!r}" if wanted is not None else "no column of a usual name"
    raise ValueError(f"{missing}; give --column one of {', '.join(map(str, names[:20]))}")


def _text_rows(stream: BinaryIO, suffix: str, wanted: str | None) -> Iterator[Any]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    if suffix in (".jsonl", ".ndjson"):
        column = None
        for line in text:
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield _BrokenRow(f"the row is no JSON ({error})")
                continue
            if not isinstance(cells, dict):  # bare paths, one a line
                yield cells
                continue
            column = column or column_of(list(cells), wanted)
            yield cells.get(column)
        return
    reader = csv.DictReader(text, delimiter="\t" if suffix == ".tsv" else ",")
    column = column_of(list(reader.fieldnames or []), wanted)
    for cells in reader:
        yield cells[column]


def _parquet_rows(stream: BinaryIO, _: str, wanted: str | None) -> Iterator[Any]:
    require_pyarrow()
    import pyarrow.parquet as pq

    # By default the whole file would gather in memory.
    file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
    column = column_of(file.schema_arrow.names, wanted)
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
        yield from batch.column(0).to_pylist()


def _place(name: str) -> Path:
    return Path(os.path.basename(name) or "table")
