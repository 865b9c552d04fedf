"""The training commands; exit code 0 when finished, 64 for wrong usage or data, 1 for a failure."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["main", "run", "told"]

_FAILED = 1
_WRONG_USAGE = 64


def told(command: str, work: Callable[[], str]) -> int:
    """Do the work and print what it returns; an error is one message, without a traceback.

    Args:
        command: Name of the command, before messages.
        work: Returns what to print.

    Returns:
        The exit code.
    """
    from transformers.utils.logging import disable_progress_bar

    from pfd_iqa_hf.data.table import DatasetError
    from pfd_iqa_hf.modeling.picture_reading import PictureError
    from pfd_iqa_hf.training.arguments import UsageError
    from pfd_iqa_hf.training.failure import TrainingFailure

    disable_progress_bar()  # loading takes a second; the run has a bar of its own
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
            print(work())
    except SystemExit as end:  # argparse: 0 after --help
        return _WRONG_USAGE if end.code else 0
    except (DatasetError, UsageError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return _WRONG_USAGE
    except ImportError as error:
        extras = 'pip install "pfd-iqa-hf[table,train]"'
        print(f"{command}: {error}; training needs {extras}", file=sys.stderr)
        return _WRONG_USAGE
    except (TrainingFailure, PictureError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return _FAILED
    return 0


def _note(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A line for whoever trains; where in the code it arose is nobody's matter."""
    if issubclass(category, UserWarning):
        print(f"note: {message}", file=sys.stderr)


def run(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""

    def work() -> str:
        from pfd_iqa_hf.training.arguments import parse_arguments

        arguments = parse_arguments(argv)
        from pfd_iqa_hf.training.run import train

        return str(train(arguments))

    return told("pfd-iqa train", work)


def main() -> None:
    """Entry point of `train.py`."""
    sys.exit(run())
