"""The demo as programs see it, through the genuine client: right answers, limits, privacy."""

import io
import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason='needs the extra "demo"')

import httpx  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from pfd_iqa_hf.demo.assess import Assessor  # noqa: E402
from pfd_iqa_hf.demo.limits import Limits  # noqa: E402
from pfd_iqa_hf.demo.serving import PortError, running  # noqa: E402
from pfd_iqa_hf.evaluation.comparison import probability_better  # noqa: E402
from pfd_iqa_hf.modeling.picture_reading import PictureError  # noqa: E402
from pfd_iqa_hf.scoring.records import RECORD_FIELDS  # noqa: E402

ROOT = Path(__file__).parents[1]
MAX_PIXELS, MAX_BYTES = 200_000, 300_000


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path) -> Iterator[str]:
    """A demo with a tiny model and tight limits."""
    limits = Limits(max_pixels=MAX_PIXELS, max_file_bytes=MAX_BYTES, max_pictures=4)
    assessor = Assessor(str(tiny_checkpoint), "cpu", limits=limits)
    with running(assessor) as address:
        yield address
    assessor.close()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_every_kind_of_file_gets_the_pipelines_own_result(
    client: Client, odd_pictures: dict[str, Path], tiny_pipeline: Any
) -> None:
    names = ("plain.jpg", "turned.jpg", "sixteen.png", "cmyk.jpg", "alpha.png", "one.png")
    for name in names:
        record = client.predict(handle_file(str(odd_pictures[name])), api_name="/assess")
        expected = tiny_pipeline(str(odd_pictures[name]))
        assert abs(record["score"] - expected["score"]) < 0.01, name
        assert abs(record["uncertainty"] - expected["uncertainty"]) < 0.01
        assert record["label"] == expected["label"]
        assert record.get("low_resolution") == expected.get("low_resolution")
        for key in ("levels", "distortions"):
            assert [e["label"] for e in record[key]] == [e["label"] for e in expected[key]]
            shares = [entry["score"] for entry in record[key]]
            wanted = [entry["score"] for entry in expected[key]]
            assert np.allclose(shares, wanted, atol=1e-4)
        fields = {"name", *RECORD_FIELDS} - {"path"}
        assert set(record) - {"low_resolution"} == fields and record["error"] is None
        assert record["name"] == name
    turned = client.predict(handle_file(str(odd_pictures["turned.jpg"])), api_name="/assess")
    assert (turned["width"], turned["height"]) == (260, 300), "the upright picture's"


def test_a_broken_picture_is_told_in_one_line(
    client: Client, broken_pictures: dict[str, tuple[Path, str]]
) -> None:
    for name in ("truncated.jpg", "empty.jpg", "text.jpg", "bomb.png"):
        path, reason = broken_pictures[name]
        reason = "no bytes" if name == "empty.jpg" else reason
        with pytest.raises(AppError) as caught:
            client.predict(handle_file(str(path)), api_name="/assess")
        message = str(caught.value)
        assert message.startswith(f"{name}: ") and reason in message
        assert "Traceback" not in message and "pfd-iqa-demo" not in message, "no path of the server"


def test_the_comparison_agrees_with_the_scores(
    client: Client, odd_pictures: dict[str, Path], tiny_pipeline: Any
) -> None:
    paths = [odd_pictures["plain.jpg"], odd_pictures["grey.jpg"]]
    answer = client.predict(*(handle_file(str(path)) for path in paths), api_name="/compare")
    better, worse = sorted(
        (tiny_pipeline(str(path)) | {"name": path.name} for path in paths),
        key=lambda result: -result["score"],
    )
    assert [entry["name"] for entry in answer["ranking"]] == [better["name"], worse["name"]]
    probability = probability_better(
        better["score"], better["uncertainty"], worse["score"], worse["uncertainty"]
    )
    assert answer["ranking"][0]["better_than_next"] == pytest.approx(float(probability), abs=1e-3)
    assert answer["ranking"][1]["better_than_next"] is None
    with pytest.raises(AppError, match="second: is missing"):
        client.predict(handle_file(str(paths[0])), None, api_name="/compare")


