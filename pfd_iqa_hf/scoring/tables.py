"""Pictures that a table names or holds: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO
from urllib.parse import quote, urljoin

from .find import FoundPicture
from .http_fetch import is_http
from .input_options import LARGEST_FILE, InputOptions
from .records import require_pyarrow
from .remote import address_picture, is_address, may_be_listed

__all__ = [
    "TABLE_SUFFIXES",
    "UTF16_MARKS",
    "column_of",
    "delimiter_of",
    "listed_picture",
    "picture_of_cell",
    "table_pictures",
]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
# The first that a table has is taken where --column does not say.
_USUAL = ("image", "path", "file", "file_name", "filename", "image_path", "image_name", "bytes")
# What a table in UTF-16 begins with, as spreadsheets save "Unicode text".
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Characters of a row of text: it can name a picture, and not hold one.
_LONGEST_ROW = 1 << 20
_LONGEST_PATH = 1 << 16
# Characters of such a row that are passed over to reach the next one.
_LONGEST_PASSED_OVER = 1 << 26
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
    name: str,
    suffix: str,
    opened: Callable[[], BinaryIO],
    options: InputOptions,
    folder: str | None = None,
) -> Iterator[FoundPicture]:
    """Yield the pictures of one table. A row that is too long costs only itself.

    Args:
        name: Path or address of the table.
        suffix: One of `TABLE_SUFFIXES`.
        opened: Opens it.
        options: Which column, and whether addresses in it may be fetched.
        folder: Path or address that relative paths in it start at; its own folder if None.
    """
    folder = os.path.dirname(name) if folder is None else folder
    rows = _parquet_rows if suffix == ".parquet" else _text_rows
    row = -1
    try:
        with opened() as stream:
            for row, cell in enumerate(rows(stream, suffix, options.column)):
                yield picture_of_cell(cell, name, row, folder, options)
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
    largest = _LONGEST_PATH if isinstance(cell, str) else LARGEST_FILE
    if isinstance(cell, (str, bytes, bytearray, memoryview)) and len(cell) > largest:
        unit = "characters of a path" if isinstance(cell, str) else "bytes"
        reason = f"holds {len(cell):,} {unit}, over the limit of {largest:,}; correct it"
        return FoundPicture(inside, _place(name), reason)
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
        if "::" in path:
            reason = "leads out of the table's folder, which is refused; name it as an input"
            return FoundPicture(path, Path("address"), reason)
        if is_http(folder):
            return address_picture(_on_the_same_host(folder, path), options)
        whole = path if path.startswith("/") else f"{folder}/{path}"
        return address_picture(whole, options)
    if "\0" in path:
        return FoundPicture(path, Path("picture"), "the path holds a NUL byte; check the list")
    whole = os.path.join(folder, path)
    if not _is_unicode(path) and not os.path.lexists(whole):
        # Bytes that are no UTF-8 and no file's name: as spreadsheets on Windows write them.
        try:
            text = path.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        except UnicodeEncodeError:  # half a character, which JSON can spell
            shown = path.encode("utf-8", "backslashreplace").decode()
            reason = "the path holds half of a character; check the list"
            return FoundPicture(os.path.join(folder, shown), Path("picture"), reason)
        whole = os.path.join(folder, text)
    return FoundPicture(whole, Path(os.path.basename(whole) or "picture"))


def _is_unicode(path: str) -> bool:
    """Whether a path holds no escaped bytes."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _on_the_same_host(folder: str, path: str) -> str:
    # What is quoted already, and a query, stay as they are.
    quoted = quote(path, safe="/%?=&+,;:@!$'()*~", errors="surrogateescape")
    if path.startswith("/"):
        return urljoin(folder, f"/{quoted.lstrip('/')}")
    return f"{folder}/{quoted}"


def column_of(names: list[str], wanted: str | None) -> str:
    """The column that holds the pictures.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    for name in (wanted,) if wanted is not None else _USUAL:
        count = names.count(str(name))
        if count > 1:
            raise ValueError(f"{count} columns are called {name!r}; rename one")
        if name in names:
            return str(name)
    if not names:
        raise ValueError("it has no columns: the first row must name them")
    missing = f"no column {wanted!r}" if wanted is not None else "no column of a usual name"
    raise ValueError(f"{missing}; give --column one of {', '.join(map(str, names[:20]))}")


def delimiter_of(header: str) -> str:
    """Comma, semicolon or tab: what a CSV file's header has most of; of none, any will do."""
    return max((",", ";", "\t"), key=header.count)


