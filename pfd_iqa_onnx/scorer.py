"""Score pictures with onnxruntime, by the same rule as the pipeline."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from pfd_iqa_onnx.contract import (
    FAMILIARITY,
    INPUTS,
    OUTPUTS,
    QUALITY_MAP,
    Contract,
    ModelFileError,
)
from pfd_iqa_onnx.shared import (
    VIEW_STRATEGIES,
    BatchScorer,
    PictureError,
    PreparedPicture,
    assemble_map,
    is_low_resolution,
    open_picture,
    picture_name,
    picture_views,
    view_boxes,
)

__all__ = ["OnnxScorer"]

_ONLY_ERRORS = 3


class OnnxScorer(BatchScorer):
    """An exported model that turns pictures into results and found pictures into records.

    Args:
        file: What `pfd-iqa export onnx` wrote.
        batch_size: Pictures that go through the model together; it does not change their scores.
        view_strategy: View strategy instead of the file's own.
        max_pixels: Limit on width x height instead of the file's own.
        threads: CPU threads of the model; None takes one a core.
        providers: onnxruntime's execution providers, best first; None takes the CPU.

    Attributes:
        contract: What the file says of itself.

    Raises:
        ModelFileError: the file is missing, damaged, or no PFD-IQA model.
        ValueError: unknown `view_strategy`.
    """

    def __init__(
        self,
        file: str | Path,
        batch_size: int = 8,
        view_strategy: str | None = None,
        max_pixels: int | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        """Load the model, once."""
        self._session, self.contract = _open_session(file, threads, providers)
        contract = self.contract
        self.view_strategy = view_strategy or contract.view_strategy
        if self.view_strategy not in VIEW_STRATEGIES:
            known = ", ".join(sorted(VIEW_STRATEGIES))
            raise ValueError(f"'view_strategy' must be one of {known}, got {self.view_strategy!r}")
        origin = {
            "model": str(file),
            "model_sha256": contract.model_sha256,
            "version": contract.version,
        }
        limit = contract.max_pixels if max_pixels is None else max_pixels
        super().__init__(batch_size, limit, origin)
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def has_quality_map(self) -> bool:
        """Whether the file can tell local quality."""
        return QUALITY_MAP in self._outputs

    def assess(self, source: Any, quality_map: bool = False) -> dict[str, Any]:
        """Score one picture; the result is that of the `image-quality-assessment` pipeline.

        Args:
            source: A path, bytes, a Pillow picture or an array.
            quality_map: Whether to add the map over the upright picture.

        Raises:
            PictureError: the picture cannot be read, or its score is no number.
            ValueError: the file holds no quality map.
        """
        if quality_map and not self.has_quality_map:
            raise ValueError("the model file holds no quality map; export it with --quality-map")
        try:
            picture = open_picture(source, self.max_pixels)
            inputs = self.inputs(picture)
            output = self.run_inputs([inputs], quality_map)[0]
            return self._read(output, inputs, picture.size, picture.size)
        except PictureError as error:
            raise PictureError(
                picture_name(source), error.reason, error.remedy
            ) from error.__cause__

    def inputs(self, picture: Image.Image) -> dict[str, Any]:
        """The model's inputs for one upright RGB picture.

        Returns:
            `pixel_values`, float32 (views, 3, size, size), and `low_resolution`, a bool.
        """
        contract = self.contract
        views, _ = picture_views(
            picture, self.view_strategy, contract.view_size, contract.short_side
        )
        values = views.astype(np.float32)  # views, size, size, 3
        values *= np.float32(contract.rescale_factor)
        values -= np.asarray(contract.image_mean, np.float32)
        values /= np.asarray(contract.image_std, np.float32)
        return {
            "pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2)),
            "low_resolution": is_low_resolution(*picture.size, contract.view_size),
        }

    def _inputs(self, picture: Image.Image) -> dict[str, Any]:
        return self.inputs(picture)

    def _run(self, batch: Sequence[PreparedPicture], with_map: bool) -> list[dict[str, Any]]:
        return self.run_inputs([prepared.inputs for prepared in batch], with_map)

    def run_inputs(
        self, inputs: Sequence[dict[str, Any]], with_map: bool = False
    ) -> list[dict[str, np.ndarray]]:
        """The bare model's outputs by name, one dictionary for each of `inputs`."""
        wanted = [name for name in self._outputs if name != QUALITY_MAP or with_map]
        outputs = self._session.run(
            wanted,
            {
                "pixel_values": np.stack([entry["pixel_values"] for entry in inputs]),
                "low_resolution": np.array([entry["low_resolution"] for entry in inputs], bool),
            },
        )
        return [dict(zip(wanted, values, strict=True)) for values in zip(*outputs, strict=True)]

    def _result(self, prepared: PreparedPicture, output: dict[str, Any]) -> dict[str, Any]:
        assert prepared.size is not None  # it was read
        map_size = prepared.map_size or prepared.size
        return self._read(output, prepared.inputs, prepared.size, map_size)

    def _read(
        self,
        output: dict[str, np.ndarray],
        inputs: dict[str, Any],
        size: tuple[int, int],
        map_size: tuple[int, int],
    ) -> dict[str, Any]:
        contract = self.contract
        for name, values in output.items():
            if not np.isfinite(values).all():
                raise PictureError(
                    "<picture>",
                    f"the model's {name.replace('_', ' ')} is not a finite number",
                    "score with a file of precision fp32; if it is one, it is damaged",
                )
        score = float(output["score"])
        result: dict[str, Any] = {
            "score": score,
            "label": contract.level_names[bisect.bisect_right(contract.level_borders, score)],
            "uncertainty": float(output["uncertainty"]),
            "levels": _ranked(contract.level_names, output["levels"]),
            "distortions": _ranked(contract.distortion_names, output["distortions"]),
        }
        if inputs["low_resolution"]:
            result["low_resolution"] = True
        threshold = contract.familiarity_threshold
        if threshold is not None and FAMILIARITY in output and output[FAMILIARITY] > threshold:
            result["unfamiliar"] = True
        if QUALITY_MAP in output:
            boxes = view_boxes(*size, self.view_strategy, contract.view_size, contract.short_side)
            across, down = map_size
            result[QUALITY_MAP] = assemble_map(output[QUALITY_MAP], boxes, down, across)
        return result


