"""The log of a run: one JSON object a line, in a file that a resumed run goes on with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pfd_iqa_hf.training.checkpoints import write_text

__all__ = ["RunLog", "read_log"]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that a kill cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class RunLog:
    """Appends rows to a file, on the main process only.

    Args:
        path: The file; None or another process writes nothing.
        echo: Called with each row, such as a tracker.
    """

    def __init__(self, path: Path | None, echo: Any = None) -> None:
        self.path = path
        self._echo = echo

    def write(self, stage: str, step: int, **values: Any) -> None:
        """Append one row; numbers are rounded to six digits."""
        if self.path is None:
            return
        row = {"stage": stage, "step": step, "time": round(time.time(), 1)}
        row |= {name: _short(value) for name, value in values.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._echo is not None:
            self._echo(row)

    def rewind(self, stages: tuple[str, ...], step: int) -> None:
        """Forget rows of some stages from a step on: the run will write them again."""
        if self.path is None or not self.path.exists():
            return
        kept = [
            row for row in read_log(self.path) if row["stage"] not in stages or row["step"] < step
        ]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
