"""Run the model of `pfd-iqa score`: at once for a few pictures, as a pipeline for many."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pfd_iqa_cli.model_options import (
    checked_dtype,
    dtype_name,
    loading_errors_told,
    prepare_libraries,
)
from pfd_iqa_cli.onnx_backend import check_views, load_onnx
from pfd_iqa_cli.score_options import Backend

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.find import FoundPicture

__all__ = ["FEW_PICTURES", "Engine", "EngineOptions", "load_engine", "run_facts_of"]

# Up to so many, starting processes would take longer than they save.
FEW_PICTURES = 48
# More lanes would each hold a batch in memory for little; each takes several cores instead.
_MOST_LANES = 8
_LANES_OF_AN_ACCELERATOR = 2


@dataclass(frozen=True)
class EngineOptions:
    """What was said about the model, and about how pictures go through it.

    Attributes:
        backend: What runs it.
        model: Checkpoint or model file, None for the bundled checkpoint.
        device: Where it runs, None for an accelerator if there is one.
        dtype: As on the command line.
        batch_size: Pictures that go through it together.
        views: View strategy instead of the model's own.
        max_pixels: Limit on width x height instead of the model's own.
        map: Folder for heat maps, or None.
        pipeline: Whether decoding has processes of its own, and several batches run at once on a
            CPU, each on its share of cores.
        workers: Their number, None decides by itself.
        time_limit: Seconds for one picture in a pipeline.
        with_views: Whether a report needs the pictures themselves.
        explain: Whether records tell what each distortion costs.
    """

    backend: Backend
    model: str | None
    device: str | None
    dtype: str
    batch_size: int
    views: str | None
    max_pixels: int | None
    map: Path | None
    pipeline: bool
    workers: int | None
    time_limit: float
    with_views: bool
    explain: bool = False


class Engine(Protocol):
    """A loaded model, and the way pictures go through it.

    Attributes:
        facts: What scores depend on beside the pictures; JSON values for a manifest.
    """

    facts: dict[str, Any]

    def score(self, pictures: Iterable[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        """Yield one result a picture, in order."""


def run_facts_of(facts: dict[str, Any], options: EngineOptions) -> dict[str, Any]:
    """What scores depend on, the same for all engines: a run may go on with another one.

    Args:
        facts: `model`, `model_sha256`, `version`, `view_strategy` and `max_pixels`.
        options: What else was asked for.
    """
    precision = {} if "precision" in facts else {"dtype": dtype_name(options.dtype)}
    # Told only where it is wanted: runs of earlier versions have no such fact.
    explained = {"explain": True} if options.explain else {}
    return {**facts, "backend": options.backend.value, **precision, **explained}


class _LocalEngine:
    """The model in this process."""

    def __init__(self, scorer: Any, options: EngineOptions, lanes: int) -> None:
        self._scorer = scorer
        self._options = options
        self._lanes = lanes
        facts = {
            **scorer.origin,
            "view_strategy": scorer.view_strategy,
            "max_pixels": scorer.max_pixels,
        }
        if options.backend is Backend.onnx:
            facts["precision"] = scorer.contract.precision
        self.facts = run_facts_of(facts, options)

    def score(self, pictures: Iterable[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        return self._as_pipeline(pictures) if self._options.pipeline else self._at_once(pictures)

    def _at_once(self, pictures: Iterable[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        """Score in this process alone, one batch after the other."""
        from pfd_iqa_cli.light_scoring import ScoredPicture

        for record in self._scorer.score(pictures, self._options.map):
            yield ScoredPicture(record, None)

    def _as_pipeline(
        self, pictures: Iterable[FoundPicture]
    ) -> Generator[ScoredPicture, None, None]:
        """Score with decoding in processes of their own."""
        from pfd_iqa_cli.light_scoring import DecoderPool, bulk_model, score_in_bulk

        model = bulk_model(self._scorer)
        options = self._options
        with (
            DecoderPool(model.settings, options.workers, options.time_limit) as pool,
            contextlib.closing(score_in_bulk(model, pool, pictures, self._lanes)) as results,
        ):
            yield from results


def load_engine(options: EngineOptions) -> Engine:
    """Load a model here; from now on torch is imported, unless the backend is onnx.

    Raises:
        typer.BadParameter: an option cannot be used.
    """
    from pfd_iqa_cli.light_scoring import usable_cores

    cores = usable_cores()
    lanes = min(cores, _MOST_LANES)
    model, batch_size, max_pixels = options.model, options.batch_size, options.max_pixels
    if options.backend is Backend.onnx:
        # A share of the cores for each lane; alone it takes what onnxruntime does.
        share = max(1, cores // lanes) if options.pipeline and cores > 1 else None
        with_map = options.map is not None
        onnx = load_onnx(str(model), batch_size, options.views, max_pixels, with_map, share)
        return _LocalEngine(onnx, options, lanes)
    check_views(options.views)
    prepare_libraries(options.device)
    from pfd_iqa_hf.scoring.folder import FolderScorer

    with loading_errors_told(model):
        dtype = checked_dtype(options.dtype)
        scorer = FolderScorer(
            model, options.device, dtype, batch_size, options.views, max_pixels, options.explain
        )
    if scorer.pipeline.device.type != "cpu":
        return _LocalEngine(scorer, options, _LANES_OF_AN_ACCELERATOR)
    if options.pipeline:
        import torch

        torch.set_num_threads(max(1, cores // lanes))
    return _LocalEngine(scorer, options, lanes)
