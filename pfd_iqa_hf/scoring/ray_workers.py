"""Score any number of pictures on the workers of a Ray cluster, in order and in bounded memory.

A worker is a process with a model and decoding processes of its own, so it does what `bulk` does.
Ray starts a worker that died again, and what it was scoring with it. Ray is imported when workers
are asked for, and torch by the workers alone.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .ahead import UNKNOWN_BYTES, DaemonThreads, PictureBytes, work_ahead
from .bulk import BulkModel, ScoredPicture, bulk_model, score_in_bulk
from .decoder_pool import DEFAULT_TIME_LIMIT, DecoderPool
from .find import FoundPicture
from .records import Record

__all__ = ["RayScoringError", "RayWorker", "RayWorkers", "WorkerSettings"]

# How often a batch is begun again when the worker dies over it; after that something else is wrong.
_RETRIES = 8
# An accelerator is to compute while the next batch is decoded and sent.
_BATCHES_ON_AN_ACCELERATOR = 2
_READING_THREADS = 8
_MESSAGE_BYTES = 64 << 20
_PATIENCE_SECONDS = 30.0


class RayScoringError(RuntimeError):
    """A cluster on which scoring cannot go on: why, and what to do."""


@dataclass(frozen=True)
class WorkerSettings:
    """What every worker does alike.

    Attributes:
        model: Folder or Hub id of a checkpoint that every machine can load; None is the bundled
            one.
        device: `cpu` or `cuda`, None for an accelerator where the worker was given one.
        dtype: Torch's name of the type that the backbone computes in.
        batch_size: Pictures that go through the model together.
        view_strategy: View strategy instead of the checkpoint's own.
        max_pixels: Limit on width x height instead of the checkpoint's own.
        decoders: Decoding processes of each worker.
        seconds: Time limit of decoding one picture.
        with_views: Whether results have the view that a report shows.
        explain: Whether records have `costs`.
    """

    model: str | None = None
    device: str | None = None
    dtype: str = "float32"
    batch_size: int = 8
    view_strategy: str | None = None
    max_pixels: int | None = None
    decoders: int = 1
    seconds: float = DEFAULT_TIME_LIMIT
    with_views: bool = False
    explain: bool = False


class RayWorker:
    """The model in a process of a cluster; loaded when it is first needed, also after a restart.

    Args:
        settings: What to load, and how to score.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        """Remember the settings."""
        self._settings = settings
        self._lock = threading.Lock()
        self._loaded: tuple[BulkModel, DecoderPool] | None = None

    def facts(self) -> dict[str, Any]:
        """Load the model, and tell what its scores depend on.

        Raises:
            OSError, ValueError, RuntimeError: the model cannot be loaded here.
        """
        scorer: Any = self._ready()[0].scorer
        return {
            **scorer.origin,
            "view_strategy": scorer.view_strategy,
            "max_pixels": scorer.max_pixels,
        }

    def score(self, pictures: list[FoundPicture]) -> list[tuple[Record, np.ndarray | None]]:
        """Records of one batch, in its order, and their views if those are wanted."""
        model, pool = self._ready()
        return [
            (result.record, result.view if self._settings.with_views else None)
            for result in score_in_bulk(model, pool, pictures)
        ]

    def _ready(self) -> tuple[BulkModel, DecoderPool]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[BulkModel, DecoderPool]:
        import torch

        from pfd_iqa_hf.scoring.folder import FolderScorer

        wanted = self._settings
        scorer = FolderScorer(
            wanted.model,
            wanted.device,
            getattr(torch, wanted.dtype),
            wanted.batch_size,
            wanted.view_strategy,
            wanted.max_pixels,
            wanted.explain,
        )
        if scorer.pipeline.device.type == "cpu":
            torch.set_num_threads(1)  # the core that Ray set apart for it
        model = bulk_model(scorer)
        return model, DecoderPool(model.settings, wanted.decoders, wanted.seconds)


