"""Is the probability of `pfd-iqa compare` right, on pairs of rated pictures of a set?

    python benchmarks/comparison.py --dataset livec --data-dir path/to/ChallengeDB_release
    python benchmarks/comparison.py --predictions predictions.parquet
    python benchmarks/comparison.py --predictions benchmarks/results/authentic_livec.json

Every pair of pictures with unlike mean opinion scores counts once. The shared error ρ is fitted on
the pairs within one half of the pictures and judged on those within the other half, over several
random halves; the value to store in `pfd_iqa_hf/evaluation/comparison.py` is fitted on all pairs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.table import Rating, RatingTable
from pfd_iqa_hf.evaluation.comparison import (
    SHARED_ERROR,
    calibration_error,
    fit_shared_error,
    log_loss,
    probability_better,
    reliability,
)
from pfd_iqa_hf.evaluation.predictions import RatedPredictions, read_predictions
from pfd_iqa_hf.scoring.rated import score_ratings

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
HALVES = 10
GAPS = (0.0, 5.0, 10.0, 20.0, 100.0)


def main() -> None:
    """Scores the pictures, or reads their scores, and prints and writes the reliability."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", help="as for `pfd-iqa evaluate`")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--split", help="only this part of the official split")
    parser.add_argument(
        "--predictions", type=Path, help="instead: a predictions.parquet, or a JSON of authentic.py"
    )
    parser.add_argument("--pictures", type=int, help="only so many, drawn at random by --seed")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the halves and of --pictures")
    add_model_arguments(parser)
    arguments = parser.parse_args()
    if (arguments.dataset is None) == (arguments.predictions is None):
        parser.error("give either --dataset or --predictions")

    facts: dict[str, Any] = {}
    if arguments.predictions is not None:
        stored = arguments.predictions
        rated = read_result(stored) if stored.suffix == ".json" else read_predictions(stored)
        facts = {key: rated.facts.get(key) for key in ("model", "model_sha256", "version")}
    else:
        rated = scored(arguments)
        facts = describe(arguments)
    result = {"dataset": rated.table.name, **facts, **measure(rated, arguments.seed)}
    report(result)
    write_result(arguments, f"comparison_{Path(rated.table.name).stem.lower()}", result)


