"""Pictures a second by number of threads and by batch size, model alone, on the CPU.

    python benchmarks/batch_sizes.py

Each round times every combination once, on as many pictures of the checkpoint's views as the
largest batch; rates are medians over the rounds, ratios medians of the ratios to one thread and one
picture a batch within a round.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import torch

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear, pictures_at_once
from pfd_iqa_hf.modeling.views import VIEW_STRATEGIES


def main() -> None:
    """Times all combinations, prints a table, writes all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64], help="pictures")
    parser.add_argument("--rounds", type=int, default=3)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    loaded: Any = load_pipeline(arguments)
    model: Any = loaded.model
    model.to("cpu")
    cores = arguments.threads or len(os.sched_getaffinity(0))
    threads = sorted({1, cores})
    count = max(arguments.batch_sizes)
    number_of_views = VIEW_STRATEGIES[loaded.image_processor.view_strategy]
    views = torch.randn(
        *(count, number_of_views, 3, 224, 224), generator=torch.Generator().manual_seed(0)
    )
    views = views.to(model.dtype)

    def seconds(number: int, size: int) -> float:
        torch.set_num_threads(number)
        parts = views.split(min(size, pictures_at_once(views)))  # as the pipeline splits a batch
        with torch.inference_mode(), cpu_linear(model):
            model(pixel_values=parts[0])
            started = time.perf_counter()
            for batch in parts:
                model(pixel_values=batch)
            return time.perf_counter() - started

    ways = [(number, size) for number in threads for size in arguments.batch_sizes]
    times = np.array(
        [[seconds(*way) for way in ways] for _ in range(arguments.rounds)]
    )  # (rounds, ways)
    rates = count / np.median(times, axis=0)
    ratios = np.median(times[:, :1] / times, axis=0)
    print("| threads | pictures a batch | pictures a second | ratio |\n|---|---|---|---|")
    for (number, size), rate, ratio in zip(ways, rates, ratios, strict=True):
        print(f"| {number} | {size} | {rate:.2f} | {ratio:.2f} |")
    result = {
        **describe(arguments),
        "pictures": count,
        "ways": ways,
        "rates": rates.tolist(),
        "ratios": ratios.tolist(),
        "seconds": times.tolist(),
    }
    write_result(arguments, "batch_sizes", result)


if __name__ == "__main__":
    main()
