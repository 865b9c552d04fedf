"""The demo's parts without its server: what a stranger can send, and what a reader sees."""

import asyncio
import math
import os
import re
import threading
import time
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pfd_iqa_hf.demo.gauge import band_colour, gauge, ink_on
from pfd_iqa_hf.demo.limits import BodyLimit, Limits
from pfd_iqa_hf.demo.micro_batches import MicroBatcher
from pfd_iqa_hf.demo.text import percent, shown
from pfd_iqa_hf.demo.uploads import (
    holds_address,
    private_cache,
    read_upload,
    sweep,
    swept_regularly,
)
from pfd_iqa_hf.modeling.picture_reading import PictureError

BORDERS = [20.0, 40.0, 60.0, 80.0]


def test_what_waits_together_runs_together_and_each_gets_its_own() -> None:
    started, go = threading.Event(), threading.Event()
    sizes: list[int] = []

    def double(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        started.set()
        assert go.wait(10)
        return [2 * item for item in batch]

    batcher = MicroBatcher(double, 4)
    first = batcher.submit(100)
    assert started.wait(10)
    rest = [batcher.submit(number) for number in range(6)]
    rest[1].cancel()
    go.set()
    assert first.result(10) == 200
    assert [rest[place].result(10) for place in (0, 2, 3, 4, 5)] == [0, 4, 6, 8, 10]
    batcher.close()
    assert sizes == [1, 3, 2], "one alone, then at most four at a time, less the cancelled one"


def test_one_failure_in_a_batch_harms_nobody_else() -> None:
    go = threading.Event()

    def invert(batch: Sequence[float]) -> list[float]:
        assert go.wait(10)
        return [1 / item for item in batch]

    batcher = MicroBatcher(invert, 8)
    futures = [batcher.submit(number) for number in (1.0, 2.0, 0.0, 4.0)]
    go.set()
    assert [futures[place].result(10) for place in (0, 1, 3)] == [1.0, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError):
        futures[2].result(10)
    batcher.close()


async def _answer(
    limits: Limits,
    parts: list[bytes],
    headers: dict[str, str],
    path: str,
    pause: float = 0.0,
    cache: Path | None = None,
) -> tuple[int, bytes]:
    """What a client hears from an application that reads its whole body and says how long it is."""
    waiting = list(parts)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(length).encode()})

    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await BodyLimit(application, limits, cache)(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("parts", "headers", "path", "status", "told"),
    [
        ([b"a" * 900, b"b" * 100], {}, "/gradio_api/queue/join", 200, "1000"),
        (
            [b"a" * (1 << 20), b"b"],
            {},
            "/gradio_api/queue/join",
            413,
            "over the limit of 1,048,576",
        ),
        ([b"a" * (1 << 20), b"b"], {}, "/gradio_api/upload", 200, "1048577"),
        ([b""], {"content-length": "99999999"}, "/gradio_api/upload", 413, "over the limit"),
    ],
)
def test_a_body_that_is_too_large_is_refused(
    parts: list[bytes], headers: dict[str, str], path: str, status: int, told: str
) -> None:
    limits = Limits(max_file_bytes=1_000_000)
    answer, body = asyncio.run(_answer(limits, parts, headers, path))
    assert answer == status and told in body.decode()


def test_a_full_cache_takes_no_more(tmp_path: Path) -> None:
    (tmp_path / "digest").mkdir()
    (tmp_path / "digest" / "a.jpg").write_bytes(bytes(700))
    limits = Limits(max_cache_bytes=1000)

    def sent(length: int, path: str = "/gradio_api/upload") -> tuple[int, bytes]:
        parts, headers = [bytes(length)], {"content-length": str(length)}
        return asyncio.run(_answer(limits, parts, headers, path, cache=tmp_path))

    assert sent(300) == (200, b"300") and sent(301, "/gradio_api/queue/join")[0] == 200
    status, body = sent(301)
    assert status == 507 and "try again in 5 minutes" in body.decode()


def test_a_body_that_never_ends_is_refused() -> None:
    limits = Limits(seconds=0.2)
    status, body = asyncio.run(_answer(limits, [b"a"] * 50, {}, "/x", pause=0.05))
    assert status == 408 and "longer than 0.2 s" in body.decode()


