"""Speed and memory of every way to score a picture, side by side, one way after the other in turn.

    python benchmarks/run.py --pictures CQ100/img --peer-python PEERS/bin/python --sources SOURCES

Every way runs in a process of its own on the same cores.  Each round lets every way score the same
pictures once, in turning order; while one works, the others wait.  Rates are medians over the
rounds, ratios medians of the ratios within a round, so that a machine that slows down slows all.
Then each scores one picture of 12 and one of 48 megapixels in a fresh process, for time and peak
memory.  `docs/performance.md` says how the environment and the sources of the peers are made;
without `--peer-python` only this package's ways are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measured_model import describe, write_result
from pfd_iqa_hf.export.onnx_file import export_onnx
from pfd_iqa_hf.scoring.find import find_pictures
from ways import OWN, PEERS

_WORKER = Path(__file__).with_name("way_worker.py")
_LARGE = {"12 MP": (4000, 3000), "48 MP": (8000, 6000)}


@dataclass
class Worker:
    """A process of one way; `ask` gives None where it has died or took too long."""

    way: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start it."""
        self.complaints = tempfile.TemporaryFile()  # a pipe that nobody reads would block it
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints
        )

    def read(self, limit: float) -> dict[str, Any] | None:
        """The next answer, or None."""
        out = self.process.stdout
        assert out is not None
        if not select.select([out], [], [], limit)[0]:
            self.process.kill()
            return None
        line = out.readline()
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def ask(self, paths: list[str], limit: float) -> dict[str, Any] | None:
        """Let it score some pictures."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write((json.dumps(paths) + "\n").encode())
            self.process.stdin.flush()
        except OSError:
            return None
        return self.read(limit)

    def close(self) -> str:
        """End it; returns the last line of its complaints."""
        with contextlib.suppress(OSError):
            self.process.communicate(timeout=30)
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        self.complaints.close()
        return lines[-1] if lines else ""


def main() -> None:
    """Measures, prints tables, writes all rounds."""
    arguments = _arguments()
    found, _ = find_pictures([arguments.pictures], recursive=True)
    if not found:
        sys.exit(f"no pictures in {arguments.pictures}")
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("fp32", "int8"):
            export_onnx(Path(scratch) / f"{precision}.onnx", arguments.model, precision)
        paths = _pictures_of_one_size(
            [Path(p.path) for p in found], Path(scratch), arguments.count, tuple(arguments.size)
        )
        ways = _available(arguments, Path(scratch))
        rounds = _rounds(ways, paths, arguments)
        large = {} if arguments.no_large else _large(ways, Path(paths[0]), Path(scratch), arguments)
    arguments.dtype = "float32"
    facts = describe(arguments)
    del facts["threads"]  # of this process, which measures nothing
    result = {
        **facts,
        "cores": arguments.cores,
        "pictures": len(paths),
        "size": list(arguments.size),
        "reference": arguments.reference,
        "rounds_seconds_per_picture": {way: found.tolist() for way, found in rounds.items()},
        "large": large,
    }
    _print(result, rounds, arguments.reference)
    write_result(arguments, "run", result)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, default=Path(__file__).parents[1] / "examples")
    parser.add_argument("--count", type=int, default=8, help="pictures a round")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), metavar=("W", "H"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--ways", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--peer-python", help="interpreter of the peers' environment")
    parser.add_argument("--sources", type=Path, help="folder with the peers' repositories")
    parser.add_argument("--reference", default="topiq_nr (pyiqa)", help="way to take ratios to")
    parser.add_argument("--limit", type=float, default=180, help="seconds for one large picture")
    parser.add_argument("--memory-limit", type=float, default=16, help="GB for one large picture")
    parser.add_argument("--no-large", action="store_true", help="leave 12 and 48 megapixels out")
    parser.add_argument("--model", help="folder or Hub id; default: the bundled checkpoint")
    parser.add_argument("--output", type=Path, help="JSON file; default: in benchmarks/results/")
    return parser.parse_args()


def _pictures_of_one_size(
    paths: list[Path], scratch: Path, count: int, size: tuple[int, int]
) -> list[str]:
    made = []
    for number, path in enumerate(paths[:count]):
        with Image.open(path) as picture:
            target = scratch / f"{number}.png"
            picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(target)
            made.append(str(target))
    return made


def _available(arguments: argparse.Namespace, exported: Path) -> dict[str, list[str]]:
    """The command of every way that is to be measured."""
    commands = {}
    model = ["--model", arguments.model] if arguments.model else []
    for way in [*OWN, *PEERS]:
        python = sys.executable if way in OWN else arguments.peer_python
        files = exported if way in OWN else arguments.sources or exported
        wanted = not arguments.ways or any(part in way for part in arguments.ways)
        if python and wanted:
            commands[way] = [
                *(python, str(_WORKER), way, "--files", str(files)),
                *("--cores", str(arguments.cores), *model),
            ]
    return commands


def _rounds(
    ways: dict[str, list[str]], paths: list[str], arguments: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Seconds a picture of every way in each round; ways that fail are told and left out."""
    workers = []
    for way, command in ways.items():
        worker = Worker(way, command)
        if worker.read(300) is None or worker.ask(paths[:2], 300) is None:
            print(f"left out: {way}: {worker.close()}", flush=True)
        else:
            workers.append(worker)
    for number in range(arguments.rounds):
        for place in range(len(workers)):
            worker = workers[(place + number) % len(workers)]
            answer = worker.ask(paths, 600)
            worker.seconds.append(answer["seconds"] / len(paths) if answer else float("nan"))
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    for worker in workers:
        worker.close()
    return {worker.way: np.array(worker.seconds) for worker in workers}


