"""The `image-quality-assessment` pipeline: one dictionary a picture."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .cpu_linear import cpu_linear, parts_of_batch
from .http_download import DownloadError, download, is_http
from .views import PictureError, assemble_map, picture_name, view_boxes

__all__ = ["ImageQualityAssessmentPipeline"]

_DOWNLOAD_SECONDS = 60.0
_ONE_PICTURE = (str, bytes, bytearray, memoryview)
_ALWAYS = ("score", "uncertainty", "levels", "distortions")
_OUTPUTS = {
    "score": "logits",
    "uncertainty": "uncertainty",
    "levels": "level_probabilities",
    "distortions": "distortion_probabilities",
    "quality_map": "quality_map",
    "costs": "distortion_costs",
    "familiarity": "familiarity_distance",
}


class ImageQualityAssessmentPipeline(Pipeline):
    """Score photographs from 0 (worst) to 100 (best) without a reference.

    Accepts a path, an http(s) address, bytes, a Pillow picture, an array or a tensor. A list or a
    column of `datasets` gives a list of results, a generator or a `KeyDataset` an iterator over
    them. A result is

    - `score`: 0-100, higher is better; a function of the picture alone;
    - `label`: the band of the score (bad, poor, fair, good or excellent);
    - `uncertainty`: standard deviation in score points;
    - `levels`, `distortions`: lists of `{"label", "score"}`, the most probable first;
    - `low_resolution`: `True`, only where the picture had to be upscaled to fill a view;
    - `unfamiliar`: `True`, only where the picture is unlike the photographs that the model was
      trained on (a drawing, a screenshot, noise), and only of a model that can tell;
    - `quality_map`: float32 (height, width) over the upright picture in score points, on request;
    - `costs`: a list of `{"label", "points"}`, what each distortion takes from the score, dearest
      first, on request: the score with that distortion out of the text condition, minus the score.

    Parameters, of the constructor or of a call:
        quality_map: Whether to add the map.
        explain: Whether to add the costs; twice the time.
        num_inference_steps: Denoising steps instead of the model's own number.
        view_strategy: View strategy instead of the image processor's own.
        max_pixels: Limit on width x height instead of the image processor's own.
        timeout: Seconds that the download of an address may take in all (60); 256 MB are its limit.
        allow_private_addresses: Whether an address, or where it is redirected to, may lie in a
            private network or on this machine. Only then are proxies of the environment used: what
            a proxy connects to cannot be checked.

    Raises:
        PictureError: a picture cannot be read, or the model gave it a score that is no number; the
            message names the picture.
    """

    # All five, or loading code from a repository asks a question on the terminal.
    _load_processor: Any = False
    _load_image_processor: Any = True
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    _load_video_processor: Any = False

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one picture, or each of a list, a generator or a dataset; see the class."""
        if isinstance(inputs, (list, tuple)):
            # The base class takes a tuple for one picture and looks at the first of an empty list.
            return super().__call__(list(inputs), *args, **kwargs) if inputs else []
        if isinstance(inputs, Sequence) and not isinstance(inputs, _ONE_PICTURE):
            # Such as a column of `datasets`, whose pictures may not fit into memory together.
            return list(super().__call__((picture for picture in inputs), *args, **kwargs))
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        quality_map: bool | None = None,
        explain: bool | None = None,
        num_inference_steps: int | None = None,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
        timeout: float | None = None,
        allow_private_addresses: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, wish in (("quality_map", quality_map), ("explain", explain)):
            if wish is not None and not isinstance(wish, bool):
                raise ValueError(f"{name} must be True or False, got {wish!r}")
        for name, number in (("max_pixels", max_pixels), ("timeout", timeout)):
            is_number = isinstance(number, Real) and not isinstance(number, bool)
            if number is not None and not (is_number and number > 0):
                raise ValueError(f"{name} must be a number above 0, got {number!r}")
        preprocess = {
            "view_strategy": view_strategy,
            "max_pixels": max_pixels,
            "timeout": timeout,
            "allow_private_addresses": allow_private_addresses,
        }
        forward = {
            "output_quality_map": quality_map,
            "output_distortion_costs": explain,
            "num_inference_steps": num_inference_steps,
        }
        return (
            {key: value for key, value in preprocess.items() if value is not None},
            {key: value for key, value in forward.items() if value is not None},
            {},
        )

    def preprocess(  # type: ignore[override]
        self,
        input_: Any,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
        timeout: float = _DOWNLOAD_SECONDS,
        allow_private_addresses: bool = False,
    ) -> dict[str, Any]:
        """Read one picture and cut its views; keeps what the result needs to know about it."""
        processor: Any = self.image_processor
        strategy = processor.view_strategy if view_strategy is None else view_strategy
        limit = processor.max_pixels if max_pixels is None else max_pixels
        source, name = input_, picture_name(input_)
        if isinstance(source, str) and is_http(source):
            source = _downloaded(source, timeout, allow_private_addresses)
        try:
            # Only the processor knows tensors; it reads them like arrays.
            picture = processor.process_image(source, max_pixels=limit)
        except PictureError as error:
            raise PictureError(name, error.reason, error.remedy) from error.__cause__
        inputs = processor(picture, view_strategy=strategy, max_pixels=limit, return_tensors="pt")
        return {
            "pixel_values": inputs["pixel_values"],
            "low_resolution": inputs["low_resolution"],
            "picture": {"name": name, "size": picture.size, "view_strategy": strategy},
        }

    def _forward(  # type: ignore[override]
        self, input_tensors: dict[str, Any], **parameters: Any
    ) -> dict[str, Any]:
        batch = input_tensors["pixel_values"], input_tensors["low_resolution"]
        with cpu_linear(self.model):
            outputs = [
                self.model(pixel_values=views, low_resolution=enlarged, **parameters)
                for views, enlarged in parts_of_batch(*batch)
            ]
        return {
            **{key: _joined(outputs, field) for key, field in _OUTPUTS.items()},
            "low_resolution": input_tensors["low_resolution"],
            "picture": input_tensors["picture"],
        }

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Turn the outputs for one picture into its result."""
        config: Any = self.model.config
        facts = model_outputs["picture"]
        numbers = {
            key: model_outputs[key].detach().float().cpu().reshape(-1).tolist()
            for key in ("score", "uncertainty", "levels", "distortions", "costs", "familiarity")
            if model_outputs.get(key) is not None or key in _ALWAYS
        }
        for key, values in numbers.items():
            if not all(math.isfinite(value) for value in values):
                raise PictureError(
                    facts["name"],
                    f"the model's {key} is not a finite number",
                    "score in float32; if it was, the weights are damaged",
                )
        score = numbers["score"][0]
        result: dict[str, Any] = {
            "score": score,
            "label": config.level_names[bisect.bisect_right(config.level_borders, score)],
            "uncertainty": numbers["uncertainty"][0],
            "levels": _ranked(config.level_names, numbers["levels"]),
            "distortions": _ranked(config.distortion_names, numbers["distortions"]),
        }
        if bool(model_outputs["low_resolution"].reshape(-1)[0]):
            result["low_resolution"] = True
        if "familiarity" in numbers and numbers["familiarity"][0] > config.familiarity_threshold:
            result["unfamiliar"] = True
        if "costs" in numbers:
            named = zip(config.distortion_names[1:], numbers["costs"][1:], strict=True)
            result["costs"] = [
                {"label": name, "points": cost}
                for name, cost in sorted(named, key=lambda pair: -pair[1])
            ]
        if model_outputs["quality_map"] is not None:
            result["quality_map"] = self._whole_map(model_outputs["quality_map"], facts)
        return result

    def _whole_map(self, maps: torch.Tensor, facts: dict[str, Any]) -> np.ndarray:
        processor: Any = self.image_processor
        width, height = facts["size"]
        across, down = facts.get("map_size", facts["size"])
        boxes = view_boxes(
            width, height, facts["view_strategy"], processor.size["height"], processor.short_side
        )
        values = maps.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise PictureError(
                facts["name"], "the model's quality map is not finite", "score in float32"
            )
        return assemble_map(values.reshape(len(boxes), *values.shape[-2:]), boxes, down, across)


def _ranked(names: list[str], probabilities: list[float]) -> list[dict[str, Any]]:
    pairs = zip(names, probabilities, strict=True)
    return [
        {"label": name, "score": probability}
        for name, probability in sorted(pairs, key=lambda pair: -pair[1])
    ]


def _joined(outputs: Sequence[Any], field: str) -> Any:
    """One field of several outputs; None where there is none."""
    parts = [getattr(output, field) for output in outputs]
    return parts[0] if len(parts) == 1 or parts[0] is None else torch.cat(parts)


def _downloaded(address: str, seconds: float, allow_private: bool) -> bytes:
    try:
        return download(address, seconds, allow_private)
    except DownloadError as error:
        raise PictureError(address, error.reason, error.remedy) from error
