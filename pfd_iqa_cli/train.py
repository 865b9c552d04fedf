"""`pfd-iqa train`, `protocol` and `ablate`: hand their options on, as `train.py` does."""

from __future__ import annotations

import typer

from pfd_iqa_cli.messages import interrupts_raise

__all__ = ["ablate", "protocol", "train"]


def train(context: typer.Context) -> None:
    """Fine-tune on rated pictures, or train from scratch; --help lists the options."""
    from pfd_iqa_hf.training.cli import run

    interrupts_raise()
    raise typer.Exit(run(context.args))


def protocol(context: typer.Context) -> None:
    """Train and test on k seeded splits of a dataset; --help lists the options."""
    from pfd_iqa_hf.training.protocol import main

    interrupts_raise()
    raise typer.Exit(main(context.args))


def ablate(context: typer.Context) -> None:
    """Train variants of the method on stored tokens, and compare them; --help lists the options."""
    from pfd_iqa_hf.training.ablations import main

    interrupts_raise()
    raise typer.Exit(main(context.args))
