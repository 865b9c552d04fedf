"""Score many pictures: decode in threads, run the model in batches, stream records."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import pipeline
from transformers.utils import cached_file

import pfd_iqa_hf
from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256
from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture
from pfd_iqa_hf.modeling.pipeline_pfd_iqa import ImageQualityAssessmentPipeline
from pfd_iqa_hf.registration import TASK
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.heat_map import heat_map, preview
from pfd_iqa_hf.scoring.records import Record, make_record

__all__ = ["FolderScorer", "load_pipeline"]

# Decoding is the slower half on a fast device; each thread may hold one whole decoded picture.
_DECODING_THREADS = 2


def load_pipeline(model: str, **options: Any) -> ImageQualityAssessmentPipeline:
    """`transformers.pipeline` of our task, whose annotations know transformers' own tasks only."""
    return pipeline(TASK, model=model, **options)  # type: ignore[call-overload]


@dataclass
class _Prepared:
    found: FoundPicture
    inputs: dict[str, Any] | None = None
    picture: Image.Image | None = None
    error: str | None = None


class FolderScorer:
    """A loaded model that turns found pictures into records.

    Args:
        model: Folder or Hub id of a checkpoint; None is the bundled one.
        device: Such as `cpu` or `cuda:0`; None takes an accelerator where there is one.
        dtype: What the backbone computes in; head and score stay in float32.
        batch_size: Pictures that go through the model together; it does not change their scores.
        view_strategy: View strategy instead of the checkpoint's own.
        max_pixels: Limit on width x height instead of the checkpoint's own.

    Raises:
        OSError, ValueError, RuntimeError: the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        """Load the model, once."""
        folder = str(default_checkpoint()) if model is None else model
        self.pipeline = load_pipeline(folder, device=device, dtype=dtype)
        self.batch_size = batch_size
        self._settings: dict[str, Any] = {}
        if view_strategy is not None:
            self._settings["view_strategy"] = view_strategy
        if max_pixels is not None:
            self._settings["max_pixels"] = max_pixels
        self.origin = {
            "model": "default" if model is None else model,
            "model_sha256": weights_sha256(_local_folder(folder)),
            "version": pfd_iqa_hf.__version__,
        }

    @property
    def view_strategy(self) -> str:
        """View strategy that pictures are scored with."""
        processor: Any = self.pipeline.image_processor
        return str(self._settings.get("view_strategy", processor.view_strategy))

    def score(
        self, pictures: Sequence[FoundPicture], map_folder: Path | None = None
    ) -> Iterator[Record]:
        """Yield one record a picture, in order; a picture that fails has an `error` in its record.

        Args:
            pictures: What to score.
            map_folder: Where to save each picture's heat map as PNG, None for nowhere.
        """
        names = _map_names(pictures) if map_folder is not None else {}
        batch: list[_Prepared] = []
        size = 0
        for prepared in self._prepare_ahead(pictures, with_map=map_folder is not None):
            batch.append(prepared)
            size += prepared.error is None
            if size == self.batch_size or (size == 0 and prepared.error is not None):
                yield from self._score_batch(batch, map_folder, names)
                batch, size = [], 0
        yield from self._score_batch(batch, map_folder, names)

    def _prepare_ahead(
        self, pictures: Iterable[FoundPicture], with_map: bool
    ) -> Iterator[_Prepared]:
        ahead = 2 * self.batch_size + _DECODING_THREADS
        threads = ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode")
        waiting: deque[Future[_Prepared]] = deque()
        try:
            for found in pictures:
                waiting.append(threads.submit(self._prepare, found, with_map))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, found: FoundPicture, with_map: bool) -> _Prepared:
        if found.error is not None:
            return _Prepared(found, error=found.error)
        processor: Any = self.pipeline.image_processor
        try:
            limit = self._settings.get("max_pixels", processor.max_pixels)
            picture = open_picture(found.path, limit)
        except PictureError as error:
            return _Prepared(found, error=f"{error.reason}; {error.remedy}")
        inputs = self.pipeline.preprocess(picture, **self._settings)
        inputs["picture"]["name"] = found.path
        if not with_map:
            return _Prepared(found, inputs)
        small = preview(picture)
        inputs["picture"]["map_size"] = small.size
        return _Prepared(found, inputs, small)

    def _score_batch(
        self, batch: list[_Prepared], map_folder: Path | None, names: Mapping[str, str]
    ) -> Iterator[Record]:
        inputs = [entry.inputs for entry in batch if entry.inputs is not None]
        outputs = iter(self._run(inputs, with_map=map_folder is not None) if inputs else [])
        for entry in batch:
            path = entry.found.path
            if entry.inputs is None:
                yield make_record(path, self.origin, error=entry.error)
                continue
            size = entry.inputs["picture"]["size"]
            try:
                result = self.pipeline.postprocess(next(outputs))
            except PictureError as error:
                message = f"{error.reason}; {error.remedy}"
                yield make_record(path, self.origin, size=size, error=message)
                continue
            if map_folder is not None and entry.picture is not None:
                file = map_folder / names[path]
                file.parent.mkdir(parents=True, exist_ok=True)
                heat_map(entry.picture, result["quality_map"]).save(file)
            yield make_record(path, self.origin, result, size)

    def _run(self, inputs: list[dict[str, Any]], with_map: bool) -> list[dict[str, Any]]:
        output = self.pipeline.forward(
            {
                "pixel_values": torch.cat([entry["pixel_values"] for entry in inputs]),
                "low_resolution": torch.cat([entry["low_resolution"] for entry in inputs]),
                "picture": [entry["picture"] for entry in inputs],
            },
            output_quality_map=with_map,
        )
        return [
            {key: None if value is None else value[index] for key, value in output.items()}
            for index in range(len(inputs))
        ]


def _map_names(pictures: Sequence[FoundPicture]) -> dict[str, str]:
    """Give each picture its own file name, telling equal places apart by a number."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for picture in pictures:
        stem, number = picture.place.as_posix(), 1
        name = f"{stem}.map.png"
        while name in taken:
            number += 1
            name = f"{stem}-{number}.map.png"
        taken.add(name)
        names[picture.path] = name
    return names


def _local_folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    # The files of a Hub id lie together in its snapshot, which the pipeline has just filled.
    return Path(str(cached_file(model, "config.json"))).parent
