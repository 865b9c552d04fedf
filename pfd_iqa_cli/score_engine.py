"""Run the model of `pfd-iqa score`: at once for a few pictures, as a pipeline for many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfd_iqa_cli.model_options import (
    checked_dtype,
    loading_errors_told,
    prepare_libraries,
)
from pfd_iqa_cli.onnx_backend import check_views, load_onnx
from pfd_iqa_cli.score_options import Backend

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.find import FoundPicture
    from pfd_iqa_hf.scoring.folder import FolderScorer
    from pfd_iqa_onnx.scorer import OnnxScorer

__all__ = ["FEW_PICTURES", "Engine", "engine_facts", "load_engine"]

# Up to so many, starting processes would take longer than they save.
FEW_PICTURES = 48
# More lanes would each hold a batch in memory for little; each takes several cores instead.
_MOST_LANES = 8
_LANES_OF_AN_ACCELERATOR = 2


class Engine:
    """A loaded model, and the way pictures go through it.

    Args:
        scorer: The model.
        lanes: Batches that run at once in a pipeline.
    """

    def __init__(self, scorer: FolderScorer | OnnxScorer, lanes: int) -> None:
        """Keep both."""
        self.scorer = scorer
        self._lanes = lanes

    def at_once(
        self, pictures: Iterable[FoundPicture], map: Path | None
    ) -> Iterator[ScoredPicture]:
        """Score in this process alone, one batch after the other."""
        from pfd_iqa_cli.light_scoring import ScoredPicture

        for record in self.scorer.score(pictures, map):
            yield ScoredPicture(record, None)

    def as_pipeline(
        self, pictures: Iterable[FoundPicture], workers: int | None, seconds: float
    ) -> Iterator[ScoredPicture]:
        """Score with decoding in processes of their own, `seconds` at most for each picture."""
        from pfd_iqa_cli.light_scoring import DecoderPool, bulk_model, score_in_bulk

        model = bulk_model(self.scorer)
        with (
            DecoderPool(model.settings, workers, seconds) as pool,
            contextlib.closing(score_in_bulk(model, pool, pictures, self._lanes)) as results,
        ):
            yield from results


def load_engine(
    backend: Backend,
    model: str | None,
    device: str | None,
    dtype: str,
    batch_size: int,
    views: str | None,
    max_pixels: int | None,
    with_map: bool,
    pipeline: bool,
) -> Engine:
    """Load a model; from here on torch is imported, unless the backend is onnx.

    Args:
        pipeline: Whether several batches are to run at once on a CPU, each on its share of cores.

    Raises:
        typer.BadParameter: an option cannot be used.
    """
    from pfd_iqa_cli.light_scoring import usable_cores

    cores = usable_cores()
    lanes = min(cores, _MOST_LANES)
    if backend is Backend.onnx:
        # A share of the cores for each lane; alone it takes what onnxruntime does.
        share = max(1, cores // lanes) if pipeline and cores > 1 else None
        onnx = load_onnx(str(model), batch_size, views, max_pixels, with_map, share)
        return Engine(onnx, lanes)
    check_views(views)
    prepare_libraries(device)
    from pfd_iqa_hf.scoring.folder import FolderScorer

    with loading_errors_told(model):
        scorer = FolderScorer(model, device, checked_dtype(dtype), batch_size, views, max_pixels)
    if scorer.pipeline.device.type != "cpu":
        return Engine(scorer, _LANES_OF_AN_ACCELERATOR)
    if pipeline:
        import torch

        torch.set_num_threads(max(1, cores // lanes))
    return Engine(scorer, lanes)


def engine_facts(engine: Engine, backend: Backend, dtype: str) -> dict[str, Any]:
    """What scores depend on beside the pictures; JSON values for a manifest."""
    scorer: Any = engine.scorer
    facts = {
        **scorer.origin,
        "backend": backend.value,
        "view_strategy": scorer.view_strategy,
        "max_pixels": scorer.max_pixels,
    }
    if backend is Backend.onnx:
        return {**facts, "precision": scorer.contract.precision}
    return {**facts, "dtype": str(checked_dtype(dtype)).removeprefix("torch.")}
