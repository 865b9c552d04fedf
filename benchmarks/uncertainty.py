"""Is the stated uncertainty right on rated photographs?

    python benchmarks/authentic.py --dataset biq2021 --data-dir path/to/BIQ2021
    python benchmarks/uncertainty.py benchmarks/results/authentic_biq2021.json

Takes the predictions that `authentic.py` wrote. The 80 % interval is score ± 1.2816 × uncertainty.
Its coverage is counted over all pictures, in each subset, and in each third of the pictures by
score. The likelihood (NLL, in nats) stands beside that of the best constant deviation, which is the
root mean square error of these very pictures. Sparsification: what is left of that error when the
fifth of the pictures with the largest uncertainty is put aside. The five level probabilities follow
from score and uncertainty, (17); their calibration error is that of the most probable level.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from comparison import read_result
from measured_model import write_result
from pfd_iqa_hf.evaluation.predictions import RatedPredictions
from pfd_iqa_hf.evaluation.uncertainty import (
    Coverage,
    UncertaintyReport,
    gaussian_nll,
    report_uncertainty,
)
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.quality_head import level_probabilities
from targets import Target, as_rows, heading, percent, print_targets

NOMINAL = 0.8
PUT_ASIDE = 0.2
BORDERS: list[float] = [float(border) for border in PfdIqaConfig.level_borders]


def main() -> None:
    """Prints the numbers of each file, writes them beside the full report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("predictions", type=Path, help="JSON that authentic.py wrote")
    parser.add_argument("--output", type=Path, help="JSON file; default: in benchmarks/results/")
    arguments = parser.parse_args()

    rated = read_result(arguments.predictions)
    report, targets = measured(rated)
    kept = ("model", "model_sha256", "view_strategy", "dtype")
    facts = {key: rated.facts.get(key) for key in kept}
    result = {
        "dataset": rated.table.name,
        **facts,
        "pictures": report.pictures,
        "targets": as_rows(targets),
        "report": report.as_dict(),
    }
    print_targets(heading(result, f"{report.pictures} pictures of {rated.table.name}"), targets)
    write_result(arguments, f"uncertainty_{rated.table.name}", result)


def measured(rated: RatedPredictions) -> tuple[UncertaintyReport, list[Target]]:
    """The package's own report, and the numbers of it that have limits."""
    score, mos = np.asarray(rated.score, np.float64), np.asarray(rated.mos, np.float64)
    if rated.uncertainty is None:
        raise SystemExit("the predictions have no uncertainty")
    deviation = np.asarray(rated.uncertainty, np.float64)
    groups = [rating.group for rating in rated.table]
    probabilities = level_probabilities(
        torch.from_numpy(score), torch.from_numpy(deviation), BORDERS
    ).numpy()
    levels = np.searchsorted(BORDERS, mos, side="right")  # a border belongs to the upper band
    report = report_uncertainty(
        score,
        mos,
        deviation,
        groups=groups if any(groups) else None,
        level_probabilities=probabilities,
        levels=levels.tolist(),
    )
    curve = report.sparsification
    place = int(np.argmin(np.abs(np.array(curve.removed) - PUT_ASIDE)))
    constant = gaussian_nll(score, mos, np.full_like(score, curve.rmse_all))
    return report, [
        percent("80 % interval covers, all pictures", of_nominal(report.coverage), 0.76, 0.84),
        *(
            percent(f"80 % interval covers, {kind} {name}", of_nominal(entry), 0.72, 0.88)
            for kind, parts in (("subset", report.groups), ("scores", report.terciles))
            for name, entry in parts.items()
        ),
        Target("NLL, stated deviation, against the best constant", report.nll, most=constant),
        Target("NLL, best constant deviation", constant),
        percent(
            "RMSE cut when the 20 % most uncertain are put aside",
            1 - curve.rmse[place] / curve.rmse_all,
            0.05,
        ),
        percent("the same, by the true error", 1 - curve.oracle[place] / curve.rmse_all),
        Target("calibration error of the levels", report.level_error, most=0.05),
        Target("SRCC of uncertainty with absolute error", report.error_srcc),
    ]


def of_nominal(entries: list[Coverage]) -> float:
    """The observed share of the 80 % interval."""
    return next(entry.observed for entry in entries if entry.nominal == NOMINAL)


if __name__ == "__main__":
    main()
