"""Tables on disk, row by row: CSV and TSV, JSON lines, Excel workbooks, parquet.

Every reader yields pairs of the row's place, for messages ("scores.csv, row 5", counted as a
spreadsheet counts: the header is row 1), and its cells.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from pfd_iqa_hf.data.table import DatasetError, Problem
from pfd_iqa_hf.scoring.tables import UTF16_MARKS, delimiter_of

__all__ = [
    "TABLE_SUFFIXES",
    "Cells",
    "TableRow",
    "read_csv",
    "read_jsonl",
    "read_parquet",
    "read_table",
    "read_xlsx",
]


class Cells(Mapping[str, object]):
    """The cells of one row by the name of their column, whatever its case; blanks around it go.

    Args:
        columns: names of the columns.
        values: their cells; what is missing at the end is None.
    """

    def __init__(self, columns: Sequence[str], values: Sequence[object]) -> None:
        self.columns = tuple(columns)
        padded = [*values, *[None] * (len(columns) - len(values))]
        # Of two columns with one name the first counts; `Columns.find` refuses those it reads.
        self._values: dict[str, object] = {}
        for column, value in zip(columns, padded, strict=False):
            self._values.setdefault(_plain(column), value)

    def count(self, column: str) -> int:
        """How many columns have this name."""
        return sum(_plain(other) == _plain(column) for other in self.columns)

    def __getitem__(self, column: str) -> object:
        """The cell of a column; text without the blanks around it."""
        value = self._values[_plain(column)]
        return value.strip() if isinstance(value, str) else value

    def __iter__(self) -> Iterator[str]:
        """Names of the columns, as the table writes them."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.columns)


TableRow: TypeAlias = tuple[str, Cells]


def read_table(path: Path) -> Iterator[TableRow]:
    """Rows of a table, whatever its kind; the file name's suffix tells it.

    Raises:
        DatasetError: the file is missing, empty, of an unknown kind or cannot be read.
        ImportError: pyarrow or openpyxl is needed and not installed.
    """
    if not path.is_file():
        raise _error(path, "there is no such file", "correct the name")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(sorted(_READERS))
        raise _error(path, f"tables of this kind are not read (only {kinds})", "save it as CSV")
    return reader(path)


def read_csv(path: Path, required: Sequence[str] = ()) -> Iterator[TableRow]:
    """Rows of a CSV or TSV file; the delimiter (comma, semicolon, tab) is taken from its header.

    UTF-8, and UTF-16 with its mark. Anything else is read as Windows-1252, which includes Latin-1,
    with a warning.

    Args:
        path: the file.
        required: columns that must be there, in any case.

    Raises:
        DatasetError: empty, binary or unreadable file, missing column, a row with more cells than
            the header.
    """
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise _error(path, "the file is empty", "give a table with a header and rows")
    delimiter = delimiter_of(first)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    header: list[str] | None = None
    try:
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if header is None:
                header = _header(path, values, required)
                continue
            where = f"{path.name}, row {reader.line_num}"
            if any(value.strip() for value in values[len(header) :]):
                raise DatasetError(
                    str(path),
                    [
                        Problem(
                            where,
                            f"{len(values)} cells under a header of {len(header)}",
                            "quote cells that contain the delimiter "
                            f"{delimiter!r}, such as numbers with a decimal comma",
                        )
                    ],
                )
            yield where, Cells(header, values[: len(header)])
    except csv.Error as error:
        remedy = "save the table as CSV again"
        raise _error(path, f"row {reader.line_num} cannot be read ({error})", remedy) from error


def read_jsonl(path: Path) -> Iterator[TableRow]:
    """Rows of a file with one JSON object a line.

    Raises:
        DatasetError: empty file, or a line that is no JSON object.
    """
    found = False
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        found = True
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            what = f"row {number} is no JSON ({error.msg})"
            raise _error(path, what, "write one JSON object a line") from error
        if not isinstance(row, dict):
            raise _error(path, f"row {number} is no JSON object", "write one JSON object a line")
        yield f"{path.name}, row {number}", Cells(list(row), list(row.values()))
    if not found:
        raise _error(path, "the file is empty", "write one JSON object a line")


