"""Score many pictures with PyTorch, through the pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import pipeline
from transformers.utils import cached_file

import pfd_iqa_hf
from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256
from pfd_iqa_hf.modeling.pipeline_pfd_iqa import ImageQualityAssessmentPipeline
from pfd_iqa_hf.modeling.views import is_low_resolution
from pfd_iqa_hf.registration import TASK
from pfd_iqa_hf.scoring.batches import BatchScorer, PreparedPicture
from pfd_iqa_hf.scoring.decoding import DecodingSettings, normalised_views
from pfd_iqa_hf.scoring.records import COSTS_FIELDS

__all__ = ["FolderScorer", "checkpoint_origin", "load_pipeline"]


def load_pipeline(model: str, **options: Any) -> ImageQualityAssessmentPipeline:
    """`transformers.pipeline` of our task, whose annotations know transformers' own tasks only.

    Raises:
        OSError, ValueError, RuntimeError: the checkpoint cannot be loaded.
    """
    try:
        return pipeline(TASK, model=model, **options)  # type: ignore[call-overload]
    except ValueError as error:
        # Transformers tries twice and tells with whole traces; the last line of all is the reason.
        traced = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)$", str(error), re.MULTILINE)
        if not traced:
            raise
        raise ValueError(traced[-1]) from error


def checkpoint_origin(model: str | None) -> dict[str, str]:
    """What a record says of a loaded checkpoint: `model`, `model_sha256` and `version`.

    Args:
        model: Folder or Hub id, None for the bundled one.
    """
    folder = str(default_checkpoint()) if model is None else model
    return {
        "model": "default" if model is None else model,
        "model_sha256": weights_sha256(_local_folder(folder)),
        "version": pfd_iqa_hf.__version__,
    }


class FolderScorer(BatchScorer):
    """A loaded model that turns found pictures into records.

    Args:
        model: Folder or Hub id of a checkpoint; None is the bundled one.
        device: Such as `cpu` or `cuda:0`; None takes an accelerator where there is one.
        dtype: What the backbone computes in; head and score stay in float32.
        batch_size: Pictures that go through the model together; it does not change their scores.
        view_strategy: View strategy instead of the checkpoint's own.
        max_pixels: Limit on width x height instead of the checkpoint's own.
        explain: Whether records have `costs`, what each distortion takes from the score; twice the
            time.

    Raises:
        OSError, ValueError, RuntimeError: the checkpoint cannot be loaded, or cannot explain.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
        explain: bool = False,
    ) -> None:
        """Load the model, once."""
        folder = str(default_checkpoint()) if model is None else model
        self.pipeline = load_pipeline(folder, device=device, dtype=dtype)
        processor: Any = self.pipeline.image_processor
        limit = processor.max_pixels if max_pixels is None else max_pixels
        extra = COSTS_FIELDS if explain else ()
        super().__init__(batch_size, limit, checkpoint_origin(model), extra)
        self._explain = explain
        if explain and not self.pipeline.model.explains:
            raise ValueError(
                f"{folder} cannot tell what distortions cost: it has no prior discovery or no "
                "denoiser"
            )
        self._settings: dict[str, Any] = {"max_pixels": limit}
        if view_strategy is not None:
            self._settings["view_strategy"] = view_strategy

    @property
    def view_strategy(self) -> str:
        """View strategy that pictures are scored with."""
        processor: Any = self.pipeline.image_processor
        return str(self._settings.get("view_strategy", processor.view_strategy))

    def decoding_settings(self) -> DecodingSettings:
        """How another process must cut the views."""
        processor: Any = self.pipeline.image_processor
        return DecodingSettings(
            self.view_strategy, int(processor.size["height"]), processor.short_side, self.max_pixels
        )

    def inputs_of_views(self, views: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
        """What `_inputs` gives, from views that were cut elsewhere.

        Args:
            views: uint8 (views, size, size, 3).
            size: Width and height of the upright picture.
        """
        processor: Any = self.pipeline.image_processor
        values = normalised_views(
            views,
            processor.rescale_factor if processor.do_rescale else 1.0,
            processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0),
            processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0),
        )
        low = is_low_resolution(*size, int(processor.size["height"]))
        return {
            "pixel_values": torch.from_numpy(values)[None],  # 1, views, 3, size, size
            "low_resolution": torch.tensor([low]),
            "picture": {"name": "", "size": size, "view_strategy": self.view_strategy},
        }

    def _inputs(self, picture: Image.Image) -> dict[str, Any]:
        return self.pipeline.preprocess(picture, **self._settings)

    def _run(self, batch: Sequence[PreparedPicture], with_map: bool) -> list[dict[str, Any]]:
        inputs = [prepared.inputs for prepared in batch]
        for prepared in batch:
            prepared.inputs["picture"]["name"] = prepared.found.path
            if prepared.map_size is not None:
                prepared.inputs["picture"]["map_size"] = prepared.map_size
        output = self.pipeline.forward(
            {
                "pixel_values": torch.cat([entry["pixel_values"] for entry in inputs]),
                "low_resolution": torch.cat([entry["low_resolution"] for entry in inputs]),
                "picture": [entry["picture"] for entry in inputs],
            },
            output_quality_map=with_map,
            output_distortion_costs=self._explain,
        )
        return [
            {key: None if value is None else value[index] for key, value in output.items()}
            for index in range(len(inputs))
        ]

    def _result(self, prepared: PreparedPicture, output: dict[str, Any]) -> Mapping[str, Any]:
        return self.pipeline.postprocess(output)


def _local_folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    # The files of a Hub id lie together in its snapshot, which the pipeline has just filled.
    return Path(str(cached_file(model, "config.json"))).parent
