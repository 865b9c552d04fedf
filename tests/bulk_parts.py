"""What tests of bulk scoring's parts share: a manifest, a record, a process that never starts."""

import errno
from typing import Any

from pfd_iqa_hf.scoring.records import make_record

MANIFEST = {"model_sha256": "0" * 12}


def record_of(path: str) -> dict[str, Any]:
    """Of a picture that was scored."""
    result = {"score": 50.0, "label": "fair", "uncertainty": 1.0}
    return make_record(path, {"model": "m"}, result, (8, 8))


def no_process(*_: Any, **__: Any) -> Any:
    """In the place of `subprocess.Popen` where the system has no process left."""
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
