"""The whole model as one ONNX graph with a free number of pictures and of views."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pfd_iqa_hf.export.attention import without_empty_masks
from pfd_iqa_onnx.contract import FAMILIARITY, INPUTS, OUTPUTS, QUALITY_MAP

__all__ = ["ScoreGraph", "example_inputs", "exported_program", "onnx_graph"]

_MOST_PICTURES = 4096
_MOST_VIEWS = 64
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_BACKBONE = "vision_model"
_FIRST_LAYER = re.compile(r"\.layers?\.0\b")


class ScoreGraph(nn.Module):
    """From normalised views to what users read: the graph that is exported and compared with.

    Args:
        model: `PfdIqaForImageQualityAssessment`.
        quality_map: Whether the map is an output too.

    Raises:
        ValueError: the model discovers no priors, so it cannot tell distortions.
    """

    def __init__(self, model: Any, quality_map: bool = True) -> None:
        super().__init__()
        if not model.config.prior_discovery:
            raise ValueError(
                "a model without prior discovery tells no distortions and cannot be exported; "
                "it is meant for ablations"
            )
        self.model = model
        self.quality_map = quality_map

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        tells = self.model.config.familiarity_directions > 0
        return (
            *OUTPUTS,
            *((QUALITY_MAP,) if self.quality_map else ()),
            *((FAMILIARITY,) if tells else ()),
        )

    def forward(
        self, pixel_values: torch.Tensor, low_resolution: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Score pictures.

        Args:
            pixel_values: Normalised views, float32 (B, V, 3, H, W).
            low_resolution: Whether each picture had to be enlarged, bool (B,).

        Returns:
            float32 score (B,), uncertainty (B,), levels (B, K_q), distortions (B, K_d); where
            wanted the quality map (B, V, h, w); of a model that tells it the familiarity distance
            (B,).
        """
        output = self.model(
            pixel_values=pixel_values,
            low_resolution=low_resolution,
            output_quality_map=self.quality_map,
        )
        values = (
            output.logits,
            output.uncertainty,
            output.level_probabilities,
            output.distortion_probabilities,
            output.quality_map,
            output.familiarity_distance,
        )
        return tuple(value.float() for value in values if value is not None)


def example_inputs(model: Any, pictures: int, views: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a shape; the values are noise."""
    side = model.config.vision_config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    generator = torch.Generator().manual_seed(0)
    views_shape = (pictures, views, 3, height, width)
    return torch.randn(views_shape, generator=generator), torch.arange(pictures) % 2 == 0


def exported_program(graph: ScoreGraph) -> torch.export.ExportedProgram:
    """Trace the model with a free number of pictures and of views.

    The size of a view is fixed: the whole method works on one token grid.

    Args:
        graph: In evaluation mode.

    Returns:
        What `torch.export.save` writes as an archive (.pt2).
    """
    pictures = torch.export.Dim("pictures", min=1, max=_MOST_PICTURES)
    views = torch.export.Dim("views", min=1, max=_MOST_VIEWS)
    # Two unlike numbers above one, or the tracer would take them for the same or for a constant.
    inputs = example_inputs(graph.model, 2, 3)
    shapes = {INPUTS[0]: {0: pictures, 1: views}, INPUTS[1]: {0: pictures}}
    with torch.no_grad():
        return torch.export.export(graph, inputs, dynamic_shapes=shapes)


def onnx_graph(graph: ScoreGraph) -> tuple[Any, set[str]]:
    """Trace the model and translate it.

    The weights keep their type, so a model in half precision gives a graph in half precision.

    Args:
        graph: In evaluation mode, on the CPU.

    Returns:
        An `onnx.ModelProto` and the names of the nodes that may be quantised: the backbone's, but
        for its first layer, which alone makes half of the error.
    """
    import onnx

    with _exporter_silenced(), torch.no_grad():
        exported: Any = torch.onnx.export(
            exported_program(graph),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(graph.output_names),
            external_data=False,
            verbose=False,
        )
        model: onnx.ModelProto = exported.model_proto
    without_empty_masks(model)
    robust = {
        node.name
        for node in model.graph.node
        for entry in node.metadata_props
        if entry.key == _NAME_SCOPES
        and f".{_BACKBONE}." in entry.value
        and not _FIRST_LAYER.search(entry.value)
    }
    _forget_the_source(model)
    return model, robust


def _forget_the_source(model: Any) -> None:
    """Take out what tracing noted for debugging: stack traces name folders of this machine."""
    parts = [model, model.graph, *model.functions]
    for part in (model.graph, *model.functions):
        parts += [*part.node, *part.value_info]
        for kind in ("input", "output", "initializer"):
            # Of a function the first two are bare names.
            parts += [e for e in getattr(part, kind, ()) if not isinstance(e, str)]
    for part in parts:
        if hasattr(part, "doc_string"):
            part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]


@contextlib.contextmanager
def _exporter_silenced() -> Iterator[None]:
    """Leave out the exporter's remarks about itself; its errors are exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