def _open_session(
    file: str | Path, threads: int | None = None, providers: Sequence[str] | None = None
) -> tuple[onnxruntime.InferenceSession, Contract]:
    """Load a model file and what it says of itself.

    Raises:
        ModelFileError: it is missing, damaged, or no PFD-IQA model.
    """
    path = Path(file)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "there is no such file"
        raise ModelFileError(file, reason)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=list(providers or ["CPUExecutionProvider"])
        )
    except Exception as error:  # onnxruntime's exceptions have no class of their own in common
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFileError(file, f"onnxruntime cannot load it ({first})") from error
    contract = Contract.from_metadata(session.get_modelmeta().custom_metadata_map, file)
    inputs = {entry.name for entry in session.get_inputs()}
    outputs = {entry.name for entry in session.get_outputs()}
    known = {*OUTPUTS, FAMILIARITY, QUALITY_MAP}
    if inputs != set(INPUTS) or not set(OUTPUTS) <= outputs <= known:
        raise ModelFileError(file, "its inputs and outputs are not those of a PFD-IQA model")
    sides = next(entry.shape[-2:] for entry in session.get_inputs() if entry.name == INPUTS[0])
    if any(isinstance(side, int) and side != contract.view_size for side in sides):
        told = f"{contract.view_size} x {contract.view_size}"
        taken = " x ".join(map(str, sides))
        raise ModelFileError(file, f"its metadata tell of views of {told}, its graph takes {taken}")
    return session, contract


def _ranked(names: Sequence[str], probabilities: np.ndarray) -> list[dict[str, Any]]:
    pairs = zip(names, probabilities.tolist(), strict=True)
    return [
        {"label": name, "score": probability}
        for name, probability in sorted(pairs, key=lambda pair: -pair[1])
    ]