def test_the_cache_is_private_swept_and_removed(tmp_path: Path) -> None:
    with private_cache() as cache:
        assert os.environ["GRADIO_TEMP_DIR"] == str(cache)
        assert cache.stat().st_mode & 0o077 == 0, "nobody else may look at the pictures"
        old, half = cache / "digest" / "a.jpg", cache / "tmp-half-an-upload"
        old.parent.mkdir()
        old.write_bytes(b"a")
        half.write_bytes(b"b")
        assert sweep(cache, 3600) == 0 and old.exists()
        swept = threading.Event()
        with swept_regularly(cache, 0.2, swept.set):
            deadline = time.monotonic() + 20
            while any(cache.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.05)
        assert swept.is_set() and list(cache.iterdir()) == []
        old.parent.mkdir()
        old.write_bytes(b"a")
    assert not cache.exists() and os.environ.get("GRADIO_TEMP_DIR") != str(cache)


def test_an_upload_is_read_within_its_limit_and_named_as_sent(tmp_path: Path) -> None:
    path = tmp_path / "cached.jpg"
    path.write_bytes(b"12345")
    assert read_upload({"path": str(path), "orig_name": "../Café.jpg"}, 5) == (b"12345", "Café.jpg")
    with pytest.raises(PictureError, match="Café.jpg: is larger than the limit of 4 bytes"):
        read_upload({"path": str(path), "orig_name": "Café.jpg"}, 4)
    with pytest.raises(PictureError, match="^gone.jpg: is no longer in the upload cache"):
        read_upload({"path": str(tmp_path / "gone.jpg"), "orig_name": None}, 5)


@pytest.mark.parametrize("address", ["http://x/a.jpg", "https://x/a.jpg", " HTTPS://x/a.jpg"])
def test_addresses_are_found_wherever_they_hide(address: str) -> None:
    sent = {"path": "/cache/a.jpg", "orig_name": "http.jpg"}
    assert not holds_address([sent, [sent], None, 5, "worst"])
    assert holds_address([None, [sent, {"value": {"path": address}}]])


@pytest.mark.parametrize(
    ("score", "uncertainty"), [(0.0, 3.0), (19.9, 0.0), (20.0, 12.5), (71.3, 6.2), (100.0, 40.0)]
)
def test_the_gauge_says_what_the_record_says(score: float, uncertainty: float) -> None:
    record = {"score": score, "uncertainty": uncertainty, "label": "so <so>"}
    drawing = ElementTree.fromstring(gauge(record, BORDERS, 'a "b" & c.jpg'))
    spoken = drawing.attrib["aria-label"]
    assert drawing.attrib["role"] == "img" and spoken.startswith('a "b" & c.jpg: score ')
    assert f"{score:.1f} of 100, so <so>" in spoken and f"minus {uncertainty:.1f}" in spoken
    texts = [element.text for element in drawing.iter("text")]
    assert {f"{score:.1f}", f"± {uncertainty:.1f}", "so <so>", "0", "20", "100"} <= set(texts)
    # The needle points where the score lies: its angle runs from 180 degrees to none.
    needle = next(e for e in drawing.iter("line") if e.attrib["class"] == "pfd-needle")
    x1, y1, x2, y2 = (float(needle.attrib[name]) for name in ("x1", "y1", "x2", "y2"))
    shown = 100 * (1 - math.atan2(y1 - y2, x2 - x1) / math.pi)
    assert shown == pytest.approx(score, abs=0.2)
    numbers = [
        float(n) for path in drawing.iter("path") for n in re.findall(r"[\d.]+", path.attrib["d"])
    ]
    assert min(numbers) >= 0 and max(numbers) <= 320, "nothing is cut off"


def test_bands_have_their_own_readable_colours() -> None:
    colours = [band_colour(score, BORDERS) for score in (0, 20, 59.9, 60, 100)]
    assert len(set(colours)) == 5 and band_colour(19.99, BORDERS) == colours[0]
    assert {ink_on("#ffffff"), ink_on("#e3b63c")} == {"#111"} and ink_on("#000000") == "#fff"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.004, "&lt;1 %"), (0.5, "50 %"), (0.999, "&gt;99 %"), (1.0, "100 %")],
)
def test_nothing_is_rounded_to_certainty(share: float, text: str) -> None:
    assert percent(share) == text


def test_names_of_files_are_text_and_never_markup_or_template() -> None:
    name = "<b>${alert(1)} {{x}} `\"'&"
    html = shown(name)
    assert not set(html) & set("<>{}$`\"'") and unescape(html) == name
