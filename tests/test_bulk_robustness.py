"""Bulk scoring keeps its limits: of memory, of time, of what an interrupt or a bad input does."""

import errno
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from pfd_iqa_cli.score_folder import kept_on_interrupt
from pfd_iqa_hf.scoring import decoder_worker, folder_lock, parts, video
from pfd_iqa_hf.scoring.ahead import UNKNOWN_BYTES, DaemonThreads, PictureBytes, work_ahead
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool, DecoderStartError
from pfd_iqa_hf.scoring.decoding import DecodingSettings
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.http_fetch import fetch
from pfd_iqa_hf.scoring.input_options import LARGEST_FILE, InputOptions, TooLargeError
from pfd_iqa_hf.scoring.inputs import find_inputs
from pfd_iqa_hf.scoring.parts import OutputFolder, OutputFolderError
from pfd_iqa_hf.scoring.records import make_record

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

SETTINGS = DecodingSettings("fast", 32, 64, 1_000_000)
MANIFEST = {"model_sha256": "0" * 12}
MEGABYTE = 1 << 20
posix = pytest.mark.skipif(fcntl is None, reason="needs a POSIX system")


def _png(padding: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (40, 50), 77).save(file, "PNG")
    return file.getvalue() + bytes(padding)


class _Bytes:
    """Gives bytes and can be watched: how many of them are alive."""

    alive: "weakref.WeakSet[_Bytes]" = weakref.WeakSet()

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.alive.add(self)

    def __call__(self) -> bytes:
        return self.data


def _in_memory(count: int, size: int = MEGABYTE) -> Iterator[FoundPicture]:
    for number in range(count):
        read = _Bytes(_png(size))
        yield FoundPicture(f"{number}.png", Path("x"), read=read, byte_count=len(read.data))
        del read


# Bytes


def test_pictures_in_memory_are_not_gathered() -> None:
    _Bytes.alive.clear()
    most = done = 0
    with DecoderPool(SETTINGS, workers=1) as pool:
        pool._bytes_ahead = 6 * MEGABYTE
        for _, decoded in pool.decode_ahead(_in_memory(60), ahead=40):
            most = max(most, len(_Bytes.alive))
            done += decoded.views is not None
    assert done == 60
    # Five within the limit, one that waits for room, one that is being begun.
    assert most <= 7, f"{most} MB were held"


def test_results_hold_no_files() -> None:
    _Bytes.alive.clear()
    with DecoderPool(SETTINGS, workers=1) as pool:
        results = list(pool.decode_ahead(_in_memory(6), ahead=3))
    assert len(results) == 6 and not len(_Bytes.alive)
    assert [found.path for found, _ in results] == [f"{number}.png" for number in range(6)]


def test_one_picture_over_the_limit_goes_alone() -> None:
    most = 0

    def begin(found: FoundPicture) -> Future[int]:
        nonlocal most
        future: Future[int] = Future()
        future.set_result(found.byte_count or UNKNOWN_BYTES)
        begun.append(found)
        return future

    begun: list[FoundPicture] = []
    taken = 0
    counts = [3, 50, 3, None, 4, 4, 4]
    pictures = [FoundPicture(str(c), Path("x"), byte_count=c) for c in counts]
    for count in work_ahead(pictures, begin, 3, 10):
        held = sum(p.byte_count or UNKNOWN_BYTES for p in begun[taken:])
        assert held <= 10 or len(begun) - taken == 1, "what has more than the limit goes alone"
        assert len(begun) - taken <= 3
        assert count == (counts[taken] or UNKNOWN_BYTES)
        taken += 1
    assert taken == len(counts)


def test_of_files_of_unknown_size_one_large_one_is_read_at_a_time() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def read(largest: int = LARGEST_FILE) -> bytes:
        nonlocal running, most
        if largest < LARGEST_FILE:
            raise TooLargeError(largest)
        with lock:
            running += 1
            most = max(most, running)
        return b"large"

    def small(largest: int = LARGEST_FILE) -> bytes:
        return b"small"

    pictures = PictureBytes()

    def use(function: Callable[..., bytes]) -> bytes | None:
        nonlocal running
        with pictures.of(FoundPicture("x", Path("x"), read=function, byte_count=None)) as data:
            time.sleep(0.02)
        with lock:
            running -= function is read
        return data

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(use, [read, small] * 4)) == [b"large", b"small"] * 4
    assert most == 1


# Time


