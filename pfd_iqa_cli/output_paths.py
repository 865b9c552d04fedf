"""Places that commands write to, refused before hours are spent if nothing can be written there."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["refuse_file", "refuse_folder", "refuse_missing_folder", "writable_folder"]


def refuse_folder(file: Path, hint: str) -> None:
    """Refuse a folder where a file is to be named.

    Args:
        file: What was given.
        hint: The option that it was given to.

    Raises:
        typer.BadParameter: it is a folder.
    """
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder; name a file in it", param_hint=hint)


def refuse_file(folder: Path, hint: str) -> None:
    """Refuse a file where a folder is to be named.

    Raises:
        typer.BadParameter: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file, not a folder", param_hint=hint)


def refuse_missing_folder(file: Path, hint: str) -> None:
    """Refuse a file in a folder that is not there.

    Raises:
        typer.BadParameter: there is no such folder.
    """
    refuse_file(file.parent, hint)
    if not file.parent.exists():
        raise typer.BadParameter(f"there is no folder {file.parent}", param_hint=hint)


def writable_folder(folder: Path, hint: str) -> None:
    """Make a folder and try a file in it.

    Raises:
        typer.BadParameter: nothing can be written there.
    """
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {folder} ({error.strerror}); give another folder", param_hint=hint
        ) from error
