"""Draw the curves of a training log and print its validation as a table.

python benchmarks/training_curves.py --log docs/method-log.jsonl --output docs/method.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pfd_iqa_hf.training.curves import draw_curves
from pfd_iqa_hf.training.run_log import read_log

_BOXES = ("condition", "fusion", "alignment", "denoising")


def table(rows: list[dict[str, Any]]) -> str:
    """The last validation, box by box, as a Markdown table."""
    last = [row for row in rows if row["stage"] == "validation"][-1]
    whole = f"SRCC {last['srcc']:.3f}, within subsets {last['within']:.3f}"
    if "gamma" not in last:  # of a backbone with a plain head
        return f"validation at step {last['step']}: {whole}"
    lines = [
        f"validation at step {last['step']}: {whole}; γ median {last['gamma']:.3f}, deviation "
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
    rows = read_log(arguments.log)
    draw_curves(rows, arguments.output)
    print(table(rows))


if __name__ == "__main__":
    main()