class RayWorkers:
    """Workers of the cluster that this process is connected to.

    Those for which the cluster has no room yet join when it has.

    Args:
        settings: What every worker does alike.
        count: Workers.
        accelerator: Whether each takes one of the cluster's accelerators, rather than one core.
        waiting: Called from time to time while not even one worker could be started.

    Attributes:
        facts: What the scores depend on, as the first worker tells it.

    Raises:
        RayScoringError: a worker cannot be started.
        OSError, ValueError, RuntimeError: the first one cannot load the model.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        count: int,
        accelerator: bool = False,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask for the workers, and wait for the first one."""
        import ray

        self._ray = ray
        at_once = _BATCHES_ON_AN_ACCELERATOR if accelerator else 1
        worker = ray.remote(RayWorker).options(
            num_cpus=settings.decoders if accelerator else 1,
            num_gpus=1 if accelerator else 0,
            max_restarts=-1,
            max_task_retries=_RETRIES,
            max_concurrency=at_once,
        )
        self._batch_size = settings.batch_size
        self._batches_each = at_once + 1  # one waits where it is needed next
        self._held = 2 * count * self._batches_each
        self._idle: deque[Any] = deque()
        self.facts: dict[str, Any] = {}
        self._all: list[Any] = [worker.remote(settings) for _ in range(count)]
        self._joining = {actor.facts.remote(): actor for actor in self._all}
        self._running: dict[Any, Any] = {}
        while not self._collect(_PATIENCE_SECONDS):
            waiting()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for actor in self._all:
            self._ray.kill(actor)

    def score(self, pictures: Iterable[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        """Yield one result a picture, in order; a picture that fails has an `error` in its record.

        `pictures` is read no further ahead than keeps every worker busy.

        Raises:
            RayScoringError: a worker failed in a way that is no picture's fault.
        """
        order: deque[tuple[list[str], Any]] = deque()
        for names, batch in _batches(pictures, self._batch_size):
            self._collect(0)
            while order and order[0][1] not in self._running:
                yield from self._results(*order.popleft())
            while not self._idle or len(order) >= self._held:
                self._collect(None)
                while order and order[0][1] not in self._running:
                    yield from self._results(*order.popleft())
            actor = self._idle.popleft()
            task = actor.score.remote(batch)
            self._running[task] = actor
            order.append((names, task))
        while order:
            yield from self._results(*order.popleft())

    def _collect(self, timeout: float | None) -> bool:
        """Note which workers have become idle, waiting for at least one; whether there was one."""
        tasks = [*self._running, *self._joining]
        if not tasks:
            return False
        done, rest = self._ray.wait(tasks, num_returns=1, timeout=timeout)
        if done and rest:
            done += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for task in done:
            if task in self._joining:
                self._join(task, self._joining.pop(task))
            else:
                self._idle.append(self._running.pop(task))
        return bool(done)

    def _join(self, task: Any, actor: Any) -> None:
        facts = self._value(task)
        self.facts = self.facts or facts
        if facts != self.facts:
            raise RayScoringError(
                f"one worker loaded {_differences(facts, self.facts)}: put the same model and the "
                "same version of pfd-iqa-hf on all machines"
            )
        # Every worker is given a first batch before any gets a second one.
        self._idle.appendleft(actor)
        self._idle.extend([actor] * (self._batches_each - 1))

    def _results(self, names: list[str], task: Any) -> Iterator[ScoredPicture]:
        for name, (record, view) in zip(names, self._value(task), strict=True):
            record["path"] = name
            yield ScoredPicture(record, view)

    def _value(self, task: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:  # the worker's own error, with its trace as text
            cause = error.cause
            if not self.facts and isinstance(cause, (OSError, ValueError, RuntimeError)):
                raise cause from None
            detail = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
            raise RayScoringError(f"a worker failed ({detail})") from error
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:300]
            raise RayScoringError(
                f"a worker died {_RETRIES + 1} times over the same pictures, or its machine is "
                f"gone ({reason}); give fewer --workers or a smaller --batch-size if memory is "
                "short"
            ) from error


def _differences(some: dict[str, Any], others: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} = {some.get(key)!r}, another {others.get(key)!r}"
        for key in others
        if some.get(key) != others.get(key)
    )


def _batches(
    pictures: Iterable[FoundPicture], size: int
) -> Iterator[tuple[list[str], list[FoundPicture]]]:
    """Batches as they are sent, with the names of their pictures."""
    names: list[str] = []
    batch: list[FoundPicture] = []
    held = 0
    for name, picture in _as_sent(pictures):
        names.append(name)
        batch.append(picture)
        held += picture.byte_count or 0
        if len(batch) == size or held >= _MESSAGE_BYTES:
            yield names, batch
            names, batch, held = [], [], 0
    if batch:
        yield names, batch


def _as_sent(pictures: Iterable[FoundPicture]) -> Iterator[tuple[str, FoundPicture]]:
    """Pictures that need nothing of this process: bytes, or a path from the root."""
    reader = PictureBytes()
    threads = DaemonThreads(_READING_THREADS, "reading")

    def begin(found: FoundPicture) -> Future[tuple[str, FoundPicture]]:
        return threads.submit(_sent, reader, found)

    try:
        yield from work_ahead(
            pictures, begin, 2 * _READING_THREADS, _READING_THREADS * UNKNOWN_BYTES
        )
    finally:
        threads.close()


def _sent(reader: PictureBytes, found: FoundPicture) -> tuple[str, FoundPicture]:
    name = found.path
    if found.error is not None:
        return name, replace(found, read=None)
    try:
        with reader.of(found) as data:
            if data is None:
                return name, replace(found, path=os.path.abspath(name))
            return name, replace(found, read=partial(bytes, data), byte_count=len(data))
    except (OSError, ValueError) as error:
        return name, replace(found, read=None, error=str(error))
