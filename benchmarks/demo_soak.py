"""Many clients at once on the demo: is an answer lost or mixed up, does its memory grow?

    python benchmarks/demo_soak.py --clients 30 --seconds 120

Starts `pfd-iqa demo` on a free port of this machine and lets every client send pictures of its own,
as fast as it is answered; one client in five sends broken ones. Every answer is compared with the
score that the pipeline gives the same bytes. Without --model it is a tiny random model, which loads
the server and not the processor; with it any checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

_PICTURES = 24
_BROKEN_EVERY = 5
_TOLERANCE = 0.01
_PATIENCE = 120.0
_FLAT_MEGABYTES = 30


@dataclass
class Tally:
    """What the clients saw; guarded by its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def make_pictures(folder: Path, number: int) -> list[Path]:
    """Noisy pictures of different sizes and light, no two alike."""
    paths = []
    for index in range(number):
        generator = np.random.default_rng(index)
        rows, columns = np.mgrid[0 : 240 + 8 * index, 0 : 320 + 5 * index]
        light = 40 + 7 * index + 40 * np.sin(columns / (20 + 3 * index)) * np.cos(rows / 37)
        noise = generator.normal(0, 2 + index, (*rows.shape, 3))
        path = folder / f"picture-{index:02d}.jpg"
        Image.fromarray(np.clip(light[..., None] + noise, 0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def make_broken(folder: Path, whole: Path) -> list[Path]:
    """A file that is no picture, an empty one, and half of a picture."""
    contents = {
        "text.jpg": b"this is no picture",
        "empty.png": b"",
        "half.jpg": whole.read_bytes()[: whole.stat().st_size // 2],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def make_model(folder: Path) -> Path:
    """A tiny random checkpoint whose scores differ between pictures."""
    import torch

    from pfd_iqa_hf import (
        PfdIqaConfig,
        PfdIqaForImageQualityAssessment,
        PfdIqaImageProcessor,
    )

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = PfdIqaConfig(
        vision_config={
            "model_type": "dinov2",
            "hidden_size": 24,
            "image_size": 224,
            "patch_size": 28,
            **tower,
        },
        text_config={
            "model_type": "bert",
            "hidden_size": 16,
            "intermediate_size": 16,
            "vocab_size": 50,
            **tower,
        },
        text_embed_dim=16,
        text_pooling="mean",
        feature_levels=[1, 2],
        prior_rank=8,
        denoising_width=24,
        condition_heads=2,
        head_num_attention_heads=2,
    )
    torch.manual_seed(0)
    model = PfdIqaForImageQualityAssessment(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    PfdIqaImageProcessor().save_pretrained(folder)
    return folder


def expected_scores(model: Path | str, pictures: list[Path]) -> dict[str, float]:
    """Score of each picture by file name, from the pipeline on its own."""
    from pfd_iqa_hf.scoring.folder import load_pipeline

    assess = load_pipeline(str(model), device="cpu")
    return {path.name: assess(path.read_bytes())["score"] for path in pictures}


@contextmanager
def served(model: Path | str, log: IO[str]) -> Iterator[tuple[str, int]]:
    """Address and process id of a demo in a process of its own."""
    command = [sys.executable, "-m", "pfd_iqa_cli", "demo", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [*command, "--model", str(model)], stdout=log, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                address = found.group()
                break
            log.write(line)
        if address is None:
            raise SystemExit("the demo did not start")
        reader = threading.Thread(target=lambda: log.writelines(process.stderr or ()), daemon=True)
        reader.start()
        try:
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(60)


def client_work(
    number: int,
    address: str,
    pictures: list[Path],
    broken: list[Path],
    expected: dict[str, float],
    until: float,
    tally: Tally,
) -> None:
    """Send pictures one after the other until the time is over."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    sends_broken = number % _BROKEN_EVERY == 0
    files = broken if sends_broken else pictures
    own = pictures[0].parent / f"client-{number}"
    own.mkdir()
    try:
        # Patient, so that a slow machine is not taken for a lost answer.
        client = Client(address, verbose=False, httpx_kwargs={"timeout": _PATIENCE})
    except Exception as error:
        with tally.lock:
            tally.lost.append(f"client {number} could not connect: {error!r}")
        return
    turn = number
    while time.monotonic() < until:
        path = own / files[turn % len(files)].name
        # What follows a picture's end is ignored: the same pixels in a file the server never saw.
        tail = b"" if sends_broken else f"{number} {turn}".encode()
        path.write_bytes(files[turn % len(files)].read_bytes() + tail)
        turn += 1
        started = time.monotonic()
        try:
            record = client.predict(handle_file(str(path)), api_name="/assess")
        except AppError as error:
            with tally.lock:
                if sends_broken and path.name in str(error):
                    tally.refused += 1
                else:
                    tally.lost.append(f"{path.name}: {error}")
        except Exception as error:
            with tally.lock:
                tally.lost.append(f"{path.name}: {error!r}")
        else:
            near = abs(record["score"] - expected.get(path.name, -1.0)) <= _TOLERANCE
            with tally.lock:
                if near and record["name"] == path.name:
                    tally.right += 1
                else:
                    tally.wrong.append(f"{path.name}: {record['name']} {record['score']}")
        with tally.lock:
            tally.seconds.append(time.monotonic() - started)


def memory_megabytes(process: int) -> float:
    """Resident memory of a process, from Linux's /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def soak(model: Path | str | None, clients: int, seconds: float) -> dict[str, Any]:
    """Run the whole thing.

    Args:
        model: Checkpoint; None makes the tiny one.
        clients: How many at a time.
        seconds: For how long.

    Returns:
        Counts of answers, times in seconds, memory in MB over the run; JSON values.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = make_model(folder / "model") if model is None else model
        pictures = make_pictures(folder, _PICTURES)
        broken = make_broken(folder, pictures[0])
        expected = expected_scores(checkpoint, pictures)
        tally = Tally()
        memory: list[float] = []
        with (
            open(folder / "log.txt", "w") as log,
            served(checkpoint, log) as (address, process),
        ):
            until = time.monotonic() + seconds
            threads = [
                threading.Thread(
                    target=client_work,
                    args=(n, address, pictures, broken, expected, until, tally),
                )
                for n in range(clients)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                memory.append(memory_megabytes(process))
                time.sleep(min(1.0, seconds / 10))
            for thread in threads:
                thread.join()
        traces = (folder / "log.txt").read_text().count("Traceback")
    third = max(len(memory) // 3, 1)
    return {
        "clients": clients,
        "seconds": seconds,
        "right": tally.right,
        "refused_with_reason": tally.refused,
        "wrong_or_mixed_up": tally.wrong[:10],
        "lost": tally.lost[:10],
        "median_seconds": round(statistics.median(tally.seconds), 3),
        "slowest_seconds": round(max(tally.seconds), 3),
        "memory_mb_tenths": [
            round(memory[place * len(memory) // 10]) for place in range(min(10, len(memory)))
        ],
        "memory_mb_second_third": round(statistics.mean(memory[third : 2 * third] or memory)),
        "memory_mb_last_third": round(statistics.mean(memory[-third:])),
        "memory_mb_peak": round(max(memory)),
        "tracebacks_in_log": traces,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--model", help="folder or Hub id; else a tiny random model")
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    result = soak(arguments.model, arguments.clients, arguments.seconds)
    print(json.dumps(result, indent=1))
    growth = result["memory_mb_last_third"] - result["memory_mb_second_third"]
    # In the first minute the server still fills its caches.
    grows = arguments.seconds >= 60 and growth > _FLAT_MEGABYTES
    bad = result["wrong_or_mixed_up"] or result["lost"] or result["tracebacks_in_log"] or grows
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
