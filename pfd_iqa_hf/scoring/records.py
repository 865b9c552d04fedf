"""Records, one a picture, and the files they are written to."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

__all__ = [
    "OWN_SCALE_FIELDS",
    "RECORD_FIELDS",
    "CsvWriter",
    "JsonLinesWriter",
    "MissingExtraError",
    "ParquetWriter",
    "RecordWriter",
    "make_record",
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
    "width",
    "height",
    "error",
    "model",
    "model_sha256",
    "version",
)
# Only in records that a calibration was applied to, after the others.
OWN_SCALE_FIELDS = ("own_score", "own_low", "own_high")
_NESTED = ("levels", "distortions")
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
) -> Record:
    """Build the record of one picture.

    Args:
        path: Unique name of the picture. `archive.tar::name`, `clip.mp4::t=12.0` and
            `file.parquet::row` are reserved for pictures inside other files.
        origin: `model`, `model_sha256` and `version`.
        result: What the pipeline returned; None when the picture failed.
        size: Width and height of the upright picture, where it could be decoded.
        error: Why it failed.

    Returns:
        A dictionary with exactly `RECORD_FIELDS`, in that order; what is unknown is None.
    """
    known: dict[str, Any] = {**(result or {}), **origin, "path": path, "error": error}
    known["width"], known["height"] = size or (None, None)
    return {field: known.get(field) for field in RECORD_FIELDS}


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
    """A header and one row a record; `levels` and `distortions` are JSON text, None is empty."""

    def __init__(self, stream: TextIO, own_scale: bool = False) -> None:
        """Write to `stream`, opened with `newline=""`; `own_scale` adds `OWN_SCALE_FIELDS`."""
        self._stream = stream
        fields = (*RECORD_FIELDS, *OWN_SCALE_FIELDS) if own_scale else RECORD_FIELDS
        self._writer = csv.DictWriter(stream, fields, lineterminator="\n")
        self._writer.writeheader()

    def write(self, record: Record) -> None:
        """Write one row."""
        row = dict(record)
        for field in _NESTED:
            if row[field] is not None:
                row[field] = json.dumps(row[field], ensure_ascii=False)
        self._writer.writerow(row)
        self._stream.flush()

    def close(self) -> None:
        """Nothing is held back."""


class ParquetWriter:
    """A Parquet file; `levels` and `distortions` are lists of {label, score}."""

    def __init__(self, path: Path, own_scale: bool = False) -> None:
        """Create the file; `own_scale` adds `OWN_SCALE_FIELDS`.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        require_pyarrow()
        import pyarrow as pa
        import pyarrow.parquet as pq

        ranked = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64())]))
        types = {
            "score": pa.float64(),
            "uncertainty": pa.float64(),
            "width": pa.int32(),
            "height": pa.int32(),
            "levels": ranked,
            "distortions": ranked,
        }
        own = [(name, pa.float64()) for name in OWN_SCALE_FIELDS] if own_scale else []
        self._schema = pa.schema(
            [*((name, types.get(name, pa.string())) for name in RECORD_FIELDS), *own]
        )
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


def require_pyarrow() -> None:
    """Check that Parquet can be written.

    Raises:
        MissingExtraError: pyarrow is not installed; the message names the command.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError('parquet needs pyarrow: pip install "pfd-iqa-hf[table]"')


def _as_utf8(text: str) -> str:
    """Text that holds bytes of a file name that is no valid UTF-8, spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` when the block succeeds.

    A device or pipe is given as it is: it cannot be replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
