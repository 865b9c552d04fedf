"""A run's output folder: complete parts, a manifest, and how to go on after an end of any kind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .folder_lock import FolderLock, FolderTakenError
from .interrupts import interrupts_wait
from .path_set import PathSet
from .records import JsonLinesWriter, ParquetWriter, Record

__all__ = ["OutputFolder", "OutputFolderError", "write_complete"]

MANIFEST = "manifest.json"
SUMMARY = "summary.json"
_PART = re.compile(r"part-(\d{5,})\.(parquet|jsonl)")
# A slow machine must not lose hours to a power cut, nor a fast one write a file a second.
_LONGEST_PART_SECONDS = 300.0
_UNFINISHED = ".unfinished"
_BESIDE = ".part"
_COLUMNS = ["path", "score", "error", "width", "height", "label"]


class OutputFolderError(ValueError):
    """An output folder that a run cannot use: why, and what to do."""


class _PartWriter(Protocol):
    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class OutputFolder:
    """Where one run, in one or more goes, leaves its records.

    Records lie in `part-00000.parquet` (or `.jsonl`) and so on. A part is written under another
    name, brought to the disk and renamed, so it is complete or absent. `manifest.json` tells what
    the records were made with; a run is only continued with the same.

    Args:
        folder: Made if it is not there.
        kind: `parquet` or `jsonl`.
        part_size: Records in a part; one is also ended after five minutes.
        extra: What records have beside `RECORD_FIELDS`.
    """

    def __init__(self, folder: Path, kind: str, part_size: int, extra: Sequence[str] = ()) -> None:
        """Remember the settings; nothing is touched before `start` or `resume`."""
        self.folder = folder
        self._kind = kind
        self._part_size = part_size
        self._extra = tuple(extra)
        self._number = 0
        self._rows = 0
        self._began = 0.0
        self._writer: _PartWriter | None = None
        self._stream: Any = None
        self._lock_held: FolderLock | None = None

    def start(self, manifest: Mapping[str, Any]) -> None:
        """Begin a new run.

        Raises:
            OutputFolderError: the folder holds another.
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        if (self.folder / MANIFEST).exists() or any(self._parts()):
            self.release()
            raise OutputFolderError(
                f"{self.folder} holds the records of a run; add --resume to go on with it, "
                "or name another folder"
            )
        write_complete(self.folder / MANIFEST, _text(manifest))

    def resume(self, manifest: Mapping[str, Any], counted: Callable[[Record], None]) -> PathSet:
        """Go on with the run in the folder, or begin one where there is none.

        Args:
            manifest: What this go would write; all but `inputs` and `began` must be the same.
            counted: Is called with each record that is there.

        Returns:
            The paths that have a record.

        Raises:
            OutputFolderError: the run there was made with something else, or a file is damaged.
            OSError: the folder cannot be read or written.
        """
        done = PathSet()
        if not (self.folder / MANIFEST).exists():
            self.start(manifest)
            return done
        self._lock()
        try:
            self._check(manifest)
            for pattern in (f".*{_UNFINISHED}", f".{SUMMARY}.*{_BESIDE}"):
                for leftover in self.folder.glob(pattern):
                    leftover.unlink()
            for part in self._parts():
                self._number = int(part.name[5:].split(".")[0]) + 1
                for record in self._records(part):
                    done.add(record["path"])
                    counted(record)
        except BaseException:
            self.release()
            raise
        return done

    def _lock(self) -> None:
        """Keep other processes out."""
        if self._lock_held is None:
            try:
                self._lock_held = FolderLock(self.folder)
            except FolderTakenError as error:
                raise OutputFolderError(str(error)) from error

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock_held is not None:
            self._lock_held.release()
            self._lock_held = None

    def _check(self, manifest: Mapping[str, Any]) -> None:
        path = self.folder / MANIFEST
        try:
            before = json.loads(path.read_text("utf-8"))
            if not isinstance(before, dict):
                raise ValueError("it holds no object")
        except ValueError as error:
            raise OutputFolderError(f"{path} is damaged ({error}); name another folder") from error
        for key in sorted({*before, *manifest} - {"inputs", "began"}):
            old, new = before.get(key), manifest.get(key)
            if old != new:
                raise OutputFolderError(
                    f"the records in {self.folder} were made with {key} = {json.dumps(old)}, not "
                    f"{json.dumps(new)}; give the same options, or name another folder"
                )

    def _parts(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        names = [name for name in os.listdir(self.folder) if _PART.fullmatch(name)]
        for name in sorted(names, key=lambda name: int(name[5:].split(".")[0])):
            yield self.folder / name

    def _records(self, part: Path) -> Iterator[Record]:
        try:
            if part.suffix == ".jsonl":
                with open(part, encoding="utf-8") as stream:
                    for line in stream:
                        yield json.loads(line)
                return
            import pyarrow.parquet as pq

            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(columns=_COLUMNS):
                    yield from batch.to_pylist()
        except (KeyError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise OutputFolderError(
                f"{part} is damaged ({error}); take it away, and its pictures are scored again"
            ) from error

    def write(self, record: Record) -> None:
        """Take one record, wholly or not at all; it is safe once its part is complete.

        Raises:
            OSError: it cannot be written.
        """
        with interrupts_wait(), self._discarded_on_error():
            if self._writer is None:
                self._open()
            assert self._writer is not None
            self._writer.write(record)
            self._rows += 1
            late = time.monotonic() - self._began > _LONGEST_PART_SECONDS
            if self._rows >= self._part_size or late:
                self.close_part()

    def _open(self) -> None:
        path = self._unfinished()
        if self._kind == "parquet":
            self._writer = ParquetWriter(path, self._extra)
        else:
            self._stream = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")
            self._writer = JsonLinesWriter(self._stream)
        self._rows, self._began = 0, time.monotonic()

    def _name(self) -> str:
        return f"part-{self._number:05d}.{self._kind}"

    def _unfinished(self) -> Path:
        return self.folder / f".{self._name()}{_UNFINISHED}"

    def close_part(self) -> None:
        """Complete the part that is being written, if there is one, before any interrupt.

        Raises:
            OSError: it cannot be written.
        """
        if self._writer is None:
            return
        with interrupts_wait(), self._discarded_on_error():
            self._writer.close()
            if self._stream is not None:
                self._stream.close()
            self._writer = self._stream = None
            _file_brought_to_disk(self._unfinished())
            os.replace(self._unfinished(), self.folder / self._name())
            _folder_brought_to_disk(self.folder)
            self._number += 1

    @contextlib.contextmanager
    def _discarded_on_error(self) -> Iterator[None]:
        """Leave nothing of a part that could not be written: it must never get its name."""
        try:
            yield
        except BaseException:
            for stream in (self._writer, self._stream):
                with contextlib.suppress(OSError, ValueError):  # what is full is still full
                    if stream is not None:
                        stream.close()
            self._writer = self._stream = None
            with contextlib.suppress(OSError):
                self._unfinished().unlink(missing_ok=True)
            raise

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Store the run's summary."""
        write_complete(self.folder / SUMMARY, _text(summary))


def write_complete(path: Path, text: str) -> None:
    """Write a text file that is complete or as it was, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}{_BESIDE}")
    try:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        _file_brought_to_disk(beside)
        os.replace(beside, path)
        _folder_brought_to_disk(path.absolute().parent)
    finally:
        beside.unlink(missing_ok=True)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _file_brought_to_disk(path: Path) -> None:
    # Windows refuses it to a handle that may only read.
    _brought_to_disk(os.open(path, os.O_RDWR))


def _folder_brought_to_disk(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a system that opens no folders
        return
    _brought_to_disk(handle)


def _brought_to_disk(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(handle)
