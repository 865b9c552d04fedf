"""Everything that is said about a model on one rated set: numbers, files and plots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pfd_iqa_hf.data.table import RatingTable
from pfd_iqa_hf.evaluation.agreement import (
    Agreement,
    WithinGroups,
    agreement_within_groups,
    measure_agreement,
    without_nan,
)
from pfd_iqa_hf.evaluation.predictions import (
    GROUP_COLUMNS,
    RatedPredictions,
    check_group_column,
    write_predictions,
)
from pfd_iqa_hf.evaluation.uncertainty import (
    UncertaintyReport,
    interval_factors,
    report_uncertainty,
)
from pfd_iqa_hf.scoring.records import replaced_when_complete

__all__ = ["EvaluationReport", "evaluate_predictions", "write_report"]

_BREAKDOWNS = ("group", "distortion", "level")
_LEVEL_BORDERS = (20.0, 40.0, 60.0, 80.0)


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured.

    Attributes:
        dataset: name of the set.
        score_range: lowest and highest score of the set's own scale; RMSE is in this scale.
        higher_is_better: direction of that scale.
        facts: of the model and the run, as in `RatedPredictions`.
        overall: agreement over all pictures.
        breakdowns: agreement within the groups of each column that has at least two values.
        group_by: the column for whose groups the uncertainty is checked too; None for none.
        uncertainty: in points of 0 to 100; None if the model states none.
        notes: what the reader of the numbers should know.
    """

    dataset: str
    score_range: tuple[float, float]
    higher_is_better: bool
    facts: dict[str, Any]
    overall: Agreement
    breakdowns: dict[str, WithinGroups]
    group_by: str | None
    uncertainty: UncertaintyReport | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nested dictionaries, NaN as None."""
        return without_nan(
            {
                "dataset": {
                    "name": self.dataset,
                    "score_range": list(self.score_range),
                    "higher_is_better": self.higher_is_better,
                },
                "run": self.facts,
                "agreement": self.overall.as_dict(),
                "breakdowns": {name: part.as_dict() for name, part in self.breakdowns.items()},
                "group_by": self.group_by,
                "uncertainty": None if self.uncertainty is None else self.uncertainty.as_dict(),
                "notes": list(self.notes),
            }
        )


def evaluate_predictions(
    rated: RatedPredictions,
    *,
    group_by: str | None = None,
    fit: str | None = "logistic4",
    coverage: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    notes: tuple[str, ...] = (),
) -> EvaluationReport:
    """Measures agreement, its breakdowns and the calibration of the uncertainty.

    Args:
        rated: pictures, opinions and predictions.
        group_by: column of `GROUP_COLUMNS` in whose groups to measure as well, such as the
            subsets of a set that differ in mean quality; None takes `group` where there is one.
        fit: as in `measure_agreement`.
        coverage: nominal coverage of the bootstrap intervals.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap.
        notes: kept in the report.

    Returns:
        The report; what is not defined is NaN, with a warning.

    Raises:
        ValueError: no row has a value in the column `group_by`, or an argument is impossible.
    """
    table = rated.table
    columns = {name: names for name in GROUP_COLUMNS if (names := rated.names(name)) is not None}
    if group_by is not None:
        check_group_column(table, group_by)
    if group_by is None and "group" in columns:
        group_by = "group"
    own_score, own_mos = table.to_own_scale(rated.score), table.to_own_scale(rated.mos)
    bootstrap: dict[str, Any] = {"coverage": coverage, "resamples": resamples, "seed": seed}
    overall = measure_agreement(own_score, own_mos, fit=fit, **bootstrap)
    breakdowns = {
        name: agreement_within_groups(own_score, own_mos, names, **bootstrap)
        for name, names in columns.items()
        if name == group_by or (name in _BREAKDOWNS and len(set(names)) > 1)
    }
    uncertainty = None
    if rated.uncertainty is not None:
        uncertainty = report_uncertainty(
            rated.score,
            rated.mos,
            rated.uncertainty,
            factors=interval_factors(rated.facts.get("interval_factors")),
            groups=columns.get(group_by) if group_by is not None else None,
            level_probabilities=rated.level_probabilities,
            levels=np.digitize(
                rated.mos, rated.facts.get("level_borders", _LEVEL_BORDERS)
            ).tolist(),
        )
    return EvaluationReport(
        table.name,
        table.score_range,
        table.higher_is_better,
        rated.facts,
        overall,
        breakdowns,
        group_by,
        uncertainty,
        notes,
    )


def write_report(
    folder: str | Path, rated: RatedPredictions, report: EvaluationReport, own_scale: bool = False
) -> list[Path]:
    """Writes `predictions.parquet`, `report.json`, `scatter.png` and `calibration.png`.

    Args:
        folder: made if it is missing.
        rated: the predictions.
        report: what was measured on them.
        own_scale: whether predictions and scatter plot are (also) in the set's own scale.

    Returns:
        The files, each complete or as it was before; no `calibration.png` without uncertainty.

    Raises:
        ImportError: pyarrow or matplotlib is not installed.
        OSError: a file cannot be written.
    """
    from pfd_iqa_hf.evaluation.plots import calibration_plot, scatter_plot

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "predictions.parquet", folder / "report.json", folder / "scatter.png"]
    write_predictions(files[0], rated, own_scale)
    with replaced_when_complete(files[1]) as path:
        text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    table = rated.table
    score, mos = rated.score, rated.mos
    if own_scale:
        score, mos = table.to_own_scale(score), table.to_own_scale(mos)
    scatter_plot(
        files[2],
        score,
        mos,
        title=f"{table.name}, {len(table):,} pictures: SRCC {report.overall.srcc.value:.3f}",
        fit=report.overall.fit,
        groups=rated.names(report.group_by) if report.group_by is not None else None,
        unit=_unit(table, own_scale),
    )
    if report.uncertainty is not None and rated.uncertainty is not None:
        files.append(folder / "calibration.png")
        calibration_plot(files[3], rated.score, rated.mos, rated.uncertainty, report.uncertainty)
    return files


def _unit(table: RatingTable, own_scale: bool) -> str:
    if not own_scale:
        return "0 to 100, higher is better"
    low, high = table.score_range
    return f"{low:g} to {high:g}, {'higher' if table.higher_is_better else 'lower'} is better"
