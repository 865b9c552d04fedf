"""Score batches of rows anywhere: for Ray Data's `map_batches`, or whatever hands out columns.

    import ray
    from pfd_iqa_hf.scoring.ray import RowScorer

    rows = ray.data.read_parquet("s3://bucket/pictures").map_batches(
        RowScorer, fn_constructor_kwargs={"column": "image"}, batch_size=64, concurrency=8
    )
    rows.write_parquet("s3://bucket/scores")

Columns of a batch are arrays or lists; what comes back is an Arrow table, which Ray Data and
`datasets.map` take as it is. No model is loaded before the first batch, and Ray is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.folder import FolderScorer
from pfd_iqa_hf.scoring.records import record_schema

__all__ = ["RowScorer"]


class RowScorer:
    """Turns columns of pictures into columns of records; it can be pickled at any time.

    Args:
        model: Folder or Hub id of a checkpoint that every machine can load; None is the bundled
            one.
        device: Such as `cpu` or `cuda`; None takes an accelerator where there is one.
        batch_size: Pictures that go through the model together; it does not change their scores.
        column: Column of paths, of the bytes of files, or of {bytes, path}.
        name_column: Column that names each picture in its record; None is `column`, where that
            holds paths, else the position in the batch.
        view_strategy: View strategy instead of the checkpoint's own.
        max_pixels: Limit on width x height instead of the checkpoint's own.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        batch_size: int = 8,
        column: str = "path",
        name_column: str | None = None,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        """Remember the settings; the model is loaded where the first batch is scored."""
        self._column = column
        self._name_column = name_column
        self._settings: dict[str, Any] = {
            "model": model,
            "device": device,
            "batch_size": batch_size,
            "view_strategy": view_strategy,
            "max_pixels": max_pixels,
        }
        self._scorer: FolderScorer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Settings alone: a model is loaded again, not sent."""
        return {**self.__dict__, "_scorer": None}

    def __call__(self, batch: Mapping[str, Any]) -> pa.Table:
        """Score the rows of a batch.

        Args:
            batch: Columns of equal length; the rest beside those named is left out.

        Returns:
            One column for each of `RECORD_FIELDS`, of the types that `pfd-iqa score` writes, rows
            in the order given; a picture that cannot be scored has an `error`.

        Raises:
            KeyError: there is no such column.
        """
        if self._scorer is None:
            self._scorer = FolderScorer(**self._settings)
        cells = list(batch[self._column])
        names = cells if self._name_column is None else list(batch[self._name_column])
        pictures = [
            _picture(cell, name if isinstance(name, str) else f"row {number}")
            for number, (cell, name) in enumerate(zip(cells, names, strict=True))
        ]
        # Stated, because a batch without a failure would have no type for `error`.
        return pa.Table.from_pylist(list(self._scorer.score(pictures)), schema=record_schema())


def _picture(cell: Any, name: str) -> FoundPicture:
    if isinstance(cell, Mapping):
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return FoundPicture(name, Path("row"), read=partial(bytes, cell))
    if isinstance(cell, str) and cell:
        # Under its own name a file is opened where it is decoded.
        return FoundPicture(name, Path("row"), read=None if name == cell else _reader(cell))
    return FoundPicture(name, Path("row"), "the row names no picture; check the column")


def _reader(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read()

    return read