def _large(
    ways: dict[str, list[str]], photograph: Path, scratch: Path, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Seconds and peak memory of one large picture, each in a fresh process."""
    result: dict[str, dict[str, Any]] = {}
    files = {}
    for name, size in _LARGE.items():
        files[name] = scratch / f"{name}.jpg"
        with Image.open(photograph) as picture:
            picture.resize(size, Image.Resampling.LANCZOS).save(files[name], quality=90)
    began = time.perf_counter()
    for file in files.values():
        with Image.open(file) as picture:
            picture.load()
    print(f"decoding both large pictures: {time.perf_counter() - began:.2f} s", flush=True)
    for way, command in ways.items():
        result[way] = {}
        for name, file in files.items():
            worker = Worker(way, [*command, "--memory-limit", str(arguments.memory_limit)])
            answer = worker.read(120) and worker.ask([str(photograph)], 120)
            small = answer["seconds"] if answer else float("nan")
            answer = answer and worker.ask([str(file)], arguments.limit)
            complaint = worker.close()
            result[way][name] = (
                {
                    "seconds": answer["seconds"],
                    "seconds_small": small,
                    "peak_megabytes": answer["peak_megabytes"],
                }
                if answer
                else {"failed": complaint or f"more than {arguments.limit:.0f} s"}
            )
            print(way, name, result[way][name], flush=True)
            if not answer:
                break
    return result


def _print(result: dict[str, Any], rounds: dict[str, np.ndarray], reference: str) -> None:
    base = rounds.get(reference)
    heads = ["way", "pictures a second", f"ratio to {reference} (range)"]
    heads += [f"{name}: s, GB" for name in _LARGE] if result["large"] else []
    print(f"\n{result['cores']} cores, {result['pictures']} pictures, model", end=" ")
    print(f"{result['model_sha256']}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for way, seconds in rounds.items():
        cells = [way, f"{1 / np.median(seconds):.2f}", ""]
        if base is not None:
            ratios = base / seconds
            cells[2] = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        for name in _LARGE if result["large"] else ():
            found = result["large"].get(way, {}).get(name, {})
            cells.append(
                f"{found['seconds']:.1f}, {found['peak_megabytes'] / 1e3:.1f}"
                if "seconds" in found
                else "-"
            )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
