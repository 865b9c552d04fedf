"""Predictions for rated pictures, kept as one parquet file that can be evaluated again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfd_iqa_hf.data.table import Rating, RatingTable
from pfd_iqa_hf.scoring.rated import Predictions
from pfd_iqa_hf.scoring.records import replaced_when_complete, require_pyarrow

__all__ = [
    "GROUP_COLUMNS",
    "RatedPredictions",
    "check_group_column",
    "read_predictions",
    "write_predictions",
]

Array = NDArray[np.float64]

GROUP_COLUMNS = ("group", "distortion", "level", "reference_id", "split")
_METADATA_KEY = b"pfd_iqa"
_RATING_COLUMNS = (
    "image",
    "mos",
    "mos_std",
    "level",
    "reference_id",
    "distortion",
    "split",
    "group",
)
_PROBABILITIES = ("level_probabilities", "distortion_probabilities")


@dataclass(frozen=True, eq=False)
class RatedPredictions:
    """Pictures, what people said about them, and what a model says.

    Attributes:
        table: the n pictures that were scored, in order.
        score: (n,) 0 to 100, higher is better.
        uncertainty: (n,) standard deviation in the same points; None if the model states none.
        level_probabilities: (n, 5); None if the model states none.
        distortion_probabilities: (n, 12); None if the model states none.
        facts: what is known of the model and the run, such as `model`, `model_sha256`,
            `level_names`, `interval_factors`; JSON values.
    """

    table: RatingTable
    score: Array
    uncertainty: Array | None = None
    level_probabilities: Array | None = None
    distortion_probabilities: Array | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, table: RatingTable, predictions: Predictions, facts: Mapping[str, Any]
    ) -> RatedPredictions:
        """Joins what `score_ratings` returned with the rows it was given."""
        return cls(
            table.select(predictions.rows.tolist()),
            predictions.score,
            predictions.uncertainty,
            predictions.level_probabilities,
            predictions.distortion_probabilities,
            dict(facts),
        )

    @property
    def mos(self) -> Array:
        """(n,) mean opinion scores, 0 to 100, higher is better."""
        return np.array([rating.mos for rating in self.table], np.float64)

    def names(self, column: str) -> list[str] | None:
        """The value of a column of `GROUP_COLUMNS` in each row; None if no row has one."""
        values = [getattr(rating, column) for rating in self.table]
        if all(value is None for value in values):
            return None
        return ["none" if value is None else str(value) for value in values]


def check_group_column(table: RatingTable, column: str) -> None:
    """Refuse to group by a column that no picture has a value in.

    Raises:
        ValueError: names the columns there are.
    """
    present = [
        name for name in GROUP_COLUMNS if any(getattr(rating, name) is not None for rating in table)
    ]
    if column not in present:
        raise ValueError(
            f"{table.name}: no picture has a {column}; group by {', '.join(present) or 'nothing'}, "
            "or map a column of the dataset to it"
        )


def write_predictions(path: str | Path, rated: RatedPredictions, own_scale: bool = False) -> None:
    """Writes one row a picture, complete or not at all.

    Columns: `image` (below the set's folder), `mos`, `mos_std`, `reference_id`, `distortion`,
    `level`, `split`, `group`, `score`, `uncertainty`, `level_probabilities`,
    `distortion_probabilities`. The scale of the set and `facts` are in the file's metadata.

    Args:
        path: of the parquet file.
        rated: what to write.
        own_scale: add `own_mos`, `own_score` and `own_uncertainty`, in the set's own scale.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = rated.table
    columns: dict[str, Any] = {
        "image": pa.array([_relative(rating, table) for rating in table], pa.string()),
        "mos": pa.array(rated.mos),
        "mos_std": pa.array([rating.mos_std for rating in table], pa.float64()),
        "level": pa.array([rating.level for rating in table], pa.int32()),
    }
    for name in ("reference_id", "distortion", "split", "group"):
        columns[name] = pa.array([getattr(rating, name) for rating in table], pa.string())
    columns["score"] = pa.array(rated.score)
    if rated.uncertainty is not None:
        columns["uncertainty"] = pa.array(rated.uncertainty)
    for name in _PROBABILITIES:
        values = getattr(rated, name)
        if values is not None:
            columns[name] = pa.array(list(values), pa.list_(pa.float64()))
    if own_scale:
        columns["own_mos"] = pa.array(table.to_own_scale(rated.mos))
        columns["own_score"] = pa.array(table.to_own_scale(rated.score))
        if rated.uncertainty is not None:
            own = table.deviations_to_own_scale(rated.uncertainty)
            columns["own_uncertainty"] = pa.array(own)
    about = {
        "dataset": table.name,
        "score_range": list(table.score_range),
        "higher_is_better": table.higher_is_better,
        "facts": rated.facts,
    }
    text = json.dumps(about, ensure_ascii=False).encode("utf-8", "backslashreplace")
    with replaced_when_complete(Path(path)) as beside:
        pq.write_table(pa.table(columns).replace_schema_metadata({_METADATA_KEY: text}), beside)


def read_predictions(path: str | Path) -> RatedPredictions:
    """Reads a file of `write_predictions`, or any parquet file with `image`, `mos` and `score`.

    Without this package's metadata `mos` and `score` are taken as 0 to 100, higher is better, and
    the set's name is the file's.

    Raises:
        MissingExtraError: pyarrow is not installed.
        ValueError: the file is missing, is no parquet file, lacks a column, is empty, or has a
            row without a number; the message names it.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give predictions.parquet of a run")
    try:
        content = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: not a parquet file ({error}); give predictions.parquet of a run"
        ) from error
    missing = [name for name in ("image", "mos", "score") if name not in content.column_names]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)} (it has {', '.join(content.column_names)}); "
            "name the columns image, mos and score"
        )
    if not len(content):
        raise ValueError(f"{path}: has no rows; score some pictures first")
    about: dict[str, Any] = {}
    if content.schema.metadata and _METADATA_KEY in content.schema.metadata:
        about = json.loads(content.schema.metadata[_METADATA_KEY])
    low, high = about.get("score_range", (0.0, 100.0))
    table = RatingTable(
        about.get("dataset", path.stem),
        tuple(_rating(path, number, row) for number, row in enumerate(_plain_rows(content), 1)),
        (float(low), float(high)),
        bool(about.get("higher_is_better", True)),
        root=Path(),
    )
    uncertainty = None
    if "uncertainty" in content.column_names:
        uncertainty = _numbers(path, content, "uncertainty")
    levels, distortions = (
        np.array(content[name].to_pylist()) if name in content.column_names else None
        for name in _PROBABILITIES
    )
    score = _numbers(path, content, "score")
    return RatedPredictions(
        table, score, uncertainty, levels, distortions, facts=about.get("facts", {})
    )


def _plain_rows(content: Any) -> list[dict[str, Any]]:
    wanted = [name for name in content.column_names if name in _RATING_COLUMNS]
    rows: list[dict[str, Any]] = content.select(wanted).to_pylist()
    return rows


def _rating(path: Path, number: int, row: dict[str, Any]) -> Rating:
    mos = row["mos"]
    if isinstance(mos, bool) or not isinstance(mos, int | float) or not math.isfinite(mos):
        raise ValueError(f"{path}, row {number}: mos is {mos!r}; give a number from 0 to 100")
    if row["image"] is None:
        raise ValueError(f"{path}, row {number}: no image; name each picture")
    values = {**row, "image": Path(str(row["image"])), "mos": float(mos)}
    return Rating(**values)


def _numbers(path: Path, content: Any, name: str) -> Array:
    values = content[name].to_pylist()
    for number, value in enumerate(values, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}, row {number}: {name} is {value!r}; give a number")
    return np.array(values, np.float64)


def _relative(rating: Rating, table: RatingTable) -> str:
    name = os.path.relpath(rating.image, table.root).replace(os.sep, "/")
    # A file name that is no valid UTF-8 is text everywhere but in parquet.
    return name.encode("utf-8", "backslashreplace").decode()
