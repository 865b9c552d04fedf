"""Time of the whole model over the time of its bare vision backbone, per view.

    python benchmarks/overhead.py

Both get the same 8 views of 224×224 in inference mode, in a process set up as `pfd-iqa` sets up its
own (`pfd_iqa_cli/process_memory.py`). Each round times both, in alternating order;
the number is the median over the rounds of the ratio within a round, so that a machine that slows
down for a while slows both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from measured_model import add_model_arguments, describe, load_pipeline, write_result
from pfd_iqa_cli.process_memory import steady_memory
from pfd_iqa_hf.modeling.cpu_linear import cpu_linear


def main() -> None:
    """Times both, prints the ratio, writes all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--warm-up", type=int, default=3, help="rounds that are not counted")
    add_model_arguments(parser)
    arguments = parser.parse_args()

    steady_memory()
    model = load_pipeline(arguments).model
    vision_model = model.get_submodule("vision_model")
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(arguments.batch_size, 3, 224, 224, generator=generator).to(
        model.device, model.dtype
    )

    def backbone() -> object:
        return vision_model(pixel_values=views)

    def whole() -> object:
        return model(pixel_values=views[:, None])  # one view a picture

    with cpu_linear(model):  # as the pipeline runs it, and the backbone alone the same way
        seconds = time_rounds(backbone, whole, arguments.warm_up, arguments.rounds)
    ratios = seconds[:, 1] / seconds[:, 0]
    backbone_ms, whole_ms = 1000 * np.median(seconds, axis=0) / arguments.batch_size
    low, high = np.quantile(ratios, [0.25, 0.75])
    description = describe(arguments)
    print(f"batch {arguments.batch_size}, {arguments.dtype}, model {description['model_sha256']}")
    print(f"  backbone {backbone_ms:.1f} ms a view, whole model {whole_ms:.1f} ms a view")
    print(f"  ratio {np.median(ratios):.3f}  (middle half of the rounds {low:.3f} to {high:.3f})")
    result = {
        **description,
        "batch_size": arguments.batch_size,
        "ratio": float(np.median(ratios)),
        "backbone_ms_per_view": float(backbone_ms),
        "whole_ms_per_view": float(whole_ms),
        "seconds_backbone_and_whole": seconds.tolist(),
    }
    write_result(arguments, "overhead", result)


@torch.inference_mode()
def time_rounds(
    first: Callable[[], object], second: Callable[[], object], warm_up: int, rounds: int
) -> np.ndarray:
    """Seconds of both calls in each counted round, (rounds, 2)."""
    seconds = np.empty((warm_up + rounds, 2))
    for number in range(warm_up + rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for which in order:
            started = time.perf_counter()
            (first, second)[which]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[number, which] = time.perf_counter() - started
    return seconds[warm_up:]


if __name__ == "__main__":
    main()
