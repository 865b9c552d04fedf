"""The rate of bulk scoring against what the same cores could do at best.

    python benchmarks/bulk.py --pictures CQ100/img

At best N cores score N / (CPU seconds that decoding and the model take for a picture) pictures a
second. Each round measures both in turn, on the same pictures: decoding and the model alone, on one
core each, and the whole pipeline on all; the numbers are medians over the rounds, the share is
that of the ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from measured_model import add_model_arguments, describe, write_result
from pfd_iqa_hf.scoring.batches import PreparedPicture
from pfd_iqa_hf.scoring.bulk import BulkModel, bulk_model, score_in_bulk
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool, usable_cores
from pfd_iqa_hf.scoring.decoding import DecodedPicture, decode_picture
from pfd_iqa_hf.scoring.find import FoundPicture, find_pictures
from pfd_iqa_hf.scoring.folder import FolderScorer

_PICTURES = Path(__file__).parents[1] / "examples"


def main() -> None:
    """Measures in rounds, prints medians, writes all rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, default=_PICTURES, help="folder")
    parser.add_argument("--count", type=int, default=96, help="pictures a round, repeated if fewer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, help="default: all usable")
    parser.add_argument("--batch-size", type=int, default=8)
    add_model_arguments(parser)
    arguments = parser.parse_args()

    cores = _use_cores(arguments.cores)
    found, _ = find_pictures([arguments.pictures], recursive=True)
    found = [found[number % len(found)] for number in range(arguments.count)]
    dtype = getattr(torch, arguments.dtype)
    scorer = FolderScorer(arguments.model, "cpu", dtype, arguments.batch_size)
    torch.set_num_threads(1)
    model = bulk_model(scorer)

    rounds = []
    with DecoderPool(model.settings, cores) as pool:
        # Processes have imported, and the model has allocated, before anything is timed.
        _pipeline_seconds(model, pool, found[: 2 * arguments.batch_size * cores], cores)
        for _ in range(arguments.rounds):
            decoding, inference = _alone(model, found)
            whole = _pipeline_seconds(model, pool, found, cores)
            threads = _threads_seconds(scorer, found, cores)
            rounds.append([decoding, inference, whole, threads])
    seconds = np.array(rounds) / len(found)
    rate, best = 1 / seconds[:, 2], cores / seconds[:, :2].sum(1)
    before = 1 / seconds[:, 3]
    result = {
        **describe(arguments),
        "cores": cores,
        "pictures": len(found),
        "batch_size": arguments.batch_size,
        "decoding_cpu_seconds": float(np.median(seconds[:, 0])),
        "model_cpu_seconds": float(np.median(seconds[:, 1])),
        "best_rate": float(np.median(best)),
        "rate": float(np.median(rate)),
        "share_of_best": float(np.median(rate / best)),
        "share_spread": [float(value) for value in np.quantile(rate / best, [0, 1])],
        "rate_in_one_process": float(np.median(before)),
        "rounds_seconds_per_picture": seconds.tolist(),
    }
    print(f"| {cores} cores, {len(found)} pictures, {len(rounds)} rounds | median |\n|---|---|")
    print(f"| CPU time of decoding a picture | {1000 * result['decoding_cpu_seconds']:.1f} ms |")
    print(f"| CPU time of the model for a picture | {1000 * result['model_cpu_seconds']:.1f} ms |")
    print(f"| at best | {result['best_rate']:.2f} pictures a second |")
    print(f"| pipeline | {result['rate']:.2f} pictures a second |")
    print(f"| share of the best | {result['share_of_best']:.0%} |")
    print(f"| one process, as for a few pictures | {result['rate_in_one_process']:.2f} |")
    write_result(arguments, "bulk", result)


def _use_cores(wanted: int | None) -> int:
    cores = usable_cores()
    if wanted is None or wanted >= cores or not hasattr(os, "sched_setaffinity"):
        return cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:wanted])
    return wanted


def _alone(model: BulkModel, found: list[FoundPicture]) -> tuple[float, float]:
    """CPU seconds of decoding all pictures, and of the model for all, on one core."""
    size = model.scorer.batch_size
    decoding = inference = 0.0
    for start in range(0, len(found), size):
        pictures = found[start : start + size]
        began = time.process_time()
        decoded = [decode_picture(picture.path, model.settings) for picture in pictures]
        middle = time.process_time()
        model.scorer.score_prepared(_prepared(model, pictures, decoded))
        decoding += middle - began
        inference += time.process_time() - middle
    return decoding, inference


def _prepared(
    model: BulkModel, found: list[FoundPicture], decoded: list[DecodedPicture]
) -> list[PreparedPicture]:
    return [
        PreparedPicture(picture, model.inputs(views.views, views.size), views.size)
        for picture, views in zip(found, decoded, strict=True)
        if views.views is not None and views.size is not None
    ]


def _pipeline_seconds(
    model: BulkModel, pool: DecoderPool, found: list[FoundPicture], cores: int
) -> float:
    began = time.perf_counter()
    for _ in score_in_bulk(model, pool, found, lanes=cores):
        pass
    return time.perf_counter() - began


def _threads_seconds(scorer: FolderScorer, found: list[FoundPicture], cores: int) -> float:
    torch.set_num_threads(cores)
    began = time.perf_counter()
    for _ in scorer.score(found):
        pass
    seconds = time.perf_counter() - began
    torch.set_num_threads(1)
    return seconds


if __name__ == "__main__":
    main()
