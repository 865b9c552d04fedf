"""This process's Hub client, pointed at the server of `hub_server`."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub.utils._http as client_http
import pytest
from hub_server import HubServer
from huggingface_hub import constants

__all__ = ["TOKENS", "environment_of", "talking_to"]

TOKENS: dict[str, set[str]] = {"hf_writer": {"acme"}, "hf_reader": set()}


@contextmanager
def talking_to(hub: HubServer, patch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """The client of this process talks to the server and does not wait between its retries."""
    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "no token"))
    patch.setattr(client_http, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    patch.setenv("HF_TOKEN", "hf_writer")
    client_http.close_session()
    try:
        yield
    finally:
        client_http.close_session()


def environment_of(hub: HubServer, home: Path) -> dict[str, str]:
    """What a process of its own needs to talk to the server."""
    return {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_writer",
    }
