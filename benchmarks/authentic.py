"""Correlation with human scores on photographs with authentic distortions.

    python benchmarks/authentic.py --dataset biq2021 --data-dir path/to/BIQ2021
    python benchmarks/authentic.py --dataset livec --data-dir path/to/ChallengeDB_release

BIQ2021: the 2,000 pictures of the official test split. LIVEC: all 1,162 pictures. Every picture is
scored through the public pipeline with the views of the model's own processor; `--onnx FILE` takes
what `pfd-iqa export onnx` wrote instead. `--quality fast` is that of `pfd-iqa score`; `--beside
FILE` compares the scores with those of an earlier run that wrote FILE. Predictions are written
beside the numbers, so that any other statistic can be computed from them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.known_sets import Rating, load_biq2021, load_livec
from pfd_iqa_hf.evaluation.correlation import (
    bootstrap_interval,
    krcc,
    logistic4_fit,
    plcc,
    rmse,
    srcc,
)
from pfd_iqa_hf.scoring.quality import QUALITIES, quality_settings
from pfd_iqa_onnx.scorer import OnnxScorer

NORMAL_80 = 1.2816  # a normal variable lies within this many deviations with probability 0.8


def main() -> None:
    """Scores the pictures, prints the numbers, writes predictions and numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", required=True, choices=["biq2021", "livec"])
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--onnx", type=Path, help="exported model that scores instead")
    parser.add_argument("--views", help="view strategy instead of the model's own")
    parser.add_argument("--quality", choices=QUALITIES, help="views and precision by one name")
    parser.add_argument("--beside", type=Path, help="earlier result to compare the scores with")
    parser.add_argument("--limit", type=int, help="only the first N pictures")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    ratings = evaluated_pictures(arguments.dataset, arguments.data_dir)[: arguments.limit]
    if arguments.quality:
        settings = quality_settings(arguments.quality)
        arguments.views = arguments.views or settings.views
        arguments.dtype = str(settings.dtype).removeprefix("torch.")
    description = describe(arguments)
    paths = (str(rating.image) for rating in ratings)
    results: Iterable[Any]
    if arguments.onnx is None:
        options = {"view_strategy": arguments.views} if arguments.views else {}
        results = load_pipeline(arguments)(paths, batch_size=arguments.batch_size, **options)
    else:
        scorer = OnnxScorer(arguments.onnx, view_strategy=arguments.views)
        contract = scorer.contract
        description |= {"model": arguments.onnx.name, "model_sha256": contract.model_sha256}
        description["dtype"] = contract.precision
        description["view_strategy"] = scorer.view_strategy
        results = map(scorer.assess, paths)
    started = time.perf_counter()
    outputs = tqdm(results, total=len(ratings), unit=" pictures")
    predictions = [
        {
            "path": rating.image.relative_to(arguments.data_dir).as_posix(),
            "group": rating.group,
            "mos": round(rating.mos, 4),
            "score": round(float(output["score"]), 4),
            "uncertainty": round(float(output["uncertainty"]), 4),
        }
        for rating, output in zip(ratings, outputs, strict=True)
    ]
    seconds = time.perf_counter() - started
    result = {
        "dataset": arguments.dataset,
        **description,
        "pictures_per_second": round(len(ratings) / seconds, 2),
        **statistics(predictions),
        "predictions": predictions,
    }
    report(result)
    if arguments.beside is not None:
        result["srcc_beside"] = srcc(*same_pictures(predictions, arguments.beside))
        print(f"  SRCC with the scores of {arguments.beside.name}  {result['srcc_beside']:.4f}")
    # The numbers of the shipped model with its own views are not written over by another's.
    other = [arguments.onnx.stem] if arguments.onnx else []
    other += [arguments.views] if arguments.views else []
    write_result(arguments, "_".join(["authentic", arguments.dataset, *other]), result)


def evaluated_pictures(dataset: str, folder: Path) -> Sequence[Rating]:
    """The rows on which the set is evaluated."""
    if dataset == "livec":
        return load_livec(folder)
    return [rating for rating in load_biq2021(folder) if rating.split == "test"]


def same_pictures(predictions: list[dict[str, Any]], file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the pictures that are in both runs: of this one, of the other."""
    others = {row["path"]: row["score"] for row in json.loads(file.read_text())["predictions"]}
    both = [(row["score"], others[row["path"]]) for row in predictions if row["path"] in others]
    scores = np.array(both).reshape(-1, 2)
    return scores[:, 0], scores[:, 1]


def statistics(predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """All numbers of a list of predictions; within subsets where the set has some."""
    score = np.array([row["score"] for row in predictions])
    mos = np.array([row["mos"] for row in predictions])
    deviation = np.array([row["uncertainty"] for row in predictions])
    groups = sorted({row["group"] for row in predictions if row["group"] is not None})
    within = {
        group: srcc(
            *(side[[row["group"] == group for row in predictions]] for side in (score, mos))
        )
        for group in groups
    }
    return {
        "count": len(predictions),
        "srcc": srcc(score, mos),
        "srcc_interval_95": bootstrap_interval(srcc, score, mos),
        "plcc": plcc(score, mos),
        "plcc_after_logistic4": plcc(logistic4_fit(score, mos), mos),
        "krcc": krcc(score, mos),
        "rmse": rmse(score, mos),
        "coverage_of_80_interval": float(np.mean(np.abs(score - mos) <= NORMAL_80 * deviation)),
        "srcc_within_subset": within,
        "srcc_within_subset_mean": float(np.mean(list(within.values()))) if within else None,
    }


def report(result: dict[str, Any]) -> None:
    """Prints what the README quotes."""
    low, high = result["srcc_interval_95"]
    print(f"{result['dataset']}: {result['count']} pictures, model {result['model_sha256']}")
    print(f"  SRCC  {result['srcc']:.4f}  (95 % bootstrap interval {low:.4f} to {high:.4f})")
    print(f"  PLCC  {result['plcc']:.4f}  raw; {result['plcc_after_logistic4']:.4f} after logistic")
    print(f"  KRCC  {result['krcc']:.4f}")
    print(f"  RMSE  {result['rmse']:.2f} points")
    for group, value in result["srcc_within_subset"].items():
        print(f"  SRCC within {group}  {value:.4f}")
    if result["srcc_within_subset"]:
        print(f"  SRCC within subsets, mean  {result['srcc_within_subset_mean']:.4f}")
    print(f"  80 % interval covers  {100 * result['coverage_of_80_interval']:.1f} %")
    print(f"  {result['pictures_per_second']} pictures/s on {result['threads']} CPU threads")


if __name__ == "__main__":
    main()
