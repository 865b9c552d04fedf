"""Score any number of pictures: decoded in processes, batched, scored in lanes, in order.

Every picture gives the same number of views of the same size, so batches of equally many pictures
are equal work. On a CPU several batches run at once, each on a core of its own: unlike one batch on
all cores it never waits for its slowest part, and decoding takes whatever core time is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .batches import BatchScorer, PreparedPicture
from .decoder_pool import DecoderPool
from .decoding import DecodedPicture, DecodingSettings, normalised_views
from .find import FoundPicture
from .records import Record

__all__ = ["BulkModel", "ScoredPicture", "bulk_model", "score_in_bulk"]


@dataclass(frozen=True)
class BulkModel:
    """A backend, and how views that were cut elsewhere become its inputs.

    Attributes:
        scorer: The backend; its model is used from several threads.
        settings: How views are cut for it.
        inputs: Its inputs for uint8 views (views, size, size, 3) of a picture of some size.
    """

    scorer: BatchScorer
    settings: DecodingSettings
    inputs: Callable[[np.ndarray, tuple[int, int]], Any]


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """One result.

    Attributes:
        record: As it is written.
        view: uint8 (size, size, 3), the whole picture squashed; None where it could not be read.
    """

    record: Record
    view: np.ndarray | None


def bulk_model(scorer: Any) -> BulkModel:
    """Prepare a `FolderScorer` or an `OnnxScorer` for views that were cut elsewhere."""
    if hasattr(scorer, "decoding_settings"):
        return BulkModel(scorer, scorer.decoding_settings(), scorer.inputs_of_views)
    contract = scorer.contract

    def inputs(views: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
        values = normalised_views(
            views, contract.rescale_factor, contract.image_mean, contract.image_std
        )
        return {"pixel_values": values, "low_resolution": min(size) < contract.view_size}

    settings = DecodingSettings(
        scorer.view_strategy, contract.view_size, contract.short_side, scorer.max_pixels
    )
    return BulkModel(scorer, settings, inputs)


def score_in_bulk(
    model: BulkModel,
    pool: DecoderPool,
    pictures: Iterable[FoundPicture],
    lanes: int = 1,
) -> Generator[ScoredPicture, None, None]:
    """Yield one result a picture, in order; a picture that fails has an `error` in its record.

    `pictures` is read as far ahead as the lanes need, and no further: memory depends on neither
    their number nor how long scoring lasts.

    Args:
        model: The backend.
        pool: What decodes.
        pictures: What to score.
        lanes: Batches that run at once.
    """
    size = model.scorer.batch_size
    ahead = (lanes + 1) * size + 2 * pool.workers
    running: deque[Future[list[ScoredPicture]]] = deque()
    threads = ThreadPoolExecutor(lanes, thread_name_prefix="model")
    decoded = pool.decode_ahead(pictures, ahead)
    try:
        for batch in _batches(decoded, size):
            running.append(threads.submit(_scored, model, batch))
            # One batch more than there are lanes waits, so that no lane does.
            while running and (len(running) > lanes + 1 or running[0].done()):
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()
    finally:
        decoded.close()
        threads.shutdown(wait=True, cancel_futures=True)


_Decoded = tuple[FoundPicture, DecodedPicture]


def _batches(decoded: Iterable[_Decoded], size: int) -> Iterator[list[_Decoded]]:
    """Batches of `size` readable pictures, with the unreadable ones between them."""
    batch: list[_Decoded] = []
    readable = 0
    for found, picture in decoded:
        batch.append((found, picture))
        readable += picture.views is not None
        if readable == size or len(batch) == 4 * size:
            yield batch
            batch, readable = [], 0
    if batch:
        yield batch


def _scored(model: BulkModel, batch: list[_Decoded]) -> list[ScoredPicture]:
    prepared = [
        PreparedPicture(found, error=picture.error, size=picture.size)
        if picture.views is None or picture.size is None
        else PreparedPicture(found, model.inputs(picture.views, picture.size), picture.size)
        for found, picture in batch
    ]
    records = model.scorer.score_prepared(prepared)
    views = [None if picture.views is None else picture.views[0] for _, picture in batch]
    return [ScoredPicture(record, view) for record, view in zip(records, views, strict=True)]
