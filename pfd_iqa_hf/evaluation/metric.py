"""The correlations as an `evaluate.Metric`, which needs no network.

`evaluate.load("iqa_correlation")` would ask the Hub; this class is made directly, and the folder
`metrics/iqa_correlation/` of the repository is the same as a Space.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from pfd_iqa_hf.evaluation.agreement import agreement_within_groups, measure_agreement

try:
    import datasets
    import evaluate
except ImportError as error:
    raise ImportError('this metric needs evaluate: pip install "pfd-iqa-hf[train]"') from error

__all__ = ["IqaCorrelation"]

_DESCRIPTION = """\
Agreement of image quality scores with mean opinion scores: SRCC, PLCC (raw, and after a fitted
logistic), KRCC and RMSE, with bootstrap confidence intervals, and the means within groups.
"""
_INPUTS = """\
Args:
    predictions: scores, a list of floats.
    references: mean opinion scores, a list of floats of the same length.
    fit: "logistic4" (default), "logistic5" or None; adds `plcc_<fit>` and `rmse_<fit>`.
    resamples: of the bootstrap; 0 (default) gives no intervals. Otherwise each number `x` gets
        `x_low` and `x_high`.
    confidence: nominal coverage of the intervals, 0.95 by default.
    groups: name of each picture's group; adds `srcc_within`, `plcc_within` and `krcc_within`, the
        unweighted means over the groups.
    seed: of the bootstrap.

Returns:
    A dictionary of floats; NaN where a number is not defined, such as for constant predictions.
"""
_CITATION = """\
@misc{vqeg2003,
  title = {Final report from the Video Quality Experts Group on the validation of objective models
           of video quality assessment, phase II},
  author = {{Video Quality Experts Group}},
  year = {2003}
}
"""


class IqaCorrelation(evaluate.Metric):
    """SRCC, PLCC, KRCC and RMSE as `evaluate` has metrics.

    Example:
        >>> metric = IqaCorrelation(keep_in_memory=True)
        >>> metric.compute(predictions=[1, 2, 3, 5], references=[10, 20, 30, 40], fit=None)["srcc"]
        1.0
    """

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")  # float32 would tie scores that differ
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[float],
        fit: str | None = "logistic4",
        resamples: int = 0,
        confidence: float = 0.95,
        groups: Sequence[Hashable] | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        bootstrap: dict[str, Any] = {"coverage": confidence, "resamples": resamples, "seed": seed}
        whole = measure_agreement(predictions, references, fit=fit, **bootstrap)
        found = {name: getattr(whole, name) for name in ("srcc", "plcc", "krcc", "rmse")}
        if fit is not None:
            found |= {f"plcc_{fit}": whole.plcc_fitted, f"rmse_{fit}": whole.rmse_fitted}
        if groups is not None:
            within = agreement_within_groups(predictions, references, groups, **bootstrap)
            found |= {f"{name}_within": getattr(within, name) for name in ("srcc", "plcc", "krcc")}
        result: dict[str, float] = {}
        for name, estimate in found.items():
            result[name] = estimate.value if estimate is not None else math.nan
            if resamples and estimate is not None:
                result[f"{name}_low"], result[f"{name}_high"] = estimate.lower, estimate.upper
        return result
