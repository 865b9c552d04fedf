"""Keep a second process from writing to the same folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderLock", "FolderTakenError"]

_NAME = ".lock"


class FolderTakenError(Exception):
    """Another process writes to the folder; says what to do."""


class FolderLock:
    """A folder that only this process writes to.

    The system's own lock, which ends with the process in whatever way, where the file system has
    one. Elsewhere, as on some network shares, a file `.lock` that names process and machine: what
    a process of this machine left behind is taken over, another machine's has to be deleted by
    hand. Without POSIX there is none.

    Args:
        folder: It is there already.

    Raises:
        FolderTakenError: another process writes to it.
        OSError: nothing can be written there.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock."""
        self._handle: int | None = None
        self._file: Path | None = None
        if fcntl is None:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._handle = handle
        except BlockingIOError:
            os.close(handle)
            raise FolderTakenError(
                f"another process is writing to {folder}; wait for it, or name another folder"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            self._file = _locked_by_file(folder / _NAME)

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None


def _locked_by_file(file: Path) -> Path:
    mine = f"{os.getpid()} {socket.gethostname()}"
    for _ in range(2):
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            other = _read(file)
            if not _has_ended(other):
                break
            file.unlink(missing_ok=True)
            continue
        with os.fdopen(handle, "w") as stream:
            stream.write(mine)
        return file
    process, _, machine = other.partition(" ")
    raise FolderTakenError(
        f"process {process or '?'} on {machine or '?'} is writing to {file.parent}; wait for it, "
        f"or delete {file} if it has ended"
    )


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _has_ended(owner: str) -> bool:
    """Whether it is a process of this machine that runs no longer."""
    process, _, machine = owner.partition(" ")
    if machine != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return int(process) == os.getpid()
