"""From process start to the first score: PyTorch, onnxruntime, and a bare import of transformers.

    python benchmarks/startup_onnx.py

Each round scores one picture with `pfd-iqa score` both ways, and with the bare runner, and imports
what every user of transformers imports, in alternating order; the numbers are medians over the
rounds, of times and of ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from measured_model import add_model_arguments, describe, write_result
from pfd_iqa_hf.export.onnx_file import PRECISIONS, export_onnx

_IMPORT = "from transformers import pipeline, AutoModel"
_PICTURE = Path(__file__).parents[1] / "examples" / "photographs" / "cat.jpg"


def main() -> None:
    """Times processes, prints medians, writes all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--picture", type=Path, default=_PICTURE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--file", type=Path, help="an exported file; default: export one")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or Path(folder) / "model.onnx"
        if arguments.file is None:
            export_onnx(file, arguments.model, arguments.precision)
        score = [sys.executable, "-m", "pfd_iqa_cli", "score", str(arguments.picture)]
        model = ["--model", arguments.model] if arguments.model else []
        ways = {
            "pfd-iqa score": [*score, *model, "--device", "cpu", "--format", "jsonl"],
            "pfd-iqa score --backend onnx": [
                *(*score, "--backend", "onnx", "--model", str(file), "--format", "jsonl"),
            ],
            "python -m pfd_iqa_onnx": [
                *(sys.executable, "-m", "pfd_iqa_onnx", "--model", str(file)),
                str(arguments.picture),
            ],
            _IMPORT: [sys.executable, "-c", f"{_IMPORT}; print()"],
        }
        for command in ways.values():
            seconds_to_first_line(command)  # the files are in the system's cache from here on
        seconds = np.array(
            [_one_round(list(ways.values()), number) for number in range(arguments.rounds)]
        )

    ratios = seconds / seconds[:, :1]
    to_import = seconds / seconds[:, -1:]
    result = {
        **describe(arguments),
        "precision": arguments.precision,
        "ways": {
            name: {
                "seconds": float(np.median(seconds[:, place])),
                "share_of_torch": float(np.median(ratios[:, place])),
                "ratio_to_import": float(np.median(to_import[:, place])),
            }
            for place, name in enumerate(ways)
        },
        "seconds": seconds.tolist(),
    }
    print("| from process start to the first score | seconds | of PyTorch's | of the import's |")
    print("|---|---|---|---|")
    for name, row in result["ways"].items():
        shares = f"{row['share_of_torch']:.2f} | {row['ratio_to_import']:.2f}"
        print(f"| `{name}` | {row['seconds']:.2f} | {shares} |")
    write_result(arguments, "startup_onnx", result)


def _one_round(commands: list[list[str]], number: int) -> list[float]:
    order = list(range(len(commands)))
    if number % 2:
        order.reverse()
    times = {place: seconds_to_first_line(commands[place]) for place in order}
    return [times[place] for place in range(len(commands))]


def seconds_to_first_line(command: list[str]) -> float:
    """Time until a process prints its first record."""
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        process.stdout.read()
    scored = b'"score": ' in line or command[1] == "-c"
    if not scored or process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    return seconds


if __name__ == "__main__":
    main()
