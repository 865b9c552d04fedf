"""Bytes of a picture in, its record out; many threads may ask at once."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.demo.limits import Limits
from pfd_iqa_hf.demo.micro_batches import MicroBatcher
from pfd_iqa_hf.evaluation.comparison import ranking
from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture
from pfd_iqa_hf.scoring.folder import checkpoint_origin, load_pipeline
from pfd_iqa_hf.scoring.records import make_record

__all__ = ["Assessment", "Assessor", "named_record", "ranked_pair"]

Record = dict[str, Any]

_PREVIEW_SIDE = 1024
_MAP_SIDE = 320


@dataclass(frozen=True)
class Assessment:
    """What the page shows of one picture.

    Attributes:
        record: As `named_record` makes it, and `low_resolution` where the pipeline says so.
        preview: The upright picture, at most 1024 pixels long.
        quality_map: (height, width) in score points, at most 320 long; None unless it was asked
            for.
        costs: What each distortion takes from the score, dearest first, as the pipeline tells it;
            with the map, and None of a model that cannot tell.
    """

    record: Record
    preview: Image.Image
    quality_map: np.ndarray | None
    costs: list[dict[str, Any]] | None = None


class Assessor:
    """A loaded model for requests from many threads.

    Args:
        model: Folder or Hub id of a checkpoint; None is the bundled one.
        device: Such as `cpu` or `cuda:0`; None takes an accelerator where there is one.
        dtype: What the backbone computes in.
        limits: Bounds of a picture and of its time.

    Raises:
        OSError, ValueError, RuntimeError: the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        limits: Limits | None = None,
    ) -> None:
        """Load the model, once."""
        folder = str(default_checkpoint()) if model is None else model
        self.limits = limits or Limits()
        self.pipeline = load_pipeline(folder, device=device, dtype=dtype)
        self.origin = checkpoint_origin(model)
        if model is not None and Path(model).is_dir():
            # Where it lies on this machine is none of the clients' business.
            self.origin["model"] = Path(model).resolve().name
        self.is_default = model is None
        config: Any = self.pipeline.model.config
        self.level_names = [str(name) for name in config.level_names]
        self.level_borders = [float(border) for border in config.level_borders]
        self._decoders = threading.BoundedSemaphore(self.limits.decoders)
        self._model = MicroBatcher(self._forward, self.limits.batch_size)

    def close(self) -> None:
        """End the model's thread."""
        self._model.close()

    def assess(self, data: bytes, name: str, with_map: bool = False) -> Assessment:
        """Score one picture.

        Args:
            data: The file's bytes.
            name: What it is called in record and messages.
            with_map: Whether the page needs its quality map and the costs of distortions.

        Raises:
            PictureError: it cannot be read or scored, or not in time; the message names it.
        """
        deadline = time.monotonic() + self.limits.seconds
        if not self._decoders.acquire(timeout=self.limits.seconds):
            raise self._late(name)
        try:
            try:
                picture = open_picture(data, self.limits.max_pixels)
            except PictureError as error:
                raise PictureError(name, error.reason, error.remedy) from error.__cause__
            size, preview = picture.size, _reduced(picture)
            inputs = self.pipeline.preprocess(picture, max_pixels=self.limits.max_pixels)
        finally:
            self._decoders.release()
        inputs["picture"]["name"] = name
        inputs["picture"]["map_size"] = _fitted(*size, _MAP_SIDE)
        inputs["with_map"] = with_map
        future = self._model.submit(inputs)
        try:
            output = future.result(max(deadline - time.monotonic(), 0.001))
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise self._late(name) from None
        result = self.pipeline.postprocess(output)
        record = named_record(name, self.origin, result, size)
        if "low_resolution" in result:
            record["low_resolution"] = result["low_resolution"]
        return Assessment(record, preview, result.get("quality_map"), result.get("costs"))

    def _late(self, name: str) -> PictureError:
        return PictureError(
            name,
            f"was not scored within {self.limits.seconds:g} s",
            "try again when there is less to do, or send a smaller picture",
        )

    def _forward(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        with_map = any(entry["with_map"] for entry in batch)
        output = self.pipeline.forward(
            {
                "pixel_values": torch.cat([entry["pixel_values"] for entry in batch]),
                "low_resolution": torch.cat([entry["low_resolution"] for entry in batch]),
                "picture": [entry["picture"] for entry in batch],
            },
            output_quality_map=with_map,
            output_distortion_costs=with_map,
        )
        results = []
        for index, entry in enumerate(batch):
            # A copy, or the result of one picture would keep the whole batch in memory.
            result = {
                key: value[index].clone() if isinstance(value, torch.Tensor) else value
                for key, value in output.items()
            }
            result["picture"] = entry["picture"]
            if not entry["with_map"]:
                result["quality_map"] = result["costs"] = None
            results.append(result)
        return results


def named_record(name: str, *facts: Any, **more: Any) -> Record:
    """A record as `pfd-iqa score` writes it, with `name` instead of `path`.

    A dictionary with a `path` is a file for `gradio_client`, which would try to download it.
    """
    record = make_record(name, *facts, **more)
    record.pop("path")
    return {"name": name, **record}


def ranked_pair(first: Record, second: Record, origin: dict[str, str]) -> dict[str, Any]:
    """Two records as `pfd-iqa compare --json` prints them, but with names; the better one first.

    `better_than_next` is the probability that people would agree; 0.5 for equal scores.
    """
    pair = (first, second)
    order = ranking(
        [record["score"] for record in pair], [record["uncertainty"] for record in pair]
    )
    keys = ("name", "score", "uncertainty", "label")
    ranked = [
        {
            "rank": place,
            **{key: pair[index][key] for key in keys},
            "better_than_next": probability,
        }
        for place, (index, probability) in enumerate(order, start=1)
    ]
    return {"ranking": ranked, **origin}


def _fitted(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _reduced(picture: Image.Image) -> Image.Image:
    size = _fitted(*picture.size, _PREVIEW_SIDE)
    if size == picture.size:
        return picture.copy()
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
