"""Everything that the runner takes from `pfd_iqa_hf`'s files, under one roof for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pfd_iqa_hf.evaluation.calibration import Calibration, load_calibration
    from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture, picture_name
    from pfd_iqa_hf.modeling.views import (
        VIEW_STRATEGIES,
        assemble_map,
        is_low_resolution,
        picture_views,
        view_boxes,
    )
    from pfd_iqa_hf.scoring.batches import BatchScorer, PreparedPicture
    from pfd_iqa_hf.scoring.find import FoundPicture, find_pictures
    from pfd_iqa_hf.scoring.records import (
        COSTS_FIELDS,
        OWN_SCALE_FIELDS,
        CsvWriter,
        JsonLinesWriter,
        MissingExtraError,
        ParquetWriter,
        RecordWriter,
        replaced_when_complete,
        require_pyarrow,
    )
else:
    from pfd_iqa_onnx.evaluation.calibration import Calibration, load_calibration
    from pfd_iqa_onnx.modeling.picture_reading import PictureError, open_picture, picture_name
    from pfd_iqa_onnx.modeling.views import (
        VIEW_STRATEGIES,
        assemble_map,
        is_low_resolution,
        picture_views,
        view_boxes,
    )
    from pfd_iqa_onnx.scoring.batches import BatchScorer, PreparedPicture
    from pfd_iqa_onnx.scoring.find import FoundPicture, find_pictures
    from pfd_iqa_onnx.scoring.records import (
        COSTS_FIELDS,
        OWN_SCALE_FIELDS,
        CsvWriter,
        JsonLinesWriter,
        MissingExtraError,
        ParquetWriter,
        RecordWriter,
        replaced_when_complete,
        require_pyarrow,
    )

__all__ = [
    "COSTS_FIELDS",
    "OWN_SCALE_FIELDS",
    "VIEW_STRATEGIES",
    "BatchScorer",
    "Calibration",
    "CsvWriter",
    "FoundPicture",
    "JsonLinesWriter",
    "MissingExtraError",
    "ParquetWriter",
    "PictureError",
    "PreparedPicture",
    "RecordWriter",
    "assemble_map",
    "find_pictures",
    "is_low_resolution",
    "load_calibration",
    "open_picture",
    "picture_name",
    "picture_views",
    "replaced_when_complete",
    "require_pyarrow",
    "view_boxes",
]
