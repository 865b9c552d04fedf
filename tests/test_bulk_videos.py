"""Frames of a video have limits of time, memory and size, whatever its decoder does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bulk_parts import no_process
from PIL import Image

from pfd_iqa_hf.scoring import video
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.input_options import InputOptions
from pfd_iqa_hf.scoring.inputs import find_inputs

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

posix = pytest.mark.skipif(fcntl is None, reason="needs a POSIX system")

FAKE_AV = """
import time
from types import SimpleNamespace
from PIL import Image
import numpy as np


class Frame:
    def __init__(self, number):
        self.time, self.width, self.height = number * 0.1, 64, 48

    def to_image(self):
        if MODE == "memory":
            np.ones(4 << 30, np.uint8)
        return Image.new("RGB", (64, 48))


class Container:
    def __init__(self):
        context = SimpleNamespace(width=64, height=48)
        self.streams = SimpleNamespace(
            video=[SimpleNamespace(codec_context=context, average_rate=10)]
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def decode(self, stream):
        for number in range(16):
            time.sleep(60 if MODE == "hanging" and number == 5 else 0.2)
            yield Frame(number)


def open(file):
    return Container()
"""


@pytest.fixture
def fake_av(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a decoder of a certain behaviour in the place of PyAV, and give a video for it."""

    def put(mode: str) -> Path:
        (tmp_path / "fake").mkdir()
        (tmp_path / "fake" / "av.py").write_text(f"MODE = {mode!r}\n{FAKE_AV}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
        monkeypatch.syspath_prepend(str(tmp_path / "fake"))
        (tmp_path / "clip.mp4").write_bytes(b"x")
        return tmp_path / "clip.mp4"

    return put


def _frames(file: Path, **options: Any) -> list[FoundPicture]:
    return list(find_inputs([str(file)], InputOptions(**options), []))


def test_the_time_limit_is_of_a_frame_and_not_of_the_gap_between_two(
    fake_av: Callable[[str], Path],
) -> None:
    # 1.6 s each, which eight frames take: more than the limit of one.
    found = _frames(fake_av("slow"), every=0.8, seconds=1.2)
    assert [picture.error for picture in found] == [None, None]


def test_a_frame_that_hangs_ends_its_video(fake_av: Callable[[str], Path]) -> None:
    file, began = fake_av("hanging"), time.monotonic()
    first, end = _frames(file, every=100, seconds=1.5)
    assert time.monotonic() - began < 30
    assert first.error is None and first.byte_count == 64 * 48 * 3 + len(b"P6 64 48 255\n")
    assert "after 1 frames: a frame takes longer than 1.5 s; raise --time-limit" in str(end.error)


@posix
def test_a_frame_that_wants_all_memory_ends_its_video(fake_av: Callable[[str], Path]) -> None:
    (end,) = _frames(fake_av("memory"), every=1, seconds=30, max_pixels=1_000_000)
    assert "do not fit into memory; lower max_pixels (--max-pixels)" in str(end.error)


@pytest.mark.parametrize("limit", [64 * 48, 64 * 48 - 1])
def test_frames_have_a_limit_of_pixels(limit: int, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for number in range(3):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (80 * number, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (found,) = _frames(tmp_path / "clip.mp4", every=100, seconds=60, max_pixels=limit)
    if limit == 64 * 48:
        assert found.error is None
    else:
        assert "64 x 48 is 3,072 pixels, over the limit of 3,071" in str(found.error)
        assert "--max-pixels" in str(found.error)


def test_a_process_that_does_not_start_is_no_fault_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    monkeypatch.setattr(video.subprocess, "Popen", no_process)
    (found,) = _frames(tmp_path / "clip.mp4")
    assert "no process starts for it" in str(found.error) and "Resource" in str(found.error)
