"""Agreement and time of every way to run the model, on the CPU, in one run.

    python benchmarks/deployment.py --pictures path/to/100/pictures

Exports the checkpoint in all precisions, scores the pictures with each file and with PyTorch in
float32, and then times all ways on the same batch.  Each round times every way once, in turning
order; a way's ratio is the median over the rounds of the ratio to PyTorch's float32 within a round,
so that a machine that slows down for a while slows all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.evaluation.correlation import srcc
from pfd_iqa_hf.export.onnx_file import PRECISIONS, export_onnx
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear
from pfd_iqa_onnx.scorer import OnnxScorer
from pfd_iqa_onnx.shared import find_pictures, open_picture

_ROOT = Path(__file__).parents[1]
Way = Callable[[], object]


def main() -> None:
    """Exports, compares, times, prints a table, writes all numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", default=str(_ROOT / "examples" / "photographs"))
    parser.add_argument("--count", type=int, default=100, help="pictures that are compared")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures in a timed call")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that are not counted")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--files", type=Path, help="folder to keep the exported files in")
    add_model_arguments(parser)
    arguments = parser.parse_args()
    arguments.dtype = "float32"

    assess = load_pipeline(arguments)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.files or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        scorers: dict[str, OnnxScorer] = {}
        sizes = {}
        for precision in PRECISIONS:
            file = folder / f"{precision}.onnx"
            sizes[precision] = export_onnx(file, arguments.model, precision).size
            scorers[precision] = OnnxScorer(file, threads=threads)
            print(f"{precision}: {sizes[precision] / 1e6:.1f} MB", flush=True)
        inputs = read_inputs(scorers["fp32"], arguments.pictures, arguments.count)
        agreement = compare(assess.model, scorers, inputs)
        ways = all_ways(assess.model, scorers, inputs, arguments)
        seconds = time_rounds(ways, arguments.warm_up, arguments.rounds)

    base = seconds[:, 0]
    result: dict[str, Any] = {
        **describe(arguments),
        "batch_size": arguments.batch_size,
        "pictures": len(inputs),
        "megabytes": {name: size / 1e6 for name, size in sizes.items()},
        "agreement": agreement,
        "speed": {
            name: {
                "milliseconds_per_picture": 1000 * np.median(column) / arguments.batch_size,
                "times_faster_than_torch_fp32": float(np.median(base / column)),
                "quartiles": np.quantile(base / column, [0.25, 0.75]).tolist(),
            }
            for name, column in zip(ways, seconds.T, strict=True)
        },
        "seconds": seconds.tolist(),
    }
    print_tables(result)
    write_result(arguments, "deployment", result)


def read_inputs(scorer: OnnxScorer, pictures: str, count: int) -> list[dict[str, Any]]:
    """The views of the first `count` pictures of a folder."""
    found, _ = find_pictures([pictures], recursive=True)
    return [scorer.inputs(open_picture(picture.path)) for picture in found[:count]]


@torch.inference_mode()
def compare(
    model: Any, scorers: dict[str, OnnxScorer], inputs: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Scores of each file against PyTorch's in float32."""
    expected = [float(_torch_score(model, [entry])[0]) for entry in inputs]
    agreement = {}
    for name, scorer in scorers.items():
        scores = [float(scorer.run_inputs([entry])[0]["score"]) for entry in inputs]
        difference = np.abs(np.subtract(scores, expected))
        agreement[name] = {
            "srcc": float(srcc(scores, expected)),
            "mean_difference": float(difference.mean()),
            "largest_difference": float(difference.max()),
        }
    return agreement


def all_ways(
    model: Any,
    scorers: dict[str, OnnxScorer],
    inputs: list[dict[str, Any]],
    arguments: argparse.Namespace,
) -> dict[str, Way]:
    """Every way on the same batch; PyTorch in float32 comes first."""
    batch = [inputs[index % len(inputs)] for index in range(arguments.batch_size)]

    def bfloat16() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return _torch_score(model, batch)

    ways: dict[str, Way] = {
        "torch fp32": lambda: _torch_score(model, batch),
        "torch bf16 (autocast)": bfloat16,
    }
    if not arguments.no_compile:
        compiled = torch.compile(model, fullgraph=True)
        ways["torch.compile fp32"] = lambda: _torch_score(compiled, batch)
    for name, scorer in scorers.items():
        ways[f"onnx {name}"] = lambda scorer=scorer: scorer.run_inputs(batch)  # type: ignore[misc]
    return ways


def _torch_score(model: Any, batch: list[dict[str, Any]]) -> torch.Tensor:
    with cpu_linear(model):  # as the pipeline runs it
        output = model(
            pixel_values=torch.from_numpy(np.stack([entry["pixel_values"] for entry in batch])),
            low_resolution=torch.tensor([entry["low_resolution"] for entry in batch]),
        )
    score: torch.Tensor = output.logits
    return score


@torch.inference_mode()
def time_rounds(ways: dict[str, Way], warm_up: int, rounds: int) -> np.ndarray:
    """Seconds of every way in each counted round, (rounds, ways)."""
    calls = list(ways.values())
    seconds = np.empty((warm_up + rounds, len(calls)))
    for number in range(warm_up + rounds):
        for place in range(len(calls)):
            which = (place + number) % len(calls)
            started = time.perf_counter()
            calls[which]()
            seconds[number, which] = time.perf_counter() - started
    return seconds[warm_up:]


def print_tables(result: dict[str, Any]) -> None:
    """Prints agreement and speed as Markdown tables."""
    print(f"\nmodel {result['model_sha256']}, {result['pictures']} pictures\n")
    print("| file | MB | SRCC with PyTorch | mean difference | largest |\n|---|---|---|---|---|")
    for name, row in result["agreement"].items():
        print(
            f"| {name} | {result['megabytes'][name]:.0f} | {row['srcc']:.4f} | "
            f"{row['mean_difference']:.2g} | {row['largest_difference']:.2g} |"
        )
    print(f"\n{result['threads']} threads, {result['batch_size']} pictures a call\n")
    print("| way | ms a picture | times as fast as torch fp32 (quartiles) |\n|---|---|---|")
    for name, row in result["speed"].items():
        low, high = row["quartiles"]
        print(
            f"| {name} | {row['milliseconds_per_picture']:.0f} | "
            f"{row['times_faster_than_torch_fp32']:.2f} ({low:.2f} to {high:.2f}) |"
        )


if __name__ == "__main__":
    main()