class _Lines:
    """The lines of a text, none of them long.

    Attributes:
        held: Characters of the lines that were given since it was set to 0.
        is_cut: Whether a line was too long since it was set to False; a short one stands for it.
    """

    def __init__(self, text: TextIO) -> None:
        self.held = 0
        self.is_cut = False
        self._text = text

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_LONGEST_ROW)
        if not line:
            raise StopIteration
        if len(line) == _LONGEST_ROW and not _is_whole(line):
            self._pass_over()
            self.is_cut = True
            line = "?\n"
        self.held += len(line)
        if self.held > _LONGEST_ROW:  # lines of one row, between quotes
            raise ValueError(f"a row has more than the limit of {_LONGEST_ROW:,} characters")
        return line

    def _pass_over(self) -> None:
        passed = _LONGEST_ROW
        while (rest := self._text.readline(_LONGEST_ROW)) and not _is_whole(rest):
            passed += len(rest)
            if passed > _LONGEST_PASSED_OVER:
                raise ValueError(f"a row has more than {passed:,} characters; is it a table?")


def _is_whole(line: str) -> bool:
    return line.endswith(("\n", "\r"))


_TOO_LONG = f"the row has more than the limit of {_LONGEST_ROW:,} characters"


def _text_rows(stream: BinaryIO, suffix: str, wanted: str | None) -> Iterator[Any]:
    text = io.TextIOWrapper(
        stream, encoding=_encoding(stream), errors="surrogateescape", newline=""
    )
    lines = _Lines(text)
    if suffix in (".jsonl", ".ndjson"):
        yield from _json_rows(lines, wanted)
    else:
        yield from _csv_rows(lines, suffix, wanted)


def _encoding(stream: BinaryIO) -> str:
    """UTF-8, or UTF-16 by its first bytes."""
    head = b""
    peek: Any = getattr(stream, "peek", None)
    if peek is not None:
        head = peek(2)
    elif stream.seekable():
        head = stream.read(2)
        stream.seek(0)
    return "utf-16" if head.startswith(UTF16_MARKS) else "utf-8-sig"


def _json_rows(lines: _Lines, wanted: str | None) -> Iterator[Any]:
    column = None
    for line in lines:
        lines.held = 0
        if lines.is_cut:
            lines.is_cut = False
            yield _BrokenRow(_TOO_LONG)
            continue
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


def _csv_rows(lines: _Lines, suffix: str, wanted: str | None) -> Iterator[Any]:
    header = next(lines, "")
    delimiter = "\t" if suffix == ".tsv" else delimiter_of(header)
    reader = csv.DictReader(itertools.chain([header], lines), delimiter=delimiter)
    names = list(reader.fieldnames or [])
    if lines.is_cut:
        raise ValueError(f"its first row has more than the limit of {_LONGEST_ROW:,} characters")
    column = column_of(names, wanted)
    while True:
        lines.held = 0
        lines.is_cut = False
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a cell that is too long, for one; the next line is another row
            yield _BrokenRow(f"the row is no CSV ({error})")
            continue
        yield _BrokenRow(_TOO_LONG) if lines.is_cut else cells[column]


def _parquet_rows(stream: BinaryIO, _: str, wanted: str | None) -> Iterator[Any]:
    require_pyarrow()
    import pyarrow.parquet as pq

    # By default the whole file would gather in memory.
    file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
    column = column_of(file.schema_arrow.names, wanted)
    for number in range(file.metadata.num_row_groups):
        _check_row_size(file.metadata.row_group(number), number, column)
        # Row by row, in 10 microseconds: one value may stand for many rows, however large it is.
        for batch in file.iter_batches(batch_size=1, row_groups=[number], columns=[column]):
            yield from batch.column(0).to_pylist()


def _check_row_size(group: Any, number: int, column: str) -> None:
    chunks = [group.column(index) for index in range(group.num_columns)]
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}.")
    )
    if size > max(group.num_rows, 1) * LARGEST_FILE:
        raise ValueError(
            f"row group {number} has {size:,} bytes in {group.num_rows:,} rows, over the limit of "
            f"{LARGEST_FILE:,} a row"
        )


def _place(name: str) -> Path:
    return Path(os.path.basename(name) or "table")
