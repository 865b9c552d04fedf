"""What a model file says of itself: how pictures become its inputs and what its outputs mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = [
    "FAMILIARITY",
    "INPUTS",
    "METADATA_KEY",
    "OUTPUTS",
    "QUALITY_MAP",
    "Contract",
    "ModelFileError",
]

METADATA_KEY = "pfd_iqa"
INPUTS = ("pixel_values", "low_resolution")
OUTPUTS = ("score", "uncertainty", "levels", "distortions")
# Outputs that only some files have.
FAMILIARITY = "familiarity_distance"
QUALITY_MAP = "quality_map"
_FORMAT = 1
_REMEDY = "write one with `pfd-iqa export onnx`"


class ModelFileError(ValueError):
    """A file that cannot be used as a model: which one, why, and what to do about it."""

    def __init__(self, file: object, reason: str, remedy: str = _REMEDY) -> None:
        """Join the three parts into one line."""
        super().__init__(f"{file}: {' '.join(reason.split())}; {remedy}")


@dataclass(frozen=True)
class Contract:
    """Preprocessing and meaning of one model file, kept in its metadata as JSON.

    Attributes:
        precision: `fp32`, `fp16` or `int8`; inputs and outputs are float32 in all.
        view_strategy: A key of `VIEW_STRATEGIES`.
        views: Number of views of that strategy.
        view_size: Side of a square view in pixels.
        short_side: Pictures with a longer short side are downscaled to it.
        max_pixels: Larger pictures are refused.
        rescale_factor: Factor from 0..255 to what `image_mean` is given in.
        image_mean: Mean of each channel, red first.
        image_std: Standard deviation of each channel.
        score_range: Lowest and highest score; higher is better.
        level_names: Quality bands, worst first.
        level_borders: Their inner borders in score points; a border belongs to the upper band.
        distortion_names: What `distortions` speaks of, in order; empty without that output.
        interval_factors: Conformal factors by nominal coverage: score ± factor · uncertainty.
        num_inference_steps: Denoising steps in the graph.
        model: Name of the checkpoint it was made from.
        model_sha256: First 12 digits of the SHA-256 of that checkpoint's weights.
        version: Version of pfd-iqa-hf that wrote the file.
        familiarity_threshold: `familiarity_distance` beyond which a picture is unlike the training
            photographs; None without that output, as in files of earlier versions.
    """

    precision: str
    view_strategy: str
    views: int
    view_size: int
    short_side: int
    max_pixels: int
    rescale_factor: float
    image_mean: list[float]
    image_std: list[float]
    score_range: list[float]
    level_names: list[str]
    level_borders: list[float]
    distortion_names: list[str]
    interval_factors: dict[str, float] | None
    num_inference_steps: int
    model: str
    model_sha256: str
    version: str
    familiarity_threshold: float | None = None

    def to_json(self) -> str:
        """The text for `METADATA_KEY`."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: object) -> Contract:
        """Read a file's metadata.

        Raises:
            ModelFileError: there is none of ours, or it cannot be understood.
        """
        if METADATA_KEY not in metadata:
            raise ModelFileError(file, "is an ONNX file, but of another model than PFD-IQA")
        try:
            values: Any = json.loads(metadata[METADATA_KEY])
            kind = values.pop("format")
            if kind != _FORMAT:
                raise ModelFileError(
                    file,
                    f"is of format {kind}, this version reads {_FORMAT}",
                    "install the pfd-iqa-hf that wrote it, or export the model again",
                )
            values.setdefault("familiarity_threshold", None)
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ModelFileError(
                file, f"its metadata is damaged ({type(error).__name__}: {error})"
            ) from error
