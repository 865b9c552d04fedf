"""What `pfd-iqa score` takes from `pfd_iqa_hf.scoring` without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pfd_iqa_hf.scoring.bulk import BulkModel, ScoredPicture, bulk_model, score_in_bulk
    from pfd_iqa_hf.scoring.decoder_pool import (
        DEFAULT_TIME_LIMIT,
        DecoderPool,
        DecoderStartError,
        usable_cores,
    )
    from pfd_iqa_hf.scoring.find import FoundPicture, expand_path, find_pictures
    from pfd_iqa_hf.scoring.inputs import InputOptions, find_inputs, is_plain
    from pfd_iqa_hf.scoring.parts import OutputFolder, OutputFolderError, write_complete
    from pfd_iqa_hf.scoring.path_set import PathSet
    from pfd_iqa_hf.scoring.ray_workers import RayScoringError, RayWorkers, WorkerSettings
    from pfd_iqa_hf.scoring.report import report_page
    from pfd_iqa_hf.scoring.summary import Summary
else:
    from pfd_iqa_onnx.scoring.bulk import BulkModel, ScoredPicture, bulk_model, score_in_bulk
    from pfd_iqa_onnx.scoring.decoder_pool import (
        DEFAULT_TIME_LIMIT,
        DecoderPool,
        DecoderStartError,
        usable_cores,
    )
    from pfd_iqa_onnx.scoring.find import FoundPicture, expand_path, find_pictures
    from pfd_iqa_onnx.scoring.inputs import InputOptions, find_inputs, is_plain
    from pfd_iqa_onnx.scoring.parts import OutputFolder, OutputFolderError, write_complete
    from pfd_iqa_onnx.scoring.path_set import PathSet
    from pfd_iqa_onnx.scoring.ray_workers import RayScoringError, RayWorkers, WorkerSettings
    from pfd_iqa_onnx.scoring.report import report_page
    from pfd_iqa_onnx.scoring.summary import Summary

__all__ = [
    "DEFAULT_TIME_LIMIT",
    "BulkModel",
    "DecoderPool",
    "DecoderStartError",
    "FoundPicture",
    "InputOptions",
    "OutputFolder",
    "OutputFolderError",
    "PathSet",
    "RayScoringError",
    "RayWorkers",
    "ScoredPicture",
    "Summary",
    "WorkerSettings",
    "bulk_model",
    "expand_path",
    "find_inputs",
    "find_pictures",
    "is_plain",
    "report_page",
    "score_in_bulk",
    "usable_cores",
    "write_complete",
]