@pytest.fixture
def drip() -> Iterator[Callable[[bytes, bytes], int]]:
    """Start a server that sends a beginning, then something small again and again, for 20 s."""
    servers: list[socket.socket] = []
    over = threading.Event()

    def serve(server: socket.socket, begin: bytes, again: bytes) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with suppress(OSError), client:
                    client.sendall(begin)
                    deadline = time.monotonic() + 20
                    while time.monotonic() < deadline and not over.wait(0.1):
                        client.sendall(again)

    def start(begin: bytes, again: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=serve, args=(server, begin, again), daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    over.set()
    for server in servers:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("protocol", "begin", "again"),
    [
        ("http", b"", b"H"),
        ("http", OK, b"X-Slow: 1\r\n"),
        ("http", OK + b"\r\n", b"x"),
        ("http", OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        ("https", b"\x16\x03\x03\x40\x00", b"\x02"),
    ],
    ids=["status", "headers", "body", "chunks", "handshake"],
)
def test_a_fetch_ends_at_its_limit_whatever_drips(
    protocol: str, begin: bytes, again: bytes, drip: Callable[[bytes, bytes], int]
) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match="takes longer than 1 s; raise --time-limit"):
        fetch(f"{protocol}://127.0.0.1:{drip(begin, again)}/a.png", 1.0, allow_private=True)
    assert time.monotonic() - began < 8


def test_a_file_that_says_it_is_too_large_is_not_begun(drip: Callable[[bytes, bytes], int]) -> None:
    port = drip(OK + b"Content-Length: 900000000\r\n\r\n", b"x" * 100)
    began = time.monotonic()
    with pytest.raises(TooLargeError):
        fetch(f"http://127.0.0.1:{port}/a.png", 15.0, allow_private=True)
    assert time.monotonic() - began < 8


def test_a_pool_does_not_wait_for_what_is_being_read() -> None:
    reading, end = threading.Event(), threading.Event()

    def read() -> bytes:
        reading.set()
        end.wait(30)
        return b""

    pool = DecoderPool(SETTINGS, workers=1)
    results = pool.decode_ahead([FoundPicture("x", Path("x"), read=read)], ahead=2)
    threading.Thread(target=lambda: next(results), daemon=True).start()
    assert reading.wait(10)
    began = time.monotonic()
    pool.close()
    took = time.monotonic() - began
    end.set()
    assert took < 10


