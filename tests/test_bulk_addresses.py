"""Pictures behind addresses are fetched when asked for, from public hosts, within limits."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from found_pictures import content_of, pictures_found, png_bytes

from pfd_iqa_hf.modeling.http_download import _is_public
from pfd_iqa_hf.scoring.http_fetch import fetch
from pfd_iqa_hf.scoring.inputs import InputOptions
from pfd_iqa_hf.scoring.tables import listed_picture


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away.png":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if self.path == "/round.png":
            self.send_response(302)
            self.send_header("Location", "/round.png")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/a.png" else 404)
        self.send_header("Content-Length", str(len(png_bytes())))
        self.end_headers()
        self.wfile.write(png_bytes())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_addresses_are_fetched_only_when_asked_for(server: str, two_pictures: Path) -> None:
    address = f"{server}/a.png"
    (given,) = pictures_found(address, allow_private=True)
    assert content_of(given) == png_bytes()
    (refused,) = pictures_found(address)
    assert "private address 127.0.0.1" in str(content_of(refused))
    (two_pictures / "t.csv").write_text(f"path\n{address}\n")
    (listed,) = pictures_found("t.csv", allow_private=True)
    assert "--fetch" in str(listed.error)
    (fetched,) = pictures_found("t.csv", allow_private=True, fetch=True)
    assert content_of(fetched) == png_bytes()


@pytest.mark.parametrize("name", ["away.png", "round.png", "gone.png"])
def test_bad_answers_are_errors(name: str, server: str) -> None:
    with pytest.raises(OSError, match="refused|cannot be downloaded"):
        fetch(f"{server}/{name}", 20, allow_private=True)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.1.2.3", "[::ffff:192.168.1.1]", "0"],
)
def test_private_hosts_are_refused_before_anything_is_sent(host: str) -> None:
    with pytest.raises(OSError, match="private address"):
        fetch(f"http://{host}:9/a.png", 20, allow_private=False)


@pytest.mark.parametrize(
    "address",
    [
        "simplecache::http://127.0.0.1:1/x.jpg",
        "zip://x.jpg::http://127.0.0.1:1/x.zip",
        "file:///etc/hostname",
        "ftp://127.0.0.1/x.jpg",
        "http://[/x.jpg",
    ],
)
def test_a_list_cannot_reach_around_the_limits_of_addresses(address: str) -> None:
    found = listed_picture(address, "", InputOptions(fetch=True))
    assert found.error is not None and found.read is None


@pytest.mark.parametrize(
    ("number", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("fec0::1", False),
        ("64:ff9b::7f00:1", False),
        ("::7f00:1", False),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_private_addresses_in_every_spelling(number: str, public: bool) -> None:
    assert _is_public(number) is public
