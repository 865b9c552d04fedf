"""`python -m pfd_iqa_onnx --model FILE PATH...`: one JSON record a picture."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pfd_iqa_onnx.contract import ModelFileError
from pfd_iqa_onnx.scorer import OnnxScorer
from pfd_iqa_onnx.shared import VIEW_STRATEGIES, JsonLinesWriter, find_pictures

__all__ = ["main"]

# The exit codes of `pfd-iqa score`.
_SOME_FAILED = 1
_WRONG_USAGE = 64
_CANNOT_WRITE = 74
_INTERRUPTED = 130
_PIPE_CLOSED = 141


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(_WRONG_USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Score pictures and return the exit code; `arguments` are the process's own if None."""
    parser = _parser()
    given = parser.parse_args(arguments)
    # Remarks on harmless oddities of a file; what matters is in its record.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    pictures, barren = find_pictures(given.paths, given.recursive)
    for path in barren:
        _say(f"no pictures in {path}")
    if not pictures:
        parser.error("there is no picture to score")
    try:
        scorer = OnnxScorer(
            given.model, given.batch_size, given.views, given.max_pixels, given.threads
        )
    except ModelFileError as error:
        parser.error(str(error))
    if given.map is not None and not scorer.has_quality_map:
        parser.error(f"{given.model} holds no quality map; export it with --quality-map")
    failed = False
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
    writer = JsonLinesWriter(sys.stdout)
    try:
        for record in scorer.score(pictures, given.map):
            failed |= record["error"] is not None
            writer.write(record)
    except OSError as error:
        # Python must not complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _PIPE_CLOSED
        _say(f"cannot write: {error}")
        return _CANNOT_WRITE
    except KeyboardInterrupt:
        _say("interrupted")
        return _INTERRUPTED
    return _SOME_FAILED if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pfd_iqa_onnx",
        description="Score photographs from 0 (worst) to 100 (best); one JSON record a picture.",
        epilog="Exit code: 0 all scored; 1 some picture failed; 64 wrong usage; 74 cannot write.",
    )

    def positive(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders or patterns")
    parser.add_argument("--model", required=True, metavar="FILE", help="`pfd-iqa export onnx`'s")
    parser.add_argument("-r", "--recursive", action="store_true", help="walk all sub-folders")
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N")
    parser.add_argument("--views", choices=sorted(VIEW_STRATEGIES), help="default: the file's own")
    parser.add_argument("--max-pixels", type=positive, metavar="N", help="default: the file's own")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    parser.add_argument("--map", type=Path, metavar="DIR", help="save heat maps of local quality")
    return parser


def _say(message: str) -> None:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
