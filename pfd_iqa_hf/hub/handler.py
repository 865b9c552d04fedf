"""Entry point of Inference Endpoints: pictures in, scores from 0 (worst) to 100 (best) out.

This file lies in the repository beside the weights; an endpoint makes one `EndpointHandler` with
the repository's folder and calls it once a request.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from typing import Any

from PIL import Image
from transformers import pipeline

__all__ = ["EndpointHandler"]

_MOST_PICTURES = 64
_PARAMETERS = ("explain", "num_inference_steps", "quality_map", "view_strategy")


class EndpointHandler:
    """Scores the pictures of requests.

    Args:
        path: Folder of the repository: the one that this file came with, whose code is run.

    Raises:
        ValueError: it is no folder.
    """

    def __init__(self, path: str = "") -> None:
        """Load the model, once."""
        if path and not os.path.isdir(path):
            raise ValueError(f"{path!r} is no folder; name the one that the repository lies in")
        task: Any = "image-quality-assessment"
        self._assess: Any = pipeline(task, model=path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer one request.

        Args:
            data: `inputs` is a picture or a list of them: bytes of a file, base64 text of one (with
                or without `data:image/...;base64,` before it), or a Pillow picture. `parameters`
                may hold `quality_map` (true adds the map), `explain` (true adds `costs`),
                `num_inference_steps` and `view_strategy`.

        Returns:
            For each picture a dictionary of what `json.dumps` can write: `score`, `label`,
            `uncertainty`, `levels`, `distortions`, where the picture was too small also
            `low_resolution`; `quality_map` is base64 text of an 8-bit grey PNG in the size of the
            picture, 255 being 100 points.

        Raises:
            ValueError: a picture or parameter cannot be used; an endpoint answers with the message.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('the request has no "inputs": send {"inputs": a picture as base64}')
        parameters = _checked(data.get("parameters") or {})
        inputs = data["inputs"]
        several = isinstance(inputs, (list, tuple))
        if several and len(inputs) > _MOST_PICTURES:
            raise ValueError(
                f"{len(inputs)} pictures in one request, at most {_MOST_PICTURES}: send several"
            )
        pictures = [
            _picture(item, f"picture {number}" if several else "inputs")
            for number, item in enumerate(inputs if several else [inputs])
        ]
        answers = [_as_json(result) for result in self._assess(pictures, **parameters)]
        return answers if several else answers[0]


def _checked(parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict):
        raise ValueError('"parameters" is not an object')
    for name in parameters:
        if name not in _PARAMETERS:
            raise ValueError(f"{name!r} is not a parameter; there are {', '.join(_PARAMETERS)}")
    return parameters


def _picture(item: Any, name: str) -> bytes | Image.Image:
    """Bytes of a file or a Pillow picture; no text is ever taken for a path or an address."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, Image.Image):
        return item
    if not isinstance(item, str):
        kind = type(item).__name__
        raise ValueError(f"{name} is of type {kind}; send the picture's file as base64 text")
    text = item.strip()
    if text.lower().startswith(("http://", "https://", "file:", "ftp://")):
        # Fetching addresses for strangers would open the endpoint's own network to them.
        raise ValueError(f"{name} is an address; fetch it yourself and send the file as base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64 text of a picture's file") from None


def _as_json(result: dict[str, Any]) -> dict[str, Any]:
    answer = dict(result)
    if "quality_map" in answer:
        grey = (answer["quality_map"].clip(0, 100) * 2.55).round().astype("uint8")
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "PNG")
        answer["quality_map"] = base64.b64encode(stream.getvalue()).decode("ascii")
    return answer