def test_many_pictures_are_sorted_and_one_broken_file_harms_nobody(
    client: Client, odd_pictures: dict[str, Path], broken_pictures: dict[str, tuple[Path, str]]
) -> None:
    paths = [odd_pictures["plain.jpg"], broken_pictures["text.jpg"][0], odd_pictures["black.png"]]
    files = [handle_file(str(path)) for path in paths]
    answers = {
        order: client.predict(files, order, api_name="/assess_many")
        for order in ("worst", "best", "input")
    }
    for order, records in answers.items():
        assert sorted(r["name"] for r in records) == sorted(path.name for path in paths), order
    scores = [record["score"] for record in answers["worst"]]
    assert scores[0] < scores[1] and scores[2] is None, "what failed comes last"
    assert [r["score"] for r in answers["best"]] == [scores[1], scores[0], None]
    assert [r["name"] for r in answers["input"]] == [path.name for path in paths]
    assert "not a picture" in answers["worst"][2]["error"]
    with pytest.raises(AppError, match="5 files: are more than the 4 of one call"):
        client.predict([files[0]] * 5, "worst", api_name="/assess_many")


def test_requests_at_the_same_time_are_never_mixed_up(
    address: str,
    tmp_path: Path,
    photograph: np.ndarray,
    tiny_pipeline: Any,
    broken_pictures: dict[str, tuple[Path, str]],
) -> None:
    expected: dict[str, float] = {}
    for number in range(6):
        light = np.clip(photograph * (0.3 + 0.2 * number), 0, 255).astype(np.uint8)
        path = tmp_path / f"light-{number}.png"
        Image.fromarray(light).save(path)
        expected[path.name] = tiny_pipeline(str(path))["score"]
    assert min(np.diff(sorted(expected.values()))) > 0.05, "a mix-up would be seen"

    def good(number: int) -> list[tuple[str, float]]:
        mine = Client(address, verbose=False)
        answers = []
        for turn in range(4):
            path = tmp_path / f"light-{(number + turn) % 6}.png"
            record = mine.predict(handle_file(str(path)), api_name="/assess")
            assert record["name"] == path.name
            answers.append((path.name, record["score"]))
        return answers

    def bad(name: str) -> list[str]:
        mine = Client(address, verbose=False)
        reasons = []
        for _ in range(4):
            with pytest.raises(AppError) as caught:
                mine.predict(handle_file(str(broken_pictures[name][0])), api_name="/assess")
            reasons.append(str(caught.value))
        return reasons

    with ThreadPoolExecutor(8) as threads:
        goods = [threads.submit(good, number) for number in range(6)]
        bads = {name: threads.submit(bad, name) for name in ("text.jpg", "truncated.jpg")}
        for future in goods:
            for name, score in future.result(120):
                assert abs(score - expected[name]) < 0.01, name
        for name, answers in bads.items():
            assert all(reason.startswith(f"{name}: ") for reason in answers.result(120))


def test_what_is_too_large_is_refused_readably(
    client: Client, address: str, tmp_path: Path, odd_pictures: dict[str, Path]
) -> None:
    with pytest.raises(AppError, match=r"strip.png: .* is 1,000,000 pixels, over the limit of 200"):
        client.predict(handle_file(str(odd_pictures["strip.png"])), api_name="/assess")
    heavy = tmp_path / "heavy.bin"
    heavy.write_bytes(b"0" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="heavy.bin exceeds the maximum file size of 300000 bytes"):
        client.predict(handle_file(str(heavy)), api_name="/assess")
    upload, call = f"{address}gradio_api/upload", f"{address}gradio_api/call/assess"
    answer = httpx.post(upload, files={"files": ("heavy.jpg", heavy.read_bytes())})
    assert answer.status_code == 413 and "maximum allowed size of 300000 bytes" in answer.text
    answer = httpx.post(upload, content=b"0" * 4_000_000)
    assert answer.status_code == 413 and "over the limit" in answer.text
    answer = httpx.post(call, content=b"0" * 2_000_000)
    assert answer.status_code == 413 and "over the limit" in answer.text


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("https://huggingface.co/a.jpg", "addresses are not fetched"),
        ("/etc/passwd", "something else than uploaded files"),
        ("{cache}/0/swept.jpg", "swept.jpg: is no longer in the upload cache"),
    ],
)
def test_only_uploaded_files_are_read(address: str, path: str, told: str) -> None:
    file = {"path": path.format(cache=os.environ["GRADIO_TEMP_DIR"])}
    call = f"{address}gradio_api/call/assess"
    data = {"data": [file | {"meta": {"_type": "gradio.FileData"}}]}
    event = httpx.post(call, json=data).json()["event_id"]
    answer = httpx.get(f"{call}/{event}", timeout=30).text
    assert (
        answer.startswith("event: error") and told in json.loads(answer.split("data: ")[1])["error"]
    )


