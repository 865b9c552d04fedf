"""The entry point: commands, and exit codes for what goes wrong around them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from pfd_iqa_cli.calibrate import calibrate
from pfd_iqa_cli.compare import compare
from pfd_iqa_cli.data import data
from pfd_iqa_cli.demo import demo
from pfd_iqa_cli.distort import distort
from pfd_iqa_cli.evaluate import evaluate
from pfd_iqa_cli.export import export
from pfd_iqa_cli.messages import (
    CANNOT_WRITE,
    INTERRUPTED,
    PIPE_CLOSED,
    TERMINATED,
    give_up_output,
    interrupts_are_over,
    interrupts_end_the_process,
    say,
    terminated,
)
from pfd_iqa_cli.process_memory import steady_memory
from pfd_iqa_cli.push import push
from pfd_iqa_cli.score import score
from pfd_iqa_cli.train import ablate, protocol, train
from pfd_iqa_cli.version import version_text

__all__ = ["WRONG_USAGE", "app", "main", "run"]

# As sysexits.h has it; 1 and 2 have meanings of their own, see `score`.
WRONG_USAGE = 64
_OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The usage error's class lies in click or inside typer, depending on typer's version.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="pfd-iqa",
    help="Blind image quality assessment: score photographs from 0 (worst) to 100 (best).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(score)
for _trainer in (train, protocol, ablate):  # their options are those of train.py
    app.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )(_trainer)
app.command()(compare)
app.command()(evaluate)
app.command()(data)
app.command()(distort)
app.command()(calibrate)
app.command()(push)
app.command()(demo)
app.add_typer(export, name="export")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print package version, bundled checkpoint and its hash.",
        ),
    ] = False,
) -> None:
    pass


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` are the process's own if None."""
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        return _run(arguments)
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_termination or signal.SIG_DFL)


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="pfd-iqa", standalone_mode=False)
        if code != CANNOT_WRITE:  # told already
            sys.stdout.flush()
    except _UsageError as error:
        error.show()
        return WRONG_USAGE
    except BrokenPipeError:
        give_up_output()
        return PIPE_CLOSED
    except SystemExit as end:  # the answer of click and of rich to a closed pipe is 1
        if isinstance(end.__context__, BrokenPipeError):
            give_up_output()
            return PIPE_CLOSED
        raise
    except OSError as error:
        if error.errno not in _OUTPUT_FULL or error.filename is not None:
            raise
        say(f"cannot write: {error}")
        give_up_output()
        return CANNOT_WRITE
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED and terminated():
        code = TERMINATED
    if code in (INTERRUPTED, TERMINATED):
        print("terminated" if code == TERMINATED else "interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Console entry point."""
    # Threads that wait in a loop take the cores from those that work. Before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if {"compare", "demo", "evaluate", "score"}.intersection(sys.argv[1:2]):
        steady_memory()
    interrupts_end_the_process()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with a closed descriptor
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # what it cannot hold must not cost the rest
        sys.stdout.reconfigure(errors="backslashreplace")
    code = run()
    if code in (INTERRUPTED, TERMINATED):
        interrupts_are_over()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Threads may still be inside a model's products, which an orderly end would break off.
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
