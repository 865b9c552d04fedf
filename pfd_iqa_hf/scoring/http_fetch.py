"""The pipeline's way to fetch an address, with the words of the command line."""

from __future__ import annotations

from ..modeling.http_download import (
    DownloadError,
    LateDownloadError,
    PrivateAddressError,
    TooLargeDownloadError,
    download,
    is_http,
)
from .input_options import LARGEST_FILE, TooLargeError

__all__ = ["fetch", "is_http"]

_REMEDIES = {
    LateDownloadError: "raise --time-limit",
    PrivateAddressError: "give --allow-private-addresses if it is meant",
}


def fetch(address: str, seconds: float, allow_private: bool, largest: int = LARGEST_FILE) -> bytes:
    """Fetch one file over http(s) as `download` does.

    Raises:
        TooLargeError: it has more than `largest` bytes.
        OSError: it cannot be fetched, or is refused; says why, and what to do.
    """
    try:
        return download(address, seconds, allow_private, largest)
    except TooLargeDownloadError:
        raise TooLargeError(largest) from None
    except DownloadError as error:
        remedy = _REMEDIES.get(type(error), error.remedy)
        raise OSError(f"{error.reason}; {remedy}") from error
