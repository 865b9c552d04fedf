"""Why an upload failed, in words: the client's exceptions as reason and remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

__all__ = ["Problem", "PushError", "explained"]

# The base of all errors of the HTTP library, which differs between releases of the client.
_TransportError: Any = HfHubHTTPError.__bases__[0]


class Problem(NamedTuple):
    """Reason, remedy, and whether the Hub refused (else it could not be reached)."""

    reason: str
    remedy: str
    refused: bool


class PushError(OSError):
    """An upload that failed.

    Attributes:
        reason: What went wrong.
        left: What is left on the Hub.
        remedy: What to do.
        refused: True where the Hub said no, False where it could not be reached.
    """

    def __init__(self, reason: str, left: str, remedy: str, refused: bool = True) -> None:
        """Keep the parts; `str()` joins them."""
        super().__init__(reason)
        self.reason = reason
        self.left = left
        self.remedy = remedy
        self.refused = refused

    def __str__(self) -> str:
        """Reason, what is left, and remedy in one line."""
        return f"cannot publish: {self.reason}; {self.left}; {self.remedy}"


def explained(error: BaseException, repo_id: str, endpoint: str) -> Problem | None:
    """Reason and remedy of an error.

    Args:
        error: What the client raised.
        repo_id: Of the repository.
        endpoint: Address of the Hub.

    Returns:
        None for an error that is not the Hub's.
    """
    if isinstance(error, ValueError) and "README.md" in str(error):
        remedy = "correct training_facts.json, from which the card is made"
        return Problem(f"the Hub does not accept the card ({_line(error)})", remedy, True)
    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return Problem("the offline mode is on", "unset HF_HUB_OFFLINE", False)
        if isinstance(cause, HfHubHTTPError):
            return _of_answer(cause, repo_id)
        if isinstance(cause, (_TransportError, ConnectionError, TimeoutError)):
            return Problem(
                f"the connection to {endpoint} failed ({_line(cause)})",
                "check the network and run the same command again: what is published already is "
                "not published twice",
                False,
            )
        if isinstance(cause, PermissionError):
            return _no_right(repo_id, f" ({_line(cause)})")
        if isinstance(cause, json.JSONDecodeError):
            remedy = "check HF_ENDPOINT and whether a proxy answers in the Hub's place"
            return Problem(f"{endpoint} does not answer as a Hub does", remedy, False)
    if isinstance(error, (OSError, RuntimeError, ValueError)):
        return Problem(_line(error), "correct what it names, and run the same command again", True)
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _no_right(repo_id: str, said: str) -> Problem:
    return Problem(
        f"the token may not write to {repo_id}{said}",
        "use a token with the right to write there, name a repository of yours, or open a pull "
        "request with --create-pr",
        True,
    )


def _of_answer(error: HfHubHTTPError, repo_id: str) -> Problem:
    status = error.response.status_code
    said = f" (it says: {error.server_message})" if error.server_message else ""
    if status == 401:
        return Problem(
            f"the Hub does not accept the access token{said}",
            "run `hf auth login` again, or give another token in HF_TOKEN or --token",
            True,
        )
    if status == 403:
        return _no_right(repo_id, said)
    if status == 404 or isinstance(error, RepositoryNotFoundError):
        return Problem(
            f"the Hub finds no {repo_id}{said}", "check the name and the token's rights", True
        )
    if status in (409, 412):
        return Problem(f"{repo_id} changed meanwhile{said}", "run the same command again", True)
    if status == 429:
        return Problem(f"the Hub takes no more requests for now{said}", "wait some minutes", True)
    if status >= 500:
        return Problem(f"the Hub has a fault, status {status}{said}", "try again later", False)
    return Problem(f"the Hub refused, status {status}{said}", "correct what it names", True)
