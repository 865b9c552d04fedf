"""How good is the map of `pfd-iqa calibrate` from fifty opinions, on simulated users?

    python benchmarks/own_scale.py

A simulated user's opinion is a known curve of the model's score plus noise in proportion to the
model's uncertainty. Printed are the error of the map against the curve, beside those of a straight
line and of isotonic regression, and the share of new opinions inside the 80 % intervals.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from scipy.optimize import isotonic_regression

from pfd_iqa_hf.evaluation.calibration import KNOTS, fit_calibration, fit_monotone_curve

CURVES = ("curved", "straight", "bent")
STRAIGHT = 1e9


def main() -> None:
    """Simulates users and prints one line for each kind and number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of few pictures
    print("user      pictures   map  line  isotonic   80 % intervals: covered (deviation), width")
    for curve in CURVES:
        for count in arguments.pictures:
            generator = np.random.default_rng(arguments.seed)
            rows = np.array([simulated(curve, count, generator) for _ in range(arguments.users)])
            line, covered = rows.mean(axis=0), rows[:, 3].std()
            print(
                f"{curve:9} {count:8} {line[0]:5.1f} {line[1]:5.1f} {line[2]:9.1f}   "
                f"{line[3]:.1%} ({covered:.1%}), {line[4]:.0f} points"
            )


def simulated(curve: str, count: int, generator: np.random.Generator) -> list[float]:
    """Errors of map, line and isotonic regression, coverage and mean width of the intervals."""
    score, sigma, opinion, _ = opinions(curve, count, generator)
    new_score, new_sigma, new_opinion, truth = opinions(curve, 1000, generator)
    own, low, high = fit_calibration(score, sigma, opinion).apply(new_score, new_sigma)
    line = np.interp(new_score, KNOTS, fit_monotone_curve(score, opinion, STRAIGHT))
    order = np.argsort(score)
    steps = np.interp(new_score, score[order], isotonic_regression(opinion[order]).x)
    errors = [float(np.sqrt(np.mean((values - truth) ** 2))) for values in (own, line, steps)]
    inside = float(np.mean((low <= new_opinion) & (new_opinion <= high)))
    return [*errors, inside, float(np.mean(high - low))]


def opinions(
    curve: str, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, uncertainties, opinions and the curve's values."""
    score = np.clip(generator.normal(55, 15, count), 0, 100)
    sigma = generator.uniform(5, 12, count)
    truth = {
        "curved": 100 / (1 + np.exp(-(score - 60) / 9)),
        "straight": 20 + 0.7 * score,
        "bent": np.where(score < 50, 20 + 0.2 * score, 30 + 1.3 * (score - 50)),
    }[curve]
    noisy = truth + 1.3 * sigma * generator.normal(size=count)
    return score, sigma, np.clip(noisy, 0, 100), truth


if __name__ == "__main__":
    main()
