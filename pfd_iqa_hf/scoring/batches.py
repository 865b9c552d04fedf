"""Score many pictures with any backend: decode in threads, run in batches, stream records.

Numpy and Pillow only, and imports relative to the package, because the ONNX runner loads this file
without importing `pfd_iqa_hf`, which would import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..modeling.picture_reading import PictureError, open_picture
from .ahead import UNKNOWN_BYTES, DaemonThreads, work_ahead
from .find import FoundPicture
from .heat_map import heat_map, preview
from .records import Record, make_record
from .saving import save_whole

__all__ = ["BatchScorer", "PreparedPicture"]

# Decoding is the slower half on a fast device; each thread may hold one whole decoded picture.
_DECODING_THREADS = 2
# For a picture that is being decoded when scoring ends early; a server may take longer.
_PATIENCE_SECONDS = 5.0


@dataclass
class PreparedPicture:
    """A picture on its way through a backend.

    Attributes:
        found: Where it comes from.
        inputs: What the backend made of it, None where it cannot be read.
        size: Width and height of the upright picture.
        small: What its heat map is painted on; only where one is wanted.
        error: Why it cannot be read.
    """

    found: FoundPicture
    inputs: Any = None
    size: tuple[int, int] | None = None
    small: Image.Image | None = None
    error: str | None = None

    @property
    def map_size(self) -> tuple[int, int] | None:
        """Width and height of the heat map's picture."""
        return None if self.small is None else self.small.size


class BatchScorer(ABC):
    """What every backend does alike with found pictures.

    Args:
        batch_size: Pictures that go through the model together; it does not change their scores.
        max_pixels: Limit on width x height.
        origin: `model`, `model_sha256` and `version` of every record.
        extra: What records have beside `RECORD_FIELDS`, keys of the results.
    """

    def __init__(
        self,
        batch_size: int,
        max_pixels: int,
        origin: Mapping[str, str],
        extra: Sequence[str] = (),
    ) -> None:
        """Keep the settings."""
        self.extra = tuple(extra)
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.origin = dict(origin)

    @abstractmethod
    def _inputs(self, picture: Image.Image) -> Any:
        """Cut and normalise the views of an upright RGB picture."""

    @abstractmethod
    def _run(self, batch: Sequence[PreparedPicture], with_map: bool) -> list[Any]:
        """Outputs of the model, one a picture; every picture of the batch has inputs."""

    @abstractmethod
    def _result(self, prepared: PreparedPicture, output: Any) -> Mapping[str, Any]:
        """What the record says of one picture, and `quality_map` where it was wanted.

        Raises:
            PictureError: the model gave it something that is no number.
        """

    def score(
        self, pictures: Iterable[FoundPicture], map_folder: Path | None = None
    ) -> Iterator[Record]:
        """Yield one record a picture, in order; a picture that fails has an `error` in its record.

        Args:
            pictures: What to score.
            map_folder: Where to save each picture's heat map as PNG, None for nowhere.
        """
        names = _MapNames()
        batch: list[PreparedPicture] = []
        size = 0
        for prepared in self._prepare_ahead(pictures, with_map=map_folder is not None):
            batch.append(prepared)
            size += prepared.error is None
            if size == self.batch_size or (size == 0 and prepared.error is not None):
                yield from self._score_batch(batch, map_folder, names)
                batch, size = [], 0
        yield from self._score_batch(batch, map_folder, names)

    def score_prepared(self, batch: list[PreparedPicture]) -> list[Record]:
        """Records of one batch that was prepared elsewhere; from several threads at a time."""
        return list(self._score_batch(batch, None, _MapNames()))

    def _prepare_ahead(
        self, pictures: Iterable[FoundPicture], with_map: bool
    ) -> Iterator[PreparedPicture]:
        ahead = 2 * self.batch_size + _DECODING_THREADS
        threads = DaemonThreads(_DECODING_THREADS, "decode")

        def begin(found: FoundPicture) -> Future[PreparedPicture]:
            return threads.submit(self._prepare, found, with_map)

        try:
            yield from work_ahead(pictures, begin, ahead, _DECODING_THREADS * UNKNOWN_BYTES)
        finally:
            threads.close(_PATIENCE_SECONDS)

    def _prepare(self, found: FoundPicture, with_map: bool) -> PreparedPicture:
        without = replace(found, read=None)  # its bytes are needed no longer
        if found.error is not None:
            return PreparedPicture(without, error=found.error)
        try:
            source = found.path if found.read is None else found.read()
        except (OSError, ValueError) as error:
            return PreparedPicture(without, error=str(error))
        try:
            picture = open_picture(source, self.max_pixels)
        except PictureError as error:
            return PreparedPicture(without, error=f"{error.reason}; {error.remedy}")
        try:
            small = preview(picture) if with_map else None
            return PreparedPicture(without, self._inputs(picture), picture.size, small)
        except MemoryError:
            message = "does not fit into memory; lower --max-pixels or the batch size"
            return PreparedPicture(without, error=message)

    def _score_batch(
        self, batch: list[PreparedPicture], map_folder: Path | None, names: _MapNames
    ) -> Iterator[Record]:
        readable = [prepared for prepared in batch if prepared.error is None]
        outputs = iter(self._run(readable, map_folder is not None) if readable else [])
        for prepared in batch:
            path = prepared.found.path
            if prepared.error is not None:
                yield make_record(path, self.origin, error=prepared.error, extra=self.extra)
                continue
            try:
                result = self._result(prepared, next(outputs))
            except PictureError as error:
                message = f"{error.reason}; {error.remedy}"
                size = prepared.size
                yield make_record(path, self.origin, None, size, message, self.extra)
                continue
            if map_folder is not None and prepared.small is not None:
                file = map_folder / names.of(prepared.found)
                file.parent.mkdir(parents=True, exist_ok=True)
                save_whole(heat_map(prepared.small, result["quality_map"]), file)
            yield make_record(path, self.origin, result, prepared.size, extra=self.extra)


class _MapNames:
    """Give each picture's heat map its own file name, telling equal places apart by a number."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def of(self, picture: FoundPicture) -> str:
        stem = picture.place.as_posix()
        name = f"{stem}.map.png"
        while name in self._taken:
            self._taken[stem] = self._taken.get(stem, 1) + 1
            name = f"{stem}-{self._taken[stem]}.map.png"
        self._taken[name] = 1
        return name
