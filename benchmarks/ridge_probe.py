"""How much of the opinion a feature holds in a straight line: ridge regression, out of fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

STRENGTHS = np.logspace(-2, 6, 17)
FOLDS = 5
REPEATS = 5


def probe_srcc(
    features: np.ndarray, labels: np.ndarray, correlation: Callable[[np.ndarray], float], seed: int
) -> float:
    """Correlation of out-of-fold predictions, mean over repeats with other folds.

    Args:
        features: (n, D).
        labels: (n,).
        correlation: Of predictions (n,) with the labels, whatever way it takes.
        seed: Of the folds; the same folds for every feature.
    """
    found = []
    for repeat in range(REPEATS):
        predictions = np.empty(len(labels))
        for learnt, tested in folds(len(labels), [seed, repeat]):
            strength = chosen_strength(features[learnt], labels[learnt], [seed, repeat, 1])
            paths = ridge_path(features[learnt], labels[learnt], features[tested])
            predictions[tested] = paths[strength]
        found.append(correlation(predictions))
    return float(np.mean(found))


def chosen_strength(features: np.ndarray, labels: np.ndarray, seed: list[int]) -> int:
    """Place of the strength with the least squared error out of fold."""
    errors = np.zeros(len(STRENGTHS))
    for learnt, tested in folds(len(labels), seed):
        paths = ridge_path(features[learnt], labels[learnt], features[tested])
        errors += np.square(paths - labels[tested]).sum(axis=1)
    return int(np.argmin(errors))


def folds(count: int, seed: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to test on."""
    parts = np.array_split(np.random.default_rng(seed).permutation(count), FOLDS)
    for place, tested in enumerate(parts):
        yield np.concatenate(parts[:place] + parts[place + 1 :]), tested


def ridge_path(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Predictions for other rows at each of `STRENGTHS`, (strengths, rows)."""
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
    centre = labels.mean()
    left, values, right = np.linalg.svd((features - mean) / deviation, full_matrices=False)
    shrunk = values / (values**2 + STRENGTHS[:, None])  # (strengths, rank)
    coefficients = (shrunk * (left.T @ (labels - centre))) @ right  # (strengths, D)
    return coefficients @ ((others - mean) / deviation).T + centre
