"""Draw the curves of a training log and print its validation as a table.

python benchmarks/training_curves.py --log docs/training-log.jsonl --output docs/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_LOSSES = (
    "regression",
    "correlation",
    "kl",
    "diffusion",
    "feature",
    "reconstruction",
    "ranking",
    "map",
    "deviation",
)
_BOXES = ("condition", "fusion", "alignment", "denoising")


def _smooth(values: list[float], width: int = 5) -> list[float]:
    return [
        sum(values[max(0, i - width) : i + 1]) / (i + 1 - max(0, i - width))
        for i in range(len(values))
    ]


def draw(rows: list[dict[str, Any]], output: Path) -> None:
    """Write one panel for each loss of the student's stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    student = [row for row in rows if row["stage"] == "student"]
    figure, axes = pyplot.subplots(3, 3, figsize=(11, 7.5), sharex=True)
    for axis, name in zip(axes.flat, _LOSSES, strict=True):
        known = [row for row in student if name in row]
        axis.plot([row["step"] for row in known], _smooth([row[name] for row in known]))
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(output, dpi=90)


def table(rows: list[dict[str, Any]]) -> str:
    """The last validation, box by box, as a Markdown table."""
    last = [row for row in rows if row["stage"] == "validation"][-1]
    lines = [
        f"validation at step {last['step']}: SRCC {last['srcc']:.3f}, within subsets "
        f"{last['within']:.3f}; γ median {last['gamma']:.3f}, deviation "
        f"{last['gamma_deviation']:.3f}",
        "",
        "| box bypassed | SRCC within subsets | RMS change of the score, points |",
        "|---|---|---|",
    ]
    lines += [
        f"| {box} | {last[f'without_{box}']:.3f} | {last[f'moved_{box}']:.2f} |" for box in _BOXES
    ]
    lines += ["", "| noise level t | denoising loss ÷ ᾱ_t |", "|---|---|"]
    lines += [
        f"| {key.removeprefix('noise_')} | {value:.3f} |"
        for key, value in last.items()
        if key.startswith("noise_")
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="a PNG")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.log.read_text().splitlines()]
    draw(rows, arguments.output)
    print(table(rows))


if __name__ == "__main__":
    main()
