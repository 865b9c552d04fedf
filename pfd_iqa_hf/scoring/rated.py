"""Score the pictures of a table of ratings with a loaded model, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pfd_iqa_hf.data.table import Rating, RatingTable
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear, parts_of_batch
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.picture_reading import PictureError

__all__ = ["Predictions", "score_ratings"]

_DECODING_THREADS = 2
# Field of `Predictions`: field of the model's output.
_OUTPUTS = {
    "score": "logits",
    "uncertainty": "uncertainty",
    "level_probabilities": "level_probabilities",
    "distortion_probabilities": "distortion_probabilities",
}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about n pictures of a table.

    Attributes:
        score: (n,) float64, 0 to 100, higher is better.
        uncertainty: (n,) float64, standard deviation in the same points.
        level_probabilities: (n, 5) float64, in the order of `config.level_names`.
        distortion_probabilities: (n, 12) float64, in the order of `config.distortion_names`; None
            of a model without priors.
        rows: (n,) int64, the table's row of each; increasing, with gaps where rows were skipped.
        skipped: the errors of the rows left out.
    """

    score: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    level_probabilities: NDArray[np.float64]
    distortion_probabilities: NDArray[np.float64] | None
    rows: NDArray[np.int64]
    skipped: tuple[PictureError, ...] = ()

    def __len__(self) -> int:
        """Number of scored pictures."""
        return len(self.rows)


@torch.no_grad()
def score_ratings(
    model: PfdIqaForImageQualityAssessment,
    processor: Any,
    table: RatingTable,
    *,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
    skip_bad: bool = False,
) -> Predictions:
    """Score every picture of a table with the views of the processor, as the pipeline would.

    At most `batch_size` pictures and a few more are held at a time. The model is in evaluation
    mode meanwhile, and in the mode it came in afterwards.

    Args:
        model: the model; it is moved to `device` and stays there.
        processor: its image processor.
        table: rows to score.
        batch_size: pictures that go through the model together; it does not change their scores.
        device: such as "cpu" or "cuda:0"; None is where the model is.
        dtype: run under autocast to this type, such as torch.bfloat16; None computes in the types
            of the weights, float32 as loaded.
        progress: called with the numbers of rows done and of all rows after each batch.
        skip_bad: leave out pictures that cannot be read, instead of raising.

    Returns:
        The predictions in the order of the table. Numbers that the model made NaN stay NaN.

    Raises:
        PictureError: a picture cannot be read and is not to be skipped, or none is left.
        ValueError: `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    place = torch.device(device) if device is not None else model.device
    if device is not None:
        model.to(place)  # type: ignore[arg-type]
    outputs = dict(_OUTPUTS)
    if not model.config.prior_discovery:
        del outputs["distortion_probabilities"]
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in outputs}
    rows: list[int] = []
    skipped: list[PictureError] = []
    was_training = model.training
    model.eval()
    try:
        done = 0
        for batch in _batches(processor, table, batch_size):
            done += len(batch)
            good = [(row, inputs) for row, inputs in batch if not isinstance(inputs, PictureError)]
            bad = [inputs for _, inputs in batch if isinstance(inputs, PictureError)]
            if bad and not skip_bad:
                raise bad[0]
            skipped += bad
            if good:
                rows += [row for row, _ in good]
                joined = {
                    key: torch.cat([inputs[key] for _, inputs in good]).to(place)
                    for key in ("pixel_values", "low_resolution")
                }
                autocast = torch.autocast(place.type, dtype, enabled=dtype is not None)
                for views, enlarged in parts_of_batch(**joined):
                    with autocast, cpu_linear(model):
                        output = model(pixel_values=views, low_resolution=enlarged)
                    for name, field in outputs.items():
                        parts[name].append(getattr(output, field).double().cpu().numpy())
            if progress is not None:
                progress(done, len(table))
    finally:
        model.train(was_training)
    if skipped and not rows:
        raise skipped[0]
    empty = {
        "score": np.empty(0),
        "uncertainty": np.empty(0),
        "level_probabilities": np.empty((0, len(model.config.level_names))),
        "distortion_probabilities": np.empty((0, len(model.config.distortion_names))),
    }
    arrays: dict[str, Any] = dict.fromkeys(_OUTPUTS)
    for name, values in parts.items():
        arrays[name] = np.concatenate([empty[name], *values])
    return Predictions(rows=np.array(rows, np.int64), skipped=tuple(skipped), **arrays)


def _batches(
    processor: Any, table: RatingTable, batch_size: int
) -> Iterator[list[tuple[int, Any]]]:
    """Rows and their views, or the error of the row; decoded ahead by no more than one batch."""

    def prepare(rating: Rating) -> Any:
        try:
            return processor(images=[rating.image], return_tensors="pt")
        except PictureError as error:
            return error

    threads = ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode")
    waiting: deque[tuple[int, Future[Any]]] = deque()
    batch: list[tuple[int, Any]] = []
    try:
        for row, rating in enumerate(table):
            waiting.append((row, threads.submit(prepare, rating)))
            if len(waiting) > batch_size:
                first, future = waiting.popleft()
                batch.append((first, future.result()))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
        for first, future in waiting:
            batch.append((first, future.result()))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
