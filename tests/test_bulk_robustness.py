"""Bulk scoring keeps its limits: of memory, of time, of what an interrupt or a bad input does."""

import errno
import io
import os
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
from bulk_parts import MANIFEST, no_process, record_of
from PIL import Image

from pfd_iqa_hf.scoring import decoder_worker, folder_lock, parts
from pfd_iqa_hf.scoring.ahead import UNKNOWN_BYTES, DaemonThreads, PictureBytes, work_ahead
from pfd_iqa_hf.scoring.decoder_pool import DecoderPool, DecoderStartError
from pfd_iqa_hf.scoring.decoding import DecodingSettings
from pfd_iqa_hf.scoring.find import FoundPicture
from pfd_iqa_hf.scoring.http_fetch import fetch
from pfd_iqa_hf.scoring.input_options import LARGEST_FILE, InputOptions, TooLargeError
from pfd_iqa_hf.scoring.inputs import find_inputs
from pfd_iqa_hf.scoring.parts import OutputFolder, OutputFolderError

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

SETTINGS = DecodingSettings("fast", 32, 64, 1_000_000)
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


# Processes that do not start


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
    monkeypatch.setattr(decoder_worker.subprocess, "Popen", no_process)
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
        return whole(*arguments, **options) if count == 3 else no_process()

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
    output.write(record_of("a.png"))
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
