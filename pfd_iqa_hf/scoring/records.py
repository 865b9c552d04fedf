"""Records, one a picture, and the files they are written to."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

__all__ = [
    "COSTS_FIELDS",
    "OWN_SCALE_FIELDS",
    "RECORD_FIELDS",
    "CsvWriter",
    "JsonLinesWriter",
    "MissingExtraError",
    "ParquetWriter",
    "RecordWriter",
    "make_record",
    "record_schema",
    "replaced_when_complete",
    "require_pyarrow",
]

Record = dict[str, Any]

RECORD_FIELDS = (
    "path",
    "score",
    "label",
    "uncertainty",
    "levels",
    "distortions",
    "unfamiliar",
    "width",
    "height",
    "error",
    "model",
    "model_sha256",
    "version",
)
# Only in records that were asked to explain themselves, after the others.
COSTS_FIELDS = ("costs",)
# Only in records that a calibration was applied to, at their end.
OWN_SCALE_FIELDS = ("own_score", "own_low", "own_high")
_NESTED = ("levels", "distortions", *COSTS_FIELDS)
_ROWS_IN_A_GROUP = 4096


class MissingExtraError(ImportError):
    """A part of the package that needs an extra which is not installed."""


class RecordWriter(Protocol):
    """Where records go, one by one."""

    def write(self, record: Record) -> None:
        """Take one record."""

    def close(self) -> None:
        """Write what is still held back; the file itself stays its owner's to close."""


def make_record(
    path: str,
    origin: Mapping[str, str],
    result: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    error: str | None = None,
    extra: Sequence[str] = (),
) -> Record:
    """Build the record of one picture.

    Args:
        path: Unique name of the picture. `archive.tar::name`, `clip.mp4::t=12.0` and
            `file.parquet::row` are reserved for pictures inside other files.
        origin: `model`, `model_sha256` and `version`.
        result: What the pipeline returned; None when the picture failed.
        size: Width and height of the upright picture, where it could be decoded.
        error: Why it failed.
        extra: Further keys of `result` to keep.

    Returns:
        A dictionary with exactly `RECORD_FIELDS` and `extra`, in that order; what is unknown is
        None.
    """
    known: dict[str, Any] = {**(result or {}), **origin, "path": path, "error": error}
    known["width"], known["height"] = size or (None, None)
    return {field: known.get(field) for field in (*RECORD_FIELDS, *extra)}


class JsonLinesWriter:
    """One JSON object a line, flushed at once so that a pipe sees it."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`, which must take any Unicode text."""
        self._stream = stream

    def write(self, record: Record) -> None:
        """Write one line."""
        self._stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class CsvWriter:
    """A header and one row a record; lists are JSON text, None is empty."""

    def __init__(self, stream: TextIO, extra: Sequence[str] = ()) -> None:
        """Write to `stream`, opened with `newline=""`; `extra` follows `RECORD_FIELDS`."""
        self._stream = stream
        fields = (*RECORD_FIELDS, *extra)
        self._writer = csv.DictWriter(stream, fields, lineterminator="\n")
        self._writer.writeheader()

    def write(self, record: Record) -> None:
        """Write one row."""
        row = dict(record)
        for field in _NESTED:
            if row.get(field) is not None:
                row[field] = json.dumps(row[field], ensure_ascii=False)
        self._writer.writerow(row)
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class ParquetWriter:
    """A Parquet file; `levels` and `distortions` are lists of {label, score}."""

    def __init__(self, path: Path, extra: Sequence[str] = ()) -> None:
        """Create the file; `extra` follows `RECORD_FIELDS`.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        require_pyarrow()
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = record_schema(extra)
        self._table = pa.Table
        self._writer = pq.ParquetWriter(str(path), self._schema)
        self._rows: list[Record] = []

    def write(self, record: Record) -> None:
        """Hold one record back until its row group is full."""
        # A file name that is no valid UTF-8 is text everywhere but here.
        text = {key: _as_utf8(value) for key, value in record.items() if isinstance(value, str)}
        self._rows.append({**record, **text})
        if len(self._rows) >= _ROWS_IN_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            # Emptied first: an interrupt while they are written must not write them twice.
            rows, self._rows = self._rows, []
            self._writer.write_table(self._table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()


def record_schema(extra: Sequence[str] = ()) -> Any:
    """The `pyarrow.Schema` of records with further fields; pyarrow must be installed."""
    import pyarrow as pa

    def pairs(number: str) -> Any:
        return pa.list_(pa.struct([("label", pa.string()), (number, pa.float64())]))

    types = {
        **dict.fromkeys(("score", "uncertainty", *OWN_SCALE_FIELDS), pa.float64()),
        **dict.fromkeys(("width", "height"), pa.int32()),
        **dict.fromkeys(("levels", "distortions"), pairs("score")),
        "unfamiliar": pa.bool_(),
        "costs": pairs("points"),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in (*RECORD_FIELDS, *extra)])


def require_pyarrow() -> None:
    """Check that Parquet can be written.

    Raises:
        MissingExtraError: pyarrow is not installed; the message names the command.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(
            'parquet needs pyarrow: pip install "pfd-iqa-hf[table]", or give --format jsonl'
        )


def _as_utf8(text: str) -> str:
    """Text that holds bytes of a file name that is no valid UTF-8, spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` when the block succeeds.

    A device or pipe is given as it is: it cannot be replaced.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    if path.exists() and not path.is_file():
        yield path  # as it was named: what /dev/stdout leads to may have no name
        return
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, target)
    except OSError as error:
        if error.filename is None or os.fspath(error.filename) == os.fspath(beside):
            if error.filename2 is not None:  # of a rename; a second name cannot be taken back
                raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
            error.filename = os.fspath(path)  # not the name beside it
        raise
    finally:
        beside.unlink(missing_ok=True)