def test_threads_that_are_busy_hold_up_no_end_of_a_process() -> None:
    code = (
        "import time\n"
        "from pfd_iqa_onnx.scoring.ahead import DaemonThreads\n"
        "threads = DaemonThreads(2, 'reading')\n"
        "threads.submit(time.sleep, 60)\n"
        "assert threads.submit(sum, (1, 2)).result(10) == 3\n"
        "late = threads.submit(time.sleep, 60), threads.submit(time.sleep, 60)\n"
        "threads.close()\n"
        "assert late[1].cancelled()\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    assert time.monotonic() - began < 45


def test_errors_of_threads_reach_the_caller() -> None:
    threads = DaemonThreads(1, "x")
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(10)
    threads.close()


# Interrupts


@pytest.fixture
def interrupts() -> Iterator[None]:
    """As on a terminal: jobs in the background of a shell ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _record(path: str) -> dict[str, Any]:
    result = {"score": 50.0, "label": "fair", "uncertainty": 1.0}
    return make_record(path, {"model": "m"}, result, (8, 8))


def _paths(folder: Path, kind: str) -> list[str]:
    paths: list[str] = []
    output = OutputFolder(folder, kind, 3)
    output.resume(MANIFEST, lambda record: paths.append(record["path"]))
    output.release()
    return paths


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("place", ["replace", "fsync"])
def test_an_interrupt_while_a_part_is_completed_comes_after_it(
    kind: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupts: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = OutputFolder(tmp_path / "run", kind, 3)
    output.start(MANIFEST)
    whole = getattr(os, place)

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return whole(*arguments)

    with pytest.raises(typer.Exit) as end, kept_on_interrupt(output):
        for name in ("a.png", "b.png"):
            output.write(_record(name))
        monkeypatch.setattr(os, place, interrupted)
        output.write(_record("c.png"))  # completes the part
        output.write(_record("d.png"))
    monkeypatch.undo()
    assert end.value.exit_code == 130 and "what was scored" in capsys.readouterr().err
    assert _paths(tmp_path / "run", kind) == ["a.png", "b.png", "c.png"]
    assert not list((tmp_path / "run").glob(".*"))


def test_a_second_interrupt_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupts: None
) -> None:
    output = OutputFolder(tmp_path / "run", "jsonl", 100)
    output.start(MANIFEST)
    whole = os.replace

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        whole(*arguments)

    with pytest.raises(typer.Exit), kept_on_interrupt(output):
        output.write(_record("a.png"))
        monkeypatch.setattr(os, "replace", interrupted)
        signal.raise_signal(signal.SIGINT)
    monkeypatch.undo()
    assert _paths(tmp_path / "run", "jsonl") == ["a.png"]


@pytest.mark.parametrize("failing", ["writing", "scoring"])
def test_an_error_keeps_what_can_be_kept(
    failing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = OutputFolder(tmp_path / "run", "jsonl", 2)
    output.start(MANIFEST)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = typer.Exit if failing == "writing" else RuntimeError
    with pytest.raises(expected), kept_on_interrupt(output):
        for name in ("a.png", "b.png", "c.png"):
            output.write(_record(name))
        if failing == "scoring":
            raise RuntimeError("the model is broken")
        monkeypatch.setattr(os, "fsync", full)
        output.write(_record("d.png"))
    monkeypatch.undo()
    errors = capsys.readouterr().err
    assert "--resume" in errors and ("cannot write" in errors) == (failing == "writing")
    kept = ["a.png", "b.png"] if failing == "writing" else ["a.png", "b.png", "c.png"]
    assert not list((tmp_path / "run").glob(".*"))
    assert _paths(tmp_path / "run", "jsonl") == kept


# Videos

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
    monkeypatch.setattr(video.subprocess, "Popen", _no_process)
    (found,) = _frames(tmp_path / "clip.mp4")
    assert "no process starts for it" in str(found.error) and "Resource" in str(found.error)


# Processes that do not start


def _no_process(*_: Any, **__: Any) -> Any:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def _broken_pillow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes that are started from now on."""
    (folder / "broken" / "PIL").mkdir(parents=True)
    (folder / "broken" / "PIL" / "__init__.py").write_text("raise ImportError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(folder / "broken"))


def _files(folder: Path, count: int) -> list[FoundPicture]:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(_png())
    return [FoundPicture(str(folder / f"{n}.png"), Path("x")) for n in range(count)]


def test_processes_that_cannot_import_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _broken_pillow(tmp_path, monkeypatch)
    with DecoderPool(SETTINGS, workers=2) as pool:
        results = pool.decode_ahead(_files(tmp_path, 4), 8)
        with pytest.raises(DecoderStartError, match="half installed.*--workers"):
            next(results)


def test_processes_that_the_system_does_not_start_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_worker.subprocess, "Popen", _no_process)
    with DecoderPool(SETTINGS, workers=1) as pool:
        with pytest.raises(DecoderStartError, match="Resource temporarily unavailable"):
            next(pool.decode_ahead(_files(tmp_path, 2), 4))


def test_some_processes_that_start_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, count = subprocess.Popen, 0

    def seldom(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        return whole(*arguments, **options) if count == 3 else _no_process()

    monkeypatch.setattr(decoder_worker.subprocess, "Popen", seldom)
    with DecoderPool(SETTINGS, workers=2) as pool:
        results = list(pool.decode_ahead(_files(tmp_path, 12), 4))
        assert len(pool.process_ids) == 1
    assert [decoded.error for _, decoded in results] == [None] * 12


# Places


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "name", ["..\\evil.png", "a\\..\\..\\evil.png", "C:\\evil.png", "\\\\host\\share\\evil.png"]
)
def test_windows_paths_that_lead_out_of_an_archive_are_refused(
    name: str, packed: bool, tmp_path: Path
) -> None:
    file = tmp_path / ("a.tgz" if packed else "a.tar")
    with tarfile.open(file, "w:gz" if packed else "w") as archive:
        for one in (name, "sub\\good.png"):
            member = tarfile.TarInfo(one)
            member.size = len(_png())
            archive.addfile(member, io.BytesIO(_png()))
    bad, good = find_inputs([str(file)], InputOptions(), [])
    assert "leads out of the archive, which is refused" in str(bad.error)
    assert not {"..", "C:\\"} & set(bad.place.parts) and not bad.place.is_absolute()
    assert "\\" not in str(bad.place)
    assert good.error is None and good.place == Path("sub", "good.png")
    assert good.byte_count == len(_png())


@posix
def test_only_handles_that_may_write_are_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[int] = []

    def as_windows(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            return
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        brought.append(handle)

    monkeypatch.setattr(os, "fsync", as_windows)
    output = OutputFolder(tmp_path / "run", "jsonl", 1)
    output.start(MANIFEST)
    output.write(_record("a.png"))
    output.write_summary({"pictures": 1})
    output.release()
    assert len(brought) == 3
    parts.write_complete(tmp_path / "page.html", "x")
    assert len(brought) == 4 and (tmp_path / "page.html").read_text() == "x"


@posix
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_keeps_others_out_too(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_lock.fcntl, "flock", none)
    first = OutputFolder(tmp_path, "jsonl", 3)
    first.start(MANIFEST)
    lock = tmp_path / ".lock"
    assert lock.read_text() == f"{os.getpid()} {socket.gethostname()}"

    def resume() -> None:
        OutputFolder(tmp_path, "jsonl", 3).resume(MANIFEST, lambda record: None)

    ended = subprocess.Popen(["true"])
    ended.wait()
    lock.write_text(f"1 {socket.gethostname()}")
    with pytest.raises(OutputFolderError, match=r"process 1 on .* is writing.*delete .*\.lock"):
        resume()
    lock.write_text(f"{ended.pid} another-machine")
    with pytest.raises(OutputFolderError, match="on another-machine is writing"):
        resume()
    lock.write_text(f"{ended.pid} {socket.gethostname()}")
    resume()  # as kill -9 leaves it
    assert lock.read_text().split()[0] == str(os.getpid())
    first.release()
    assert not lock.exists()
