"""A finished checkpoint and the pictures of its run, for what is fitted to it afterwards."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.arguments import parse_arguments
from pfd_iqa_hf.training.run_data import RunData, load_run_data

__all__ = ["add_fit_options", "finished_parser", "load_finished"]


def finished_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with `--model` and `--output-dir`; the data's options are left to `load_finished`.

    Args:
        description: Docstring of the module; its first line is shown.
    """
    parser = argparse.ArgumentParser(
        description=(description or "").split("\n", 1)[0],
        epilog="All options of `pfd-iqa train` that concern data and its split are taken as well.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, help="folder of the finished checkpoint")
    parser.add_argument("--output-dir", type=Path, required=True, help="where it is written to")
    return parser


def add_fit_options(parser: argparse.ArgumentParser, given: Any) -> None:
    """What parts learnt from degraded photographs, with scores held, have in common.

    Args:
        parser: Takes --epochs, --photographs, --hold and --workers.
        given: Has their defaults, but for the photographs.
    """
    parser.add_argument("--epochs", type=int, default=given.epochs)
    parser.add_argument(
        "--photographs", nargs="+", default=[], metavar="FOLDER", help="more photographs to degrade"
    )
    parser.add_argument("--hold", type=float, default=given.hold, help="weight of held scores")
    parser.add_argument("--workers", type=int, default=given.workers)


def load_finished(
    options: argparse.Namespace, rest: Sequence[str]
) -> tuple[PfdIqaForImageQualityAssessment, PfdIqaImageProcessor, RunData]:
    """The model, ready to judge, its image processor, and its pictures by the options in `rest`.

    Raises:
        UsageError: an option that is none, or that does not go with the dataset.
        DatasetError: the dataset or its split cannot be used.
    """
    # A recipe that starts from scratch wants to know the towers; nothing is loaded from them.
    unread = ["--vision-model", "-", "--text-model", "-", "--output-dir", str(options.output_dir)]
    data = load_run_data(parse_arguments([*unread, *rest]))
    model = PfdIqaForImageQualityAssessment.from_pretrained(options.model, dtype=torch.float32)
    return model.eval(), PfdIqaImageProcessor.from_pretrained(options.model), data
