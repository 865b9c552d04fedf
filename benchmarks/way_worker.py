"""One way to score pictures in a process of its own, driven over its standard input.

    python benchmarks/way_worker.py "pfd-iqa" --cores 1 --files FOLDER

Each line that it reads is a JSON list of paths; for each it answers with a line of JSON: seconds,
scores, and the largest resident memory so far.  `run.py` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

from ways import OWN, WAYS


def main() -> None:
    """Loads, says so, answers until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--files", type=Path, default=Path("."))
    parser.add_argument("--model")
    parser.add_argument("--memory-limit", type=float, help="GB of address space")
    arguments = parser.parse_args()
    # Libraries print while they load; the answers have the real standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if arguments.memory_limit:
        limit = int(arguments.memory_limit * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(arguments.cores)
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(arguments.cores)

    if arguments.way in OWN:
        from pfd_iqa_cli.process_memory import steady_memory  # the peers' environment has none

        steady_memory()  # as `pfd-iqa score` does
    began = time.perf_counter()
    score = WAYS[arguments.way](arguments.files.resolve(), arguments.model)

    def answer(**values: object) -> None:
        values["peak_megabytes"] = _peak()
        print(json.dumps(values), file=answers, flush=True)

    answer(seconds=time.perf_counter() - began)
    for line in sys.stdin:
        began = time.perf_counter()
        scores = [score(path) for path in json.loads(line)]
        answer(seconds=time.perf_counter() - began, scores=scores)


def _peak() -> float:
    """Largest resident memory in MB; getrusage's number has the parent's in it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