def scored(arguments: argparse.Namespace) -> RatedPredictions:
    """The set's pictures with the model's scores."""
    table = load_ratings(
        arguments.dataset, data_dir=arguments.data_dir, dataset_split=arguments.split
    )
    if arguments.pictures is not None:
        drawn = np.random.default_rng(arguments.seed).permutation(len(table))
        table = table.select(sorted(drawn[: arguments.pictures].tolist()))
    loaded: Any = load_pipeline(arguments)
    with tqdm(total=len(table), unit=" pictures") as bar:
        predictions = score_ratings(
            loaded.model,
            loaded.image_processor,
            table,
            batch_size=arguments.batch_size,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    return RatedPredictions.of(table, predictions, {})


def read_result(path: Path) -> RatedPredictions:
    """The predictions in a file that `authentic.py` wrote."""
    content = json.loads(path.read_text("utf-8"))
    rows = content.pop("predictions")
    ratings = tuple(Rating(Path(row["path"]), row["mos"], group=row["group"]) for row in rows)
    score, uncertainty = (
        np.array([row[name] for row in rows], np.float64) for name in ("score", "uncertainty")
    )
    table = RatingTable(content["dataset"], ratings, root=Path())
    return RatedPredictions(table, score, uncertainty, facts=content)


def measure(rated: RatedPredictions, seed: int) -> dict[str, Any]:
    """ρ on all pairs, and the reliability on pairs that had no say in it."""
    if rated.uncertainty is None:
        raise SystemExit("the predictions have no column uncertainty: score with this package")
    columns: Columns = (rated.score, rated.uncertainty, rated.mos)
    everything = pairs_of(columns)
    halves = []
    for repeat in range(HALVES):
        order = np.random.default_rng([seed, repeat]).permutation(len(rated.score))
        middle = len(order) // 2
        fitted_on, judged_on = (
            pairs_of((columns[0][rows], columns[1][rows], columns[2][rows]))
            for rows in (order[:middle], order[middle:])
        )
        share = fit_shared_error(*fitted_on)
        halves.append({"shared_error": share, **judged(judged_on, share)})
    gap = np.abs(everything[0]), np.abs(mos_gap(columns))
    chosen = fit_shared_error(*everything)
    stated = stated_for(everything, chosen)
    wins = everything[3]
    by_gap = {}
    for low, high in zip(GAPS[:-1], GAPS[1:], strict=True):
        rows = (gap[1] > low) & (gap[1] <= high)
        if rows.any():
            right = np.where(stated >= 0.5, wins, ~wins)[rows]
            by_gap[f"{low:g} to {high:g}"] = {
                "pairs": int(rows.sum()),
                "right": float(right.mean()),
                "stated": float(np.maximum(stated, 1 - stated)[rows].mean()),
            }
    return {
        "pictures": len(rated.score),
        "pairs": len(wins),
        "shared_error": chosen,
        "stored": {"shared_error": SHARED_ERROR, **judged(everything, SHARED_ERROR)},
        "independent": judged(everything, 0.0),
        "fitted": judged(everything, chosen),
        "held_out_halves": halves,
        "reliability": [asdict(entry) for entry in reliability(stated, wins)],
        "by_gap_of_opinions": by_gap,
    }


def pairs_of(columns: Columns) -> Pairs:
    """Difference of scores, both uncertainties and the outcome for every pair without a tie."""
    score, sigma, mos = columns
    first, second = np.triu_indices(len(score), 1)
    kept = mos[first] != mos[second]
    first, second = first[kept], second[kept]
    return (
        score[first] - score[second],
        sigma[first],
        sigma[second],
        mos[first] > mos[second],
    )


def mos_gap(columns: Columns) -> np.ndarray:
    """Difference of the opinions of the same pairs."""
    mos = columns[2]
    first, second = np.triu_indices(len(mos), 1)
    kept = mos[first] != mos[second]
    gap: np.ndarray = mos[first[kept]] - mos[second[kept]]
    return gap


def stated_for(pairs: Pairs, share: float) -> np.ndarray:
    """Probability that the first picture of each pair is better."""
    zero = np.zeros_like(pairs[0])
    return probability_better(pairs[0], pairs[1], zero, pairs[2], share)


def judged(pairs: Pairs, share: float) -> dict[str, float]:
    """Accuracy, log loss and calibration error on pairs."""
    stated = stated_for(pairs, share)
    right = np.where(stated >= 0.5, pairs[3], ~pairs[3])
    return {
        "right": float(right.mean()),
        "mean_stated": float(np.maximum(stated, 1 - stated).mean()),
        "log_loss": log_loss(stated, pairs[3]),
        "calibration_error": calibration_error(reliability(stated, pairs[3])),
    }


def report(result: dict[str, Any]) -> None:
    """Prints what the documentation quotes."""
    print(f"{result['dataset']}: {result['pictures']} pictures, {result['pairs']:,} pairs")
    print(f"  SHARED_ERROR = {result['shared_error']:.2f}")
    for name in ("independent", "fitted", "stored"):
        part = result[name]
        print(
            f"  {name}: right {part['right']:.1%}, stated {part['mean_stated']:.1%}, "
            f"log loss {part['log_loss']:.4f}, calibration error {part['calibration_error']:.4f}"
        )
    halves = result["held_out_halves"]
    for key in ("shared_error", "calibration_error", "log_loss"):
        values = [half[key] for half in halves]
        print(
            f"  {len(halves)} halves held out: {key} median {np.median(values):.4f} "
            f"({min(values):.4f} to {max(values):.4f})"
        )
    for entry in result["reliability"]:
        print(
            f"  stated {entry['stated']:.3f}  observed {entry['observed']:.3f}  {entry['pairs']:,}"
        )
    for name, part in result["by_gap_of_opinions"].items():
        print(f"  opinions {name} apart: right {part['right']:.1%}, stated {part['stated']:.1%}")


if __name__ == "__main__":
    main()