def test_the_page_names_no_foreign_host(address: str) -> None:
    page = httpx.get(address).text
    loaded = re.findall(r'<(?:script|link|img|iframe|source)[^>]*?(?:src|href)="([^"]*)"', page)
    hosts = {urllib.parse.urlsplit(urllib.parse.urljoin(address, link)).hostname for link in loaded}
    assert loaded and hosts == {"127.0.0.1"}
    theme = httpx.get(f"{address}theme.css").text
    assert "--body-text-color" in theme and "@import" not in theme
    assert all(link.startswith("data:") for link in re.findall(r"url\([\"']?([^\"')]*)", theme))


def test_only_this_machine_is_served(address: str) -> None:
    parts = urllib.parse.urlsplit(address)
    assert parts.hostname == "127.0.0.1" and parts.port
    # Another address of this machine, as a neighbour would use one.
    with socket.socket() as neighbour:
        neighbour.settimeout(2)
        assert neighbour.connect_ex(("127.0.0.2", parts.port)) != 0
    with pytest.raises(PortError, match=f"port {parts.port} is taken; give another with --port"):
        with running(None, port=parts.port):  # type: ignore[arg-type]
            pass


def test_a_picture_that_takes_too_long_is_told(
    tiny_checkpoint: Path, photograph: np.ndarray
) -> None:
    assessor = Assessor(str(tiny_checkpoint), "cpu", limits=Limits(decoders=1, seconds=0.2))
    stream = io.BytesIO()
    Image.fromarray(photograph).save(stream, "PNG")
    with assessor._decoders:  # as if a huge picture was being decoded
        with pytest.raises(PictureError, match="^a.png: was not scored within 0.2 s; try again"):
            assessor.assess(stream.getvalue(), "a.png")
    assessor.close()


def test_calls_over_the_queues_size_are_refused_and_the_others_answered(
    tiny_checkpoint: Path, odd_pictures: dict[str, Path]
) -> None:
    limits = Limits(queue_size=1, concurrency=1, decoders=1, seconds=300)
    assessor = Assessor(str(tiny_checkpoint), "cpu", limits=limits)
    file = handle_file(str(odd_pictures["plain.jpg"]))
    with running(assessor) as address:
        client = Client(address, verbose=False, httpx_kwargs={"timeout": 120})
        with assessor._decoders:
            calls = [client.submit(file, api_name="/assess") for _ in range(6)]
            # One is worked on, one waits; of the others nobody keeps the sender waiting.
            until = time.monotonic() + 120
            while sum(call.done() for call in calls) < 4 and time.monotonic() < until:
                time.sleep(0.05)
        errors = [call.exception(120) for call in calls]
        assert any("Queue is full" in str(error) for error in errors), errors
        answers = [c.result(0) for c, error in zip(calls, errors, strict=True) if error is None]
        assert answers and all(record["error"] is None for record in answers)
    assessor.close()


def test_the_documents_snippet_works(
    address: str,
    odd_pictures: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "demo.md").read_text(), re.S)
    assert len(snippets) == 1
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(odd_pictures["plain.jpg"].read_bytes())
    monkeypatch.chdir(tmp_path)
    assert "http://127.0.0.1:7860" in snippets[0]
    exec(snippets[0].replace("http://127.0.0.1:7860", address), {})
    assert "a.jpg" in capsys.readouterr().out
