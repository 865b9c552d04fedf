"""Are both of two composed distortions named, and do soft prompt weights serve them better?

    python benchmarks/composed_distortions.py --photographs path/to/CQ100/img

Each of `--count` photographs is degraded `--pairs` times by two types of different groups, one
after the other; types, order and levels (3 or 4) are drawn by `--seed`. Named: both groups are
among the first three of the result's distortions. Order: each of the two degradations alone must
score above both together. This is counted twice with the same weights, the prompts being averaged
by the probabilities (`condition_weights="soft"`, the paper's) and the most probable one alone being
taken ("hard"): several distortions at once are what soft weights are for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.data.distortions import DISTORTION_GROUP, DISTORTION_TYPES, distort
from photographs import (
    COLOR_ONLY,
    GROUPS,
    add_photograph_arguments,
    assessed,
    chosen_photographs,
    is_grey,
    read_photograph,
)
from targets import Target, as_rows, heading, percent, print_targets

LEVELS = (3, 4)
FIRST_NAMES = 3
WEIGHTS = ("soft", "hard")
# One undoes the other.
OPPOSITES = {"overexposure", "underexposure"}


@dataclass(frozen=True)
class Pair:
    """Two degradations of one photograph, in the order in which they are applied."""

    photograph: int
    types: tuple[str, str]
    levels: tuple[int, int]
    seed: int

    @property
    def groups(self) -> tuple[str, str]:
        """The prompt groups of both."""
        return DISTORTION_GROUP[self.types[0]], DISTORTION_GROUP[self.types[1]]


def main() -> None:
    """Scores the copies with soft and hard weights, prints and writes the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_photograph_arguments(parser, count=40)
    parser.add_argument("--pairs", type=int, default=6, help="compositions of each photograph")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    files = chosen_photographs(arguments)
    photographs = [read_photograph(file) for file in files]
    pairs = list(drawn_pairs(photographs, arguments.pairs, arguments.seed))
    scorer = load_pipeline(arguments)
    scores: dict[str, np.ndarray] = {}
    names: list[list[str]] = []
    for weights in WEIGHTS:
        set_prompt_weights(scorer.model, weights)
        pictures = (picture for pair in pairs for picture in copies(pair, photographs))
        outputs = list(assessed(scorer, pictures, 3 * len(pairs), arguments.batch_size))
        scores[weights] = np.array([output["score"] for output in outputs]).reshape(-1, 3)
        if weights == "soft":  # names do not depend on the weights
            names = [
                [entry["label"] for entry in output["distortions"][:FIRST_NAMES]]
                for output in outputs[2::3]
            ]
    rows = [
        {
            "file": files[pair.photograph].name,
            **asdict(pair),
            "groups": pair.groups,
            "named": named,
            **{
                weights: dict(zip(("first", "second", "both"), table[number].tolist(), strict=True))
                for weights, table in scores.items()
            },
        }
        for number, (pair, named) in enumerate(zip(pairs, names, strict=True))
    ]
    targets = measured(pairs, names, scores)
    by_group = recall_by_group(pairs, names)
    result = {
        **describe(arguments),
        "photographs": len(files),
        "compositions": len(pairs),
        "seed": arguments.seed,
        "targets": as_rows(targets),
        "among_first_three_by_group": by_group,
        "rows": rows,
    }
    print("among the first three names when it is one of two:")
    for group, share in by_group.items():
        print(f"  {group:22s} {100 * share:5.1f} %")
    print_targets(heading(result, f"{len(files)} photographs, {len(pairs)} compositions"), targets)
    write_result(arguments, "composed_distortions", result)


def set_prompt_weights(model: Any, weights: str) -> None:
    """Changes how the prompts are mixed, which is no matter of the weights file."""
    model.config.condition_weights = weights
    model.pfd_iqa.aggregation.weights = weights


def drawn_pairs(photographs: list[Image.Image], count: int, seed: int) -> Iterator[Pair]:
    """`count` compositions of each photograph, groups drawn before types."""
    for number, photograph in enumerate(photographs):
        generator = np.random.default_rng([seed, number])
        barred = COLOR_ONLY if is_grey(photograph) else set()
        choices = [
            (first, second)
            for first, second in product(GROUPS, GROUPS)
            if first != second and {first, second} != OPPOSITES
        ]
        for _ in range(count):
            types = [
                drawn_type(group, barred, generator)
                for group in choices[generator.integers(len(choices))]
            ]
            levels = generator.choice(LEVELS, 2)
            yield Pair(
                number,
                (types[0], types[1]),
                (int(levels[0]), int(levels[1])),
                int(generator.integers(2**31)),
            )


def drawn_type(group: str, barred: set[str], generator: np.random.Generator) -> str:
    """A type of the group."""
    types = [
        name for name in DISTORTION_TYPES if DISTORTION_GROUP[name] == group and name not in barred
    ]
    return types[generator.integers(len(types))]


def copies(pair: Pair, photographs: list[Image.Image]) -> Iterator[Image.Image]:
    """The first degradation alone, the second alone, the second upon the first."""
    photograph = photographs[pair.photograph]
    first = distort(photograph, pair.types[0], pair.levels[0], pair.seed)
    yield first
    yield distort(photograph, pair.types[1], pair.levels[1], pair.seed)
    yield distort(first, pair.types[1], pair.levels[1], pair.seed)


def measured(
    pairs: list[Pair], names: list[list[str]], scores: dict[str, np.ndarray]
) -> list[Target]:
    """Share of pairs named, and of right orders with either kind of weights."""
    found = [
        sum(group in named for group in pair.groups)
        for pair, named in zip(pairs, names, strict=True)
    ]
    right = {weights: table[:, :2] > table[:, 2:] for weights, table in scores.items()}
    soft, hard = (float(right[weights].mean()) for weights in WEIGHTS)
    margins = {weights: table[:, :2] - table[:, 2:] for weights, table in scores.items()}
    moved = np.abs(scores["soft"] - scores["hard"])
    both = float(np.mean(np.equal(found, 2)))
    return [
        percent("both groups among the first three named", both, 0.70),
        percent("at least one of them", float(np.mean(np.greater(found, 0)))),
        percent("one degradation alone over both, soft weights", soft, hard),
        percent("the same, hard weights", hard),
        Target("orders that soft has right and hard wrong", only(right["soft"], right["hard"])),
        Target("orders that hard has right and soft wrong", only(right["hard"], right["soft"])),
        Target("mean margin in points, soft", float(margins["soft"].mean())),
        Target("mean margin in points, hard", float(margins["hard"].mean())),
        Target("mean change of a score from soft to hard, points", float(moved.mean())),
    ]


def only(this: np.ndarray, other: np.ndarray) -> float:
    """How many are right here and wrong there."""
    return float(np.sum(this & ~other))


def recall_by_group(pairs: list[Pair], names: list[list[str]]) -> dict[str, float]:
    """Of the compositions with a group: how often it is among the first three names."""
    hits: dict[str, list[bool]] = {}
    for pair, named in zip(pairs, names, strict=True):
        for group in pair.groups:
            hits.setdefault(group, []).append(group in named)
    return {group: float(np.mean(hits[group])) for group in GROUPS if group in hits}


if __name__ == "__main__":
    main()
