"""A long run: what is held in memory depends on neither how long it is nor what goes through.

By hand, two minutes: SOAK_PICTURES=20000 python -m pytest -s tests/test_bulk_robustness_soak.py
"""

import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_cli.process_memory import steady_memory
from pfd_iqa_hf.scoring.archives import archive_pictures
from pfd_iqa_hf.scoring.bulk import bulk_model, score_in_bulk
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool
from pfd_iqa_hf.scoring.folder import FolderScorer

SIDE = 64
SETTLED = 1_000
GROWTH = 50  # MB


def _resident(process: int | str) -> float:
    """Megabytes of main memory that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def _archive(file: Path, count: int) -> None:
    """Pictures that differ, in several formats; made from few, as making them is not the test."""
    rng = np.random.default_rng(11)
    data: list[tuple[str, bytes]] = []
    for number in range(64):
        stream = io.BytesIO()
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        kind = ("PNG", "JPEG", "WEBP", "TIFF")[number % 4]
        Image.fromarray(pixels).save(stream, kind)
        data.append((kind.lower(), stream.getvalue()))
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        for number in range(count):
            kind, content = data[number % 64]
            member = tarfile.TarInfo(f"{number:06d}.{kind}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.skipif("SOAK_PICTURES" not in os.environ, reason="by hand, with SOAK_PICTURES=20000")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat(tiny_checkpoint: Path, tmp_path: Path) -> None:
    count = int(os.environ["SOAK_PICTURES"])  # fewer for a quick look
    steady_memory()  # as the command does
    _archive(tmp_path / "many.tar.gz", count)
    file = str(tmp_path / "many.tar.gz")
    scorer = FolderScorer(str(tiny_checkpoint), "cpu", batch_size=16, view_strategy="fast")
    model = bulk_model(scorer)
    done = failed = 0
    first: dict[int | str, float] = {}
    most: dict[int | str, float] = {}
    with DecoderPool(model.settings, workers=2) as pool:
        found = archive_pictures(file, lambda: open(file, "rb"), file)
        for result in score_in_bulk(model, pool, found, lanes=2):
            done += 1
            failed += result.record["error"] is not None
            if done % SETTLED == 0:
                processes: list[int | str] = ["self", *pool.process_ids]
                for process in processes:
                    now = _resident(process)
                    first.setdefault(process, now)
                    most[process] = max(most.get(process, 0.0), now)
                print(done, {process: round(_resident(process)) for process in first})
    assert (done, failed) == (count, 0)
    assert len(first) == 3, "no process was replaced"
    for process, before in first.items():
        assert most[process] - before < GROWTH, f"{process}: {before:.0f} to {most[process]:.0f} MB"