def read_xlsx(
    path: Path, required: Sequence[str] = (), sheet: str | None = None
) -> Iterator[TableRow]:
    """Rows of one sheet of an Excel workbook; rows above the header are passed over.

    Args:
        path: the workbook.
        required: columns that must be there, in any case; the first row that has them all is the
            header. Without them the first row that is not empty is.
        sheet: name of the sheet, in any case; the first if None or if there is no such sheet.

    Raises:
        DatasetError: no workbook, empty sheet or missing column.
        ImportError: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs openpyxl: pip install pfd-iqa-hf[train]"
        ) from error
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    # openpyxl lets errors of zip, XML and its own parts through.
    except Exception as error:
        what = f"it is no readable workbook ({type(error).__name__}: {error})"
        raise _error(path, what, "save it as .xlsx or CSV again") from error
    try:
        wanted = None if sheet is None else sheet.casefold()
        named = [name for name in workbook.sheetnames if name.casefold() == wanted]
        rows = workbook[named[0]] if named else workbook.worksheets[0]
        header: list[str] | None = None
        seen: list[str] = []
        for number, values in enumerate(rows.iter_rows(values_only=True), start=1):
            if all(value is None or not str(value).strip() for value in values):
                continue
            if header is None:
                seen = seen or ["" if value is None else str(value) for value in values]
                names = ["" if value is None else str(value) for value in values]
                if {_plain(name) for name in required} <= {_plain(name) for name in names}:
                    header = _header(path, names, required)
                continue
            yield f"{path.name}, row {number}", Cells(header, values[: len(header)])
        if not seen:
            raise _error(path, "the sheet is empty", "give a table with a header and rows")
        if header is None:
            _header(path, seen, required)
    finally:
        workbook.close()


def read_parquet(path: Path) -> Iterator[TableRow]:
    """Rows of a parquet file, some hundred in memory at a time.

    Raises:
        DatasetError: the file cannot be read.
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install pfd-iqa-hf[table]") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                # By columns: of two with one name a dictionary of the row would hold the last.
                columns = [column.to_pylist() for column in batch.columns]
                for row in zip(*columns, strict=True):
                    number += 1
                    yield f"{path.name}, row {number}", Cells(batch.schema.names, row)
    except (pyarrow.ArrowException, OSError) as error:
        raise _error(path, f"it is no readable parquet file ({error})", "write it again") from error


_READERS = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
    ".xlsm": read_xlsx,
}

TABLE_SUFFIXES: tuple[str, ...] = tuple(_READERS)
"""What the name of a table ends with."""


def _plain(column: str) -> str:
    return column.strip().casefold()


def _error(path: Path, what: str, remedy: str) -> DatasetError:
    return DatasetError(path.name, [Problem(str(path), what, remedy)])


def _header(path: Path, names: Sequence[str], required: Sequence[str]) -> list[str]:
    """The names of the columns, checked."""
    header = [name.strip() for name in names]
    plain = [_plain(name) for name in header]
    for name in required:
        count = plain.count(_plain(name))
        if count != 1:
            what = f"the column {name!r} is missing" if not count else f"two columns {name!r}"
            found = ", ".join(repr(column) for column in header if column)
            raise _error(path, f"{what} (found: {found})", "correct the header")
    return header


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _error(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    if content.startswith(UTF16_MARKS):
        return content.decode("utf-16", "replace")
    if b"\0" in content[:4096]:
        raise _error(path, "it is no text file", "save the table as CSV again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        warnings.warn(
            f"{path}: row {row} is not UTF-8, the table is read as Windows-1252 (Latin-1); save it "
            "as UTF-8 if names come out wrong",
            stacklevel=4,
        )
        return content.decode("cp1252", "replace")
