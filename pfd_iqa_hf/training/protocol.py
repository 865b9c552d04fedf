"""The field's protocol: k seeded splits, a training and a test on each, median and spread.

    pfd-iqa protocol --dataset LIVEC --data-dir ChallengeDB_release --output-dir livec --repeats 10

Every split has a folder of its own and is done once: the same command goes on where it stopped.  On
several GPUs start it once on each with `--share 0/4`, `--share 1/4` and so on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.splits import Split, load_splits, make_splits, save_splits
from pfd_iqa_hf.data.table import RatingTable
from pfd_iqa_hf.evaluation.correlation import krcc, plcc, rmse, srcc
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError, parse_arguments
from pfd_iqa_hf.training.checkpoints import read_json, write_text
from pfd_iqa_hf.training.run_data import read_table
from pfd_iqa_hf.training.run_setup import claim_facts

__all__ = ["PUBLISHED", "run_protocol", "summarise", "table_of"]

_DEIQT = "Qin et al., AAAI 2023"
_IN_DEIQT = f"as tabulated by {_DEIQT}"
_DR_EXPERTS = "DR.Experts (ViT-S and DA-CLIP), its own paper"
_PFD_IQA = "Li et al., arXiv 2401.11949, abstract"

# SRCC and PLCC by set, in the order LIVEC, KonIQ-10k, SPAQ, LIVEFB (random split), KADID-10k.
_SETS = ("LIVEC", "KonIQ-10k", "SPAQ", "LIVEFB", "KADID-10k")
_ROWS = (
    ("BRISQUE", _IN_DEIQT, ".629/.629 .681/.685 .809/.817 .303/.341 .528/.567"),
    ("HyperIQA", _IN_DEIQT, ".859/.882 .906/.917 .911/.915 .544/.602 .852/.845"),
    ("MUSIQ", _IN_DEIQT, ".702/.746 .916/.928 .918/.921 .566/.661 .875/.872"),
    ("DEIQT (ViT-S)", _DEIQT, ".875/.894 .921/.934 .919/.923 .571/.663 .889/.887"),
    ("DR.Experts", _DR_EXPERTS, ".914/.926 .941/.954 .928/.933 .585/.690 -"),
)


def _published() -> dict[str, list[tuple[str, str, str, str]]]:
    found: dict[str, list[tuple[str, str, str, str]]] = {name: [] for name in _SETS}
    for method, source, cells in _ROWS:
        for name, cell in zip(_SETS, cells.split(), strict=True):
            srcc_there, separator, plcc_there = cell.partition("/")
            if separator:
                found[name].append((method, srcc_there, plcc_there, source))
    for name, plcc_there in (("LIVEC", ".922"), ("KADID-10k", ".935")):  # all that was verified
        found[name].append(("PFD-IQA", "not verified", plcc_there, _PFD_IQA))
    found["BIQ2021"] = [
        (method, value, "", "the set's own README, official test split")
        for method, value in zip(
            ("BRISQUE", "ResNet-50", "NASNet-L", "DeepEns"),
            (".604", ".647", ".673", ".792"),
            strict=True,
        )
    ]
    return found


PUBLISHED = _published()
"""What papers report on a set: method, SRCC, PLCC, source.  Trained and tested within the set."""

_MEASURES = ("srcc", "plcc", "krcc", "rmse")
_BUNDLED_TRAINED_ON = "BIQ2021"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pfd-iqa protocol",
        description="k seeded splits, a training and a test on each; all other options are those "
        "of pfd-iqa train.",
        allow_abbrev=False,
    )
    parser.add_argument("--repeats", type=int, default=10, help="number of splits that are stored")
    parser.add_argument("--runs", type=int, help="of those, how many are run (the first ones)")
    parser.add_argument("--share", default="0/1", help="I/N: every N-th split, from the I-th on")
    parser.add_argument(
        "--cross",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another known set that every trained model is tested on; may be repeated",
    )
    parser.add_argument("--keep-checkpoints", action="store_true", help="else a few MB a split")
    return parser


def run_protocol(argv: Sequence[str]) -> dict[str, Any]:
    """Run what is not done yet, and summarise what is.

    Args:
        argv: Options of the protocol and of the training.

    Returns:
        The summary, which `protocol.json` and `protocol.md` hold too.

    Raises:
        UsageError, DatasetError, TrainingFailure, OSError: as `train`.
    """
    options, rest = _parser().parse_known_args(list(argv))
    arguments = parse_arguments(rest)
    if arguments.test_share == 0:
        arguments.test_share = 0.2
    if options.repeats < 1 or (options.runs is not None and options.runs < 1):
        raise UsageError("--repeats and --runs must be at least 1")
    first, count = _share(options.share)
    output = Path(str(arguments.output_dir))
    table = read_table(arguments)
    _refuse_seen(arguments, table.name)
    cross = {}
    for item in options.cross:
        name, separator, folder = item.partition("=")
        if not separator:
            raise UsageError(f"--cross {item}: write NAME=FOLDER, such as LIVEC=ChallengeDB")
        other = load_ratings(name, data_dir=folder, skip_bad=arguments.skip_bad)
        official = any(rating.split == "test" for rating in other)
        # A model may have been trained on the rest of it.
        cross[name] = other.split("test") if official else other
    output.mkdir(parents=True, exist_ok=True)
    _claim(output, arguments, table)
    splits = _splits(arguments, table, output, options.repeats)
    runs = min(options.runs or len(splits), len(splits))
    for index in range(first, runs, count):
        folder = output / f"split-{index:02d}"
        if (folder / "result.json").exists():
            continue
        one = replace(
            arguments,
            output_dir=str(folder),
            split_file=str(_split_file(arguments, output)),
            split_index=index,
            resume="latest",
            # Every picture was decoded above; broken ones that may be skipped are so in each run.
            check_pictures=arguments.check_pictures and arguments.skip_bad,
        )
        result = _one_split(one, table.select(splits[index].test), cross)
        write_text(folder / "result.json", json.dumps(result, indent=1))
        if not options.keep_checkpoints:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return summarise(output, table.name)


def summarise(output: Path, dataset: str) -> dict[str, Any]:
    """Median and spread over the finished splits of a protocol's folder, written beside them."""
    rows = {
        path.parent.name: read_json(path) for path in sorted(output.glob("split-*/result.json"))
    }
    columns = sorted({key for row in rows.values() for key in row})
    numbers = {key: [row[key] for row in rows.values() if key in row] for key in columns}
    summary: dict[str, Any] = {
        "dataset": dataset,
        "splits": rows,
        "n": len(rows),
        "median": {key: float(np.median(values)) for key, values in numbers.items()},
        "lowest": {key: float(np.min(values)) for key, values in numbers.items()},
        "highest": {key: float(np.max(values)) for key, values in numbers.items()},
    }
    write_text(output / "protocol.json", json.dumps(summary, indent=1))
    write_text(output / "protocol.md", table_of(summary))
    return summary


def table_of(summary: dict[str, Any]) -> str:
    """A summary as Markdown, with what papers report on the set."""
    lines = [f"# {summary['dataset']}, {summary['n']} splits", ""]
    lines += ["| | median | lowest | highest |", "|---|---|---|---|"]
    lines += [
        f"| {key} | {summary['median'][key]:.3f} | {summary['lowest'][key]:.3f} "
        f"| {summary['highest'][key]:.3f} |"
        for key in summary["median"]
    ]
    published = PUBLISHED.get(summary["dataset"], [])
    if published:
        lines += ["", "Published, on splits of their own:", ""]
        lines += ["| method | SRCC | PLCC | source |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in published]
    return "\n".join(lines) + "\n"


def _share(text: str) -> tuple[int, int]:
    first, separator, count = text.partition("/")
    if not (separator and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise UsageError(f"--share {text}: write I/N with I from 0 to N - 1, such as 0/4")
    return int(first), int(count)


def _split_file(arguments: TrainArguments, output: Path) -> Path:
    return Path(arguments.split_file) if arguments.split_file else output / "splits.json"


def _splits(
    arguments: TrainArguments, table: RatingTable, output: Path, repeats: int
) -> list[Split]:
    """The stored splits; more are added, the first stay as they are."""
    path = _split_file(arguments, output)
    stored = load_splits(path, table) if path.exists() else []
    if arguments.split_file or len(stored) >= repeats:
        return stored
    share = arguments.test_share
    try:
        made = make_splits(table, repeats, (1 - share, 0.0, share), "reference_id", 0)
    except ValueError as error:
        raise UsageError(str(error)) from error
    save_splits(path, table, made, {"repeats": repeats, "test_share": share, "seed": 0})
    return made


def _refuse_seen(arguments: TrainArguments, dataset: str) -> None:
    """Random splits of a set that the start was trained on would test on what it has seen."""
    bundled = not arguments.from_scratch and arguments.model is None
    if bundled and dataset == _BUNDLED_TRAINED_ON and not arguments.split_file:
        raise UsageError(
            f"the bundled checkpoint was trained on {dataset}: most pictures of a random test part "
            "would be known to it; use --from-scratch, another --model, or pfd-iqa train, which "
            "keeps to the official split"
        )


def _claim(output: Path, arguments: TrainArguments, table: RatingTable) -> None:
    """Refuse a folder whose splits were run with other options."""
    start = arguments.model or "bundled"
    if arguments.from_scratch:
        start = f"{arguments.vision_model} and {arguments.text_model}"
    elif arguments.model is None:
        start += f" {weights_sha256(default_checkpoint())}"
    now = {**arguments.decisive(), "start": start, "dataset": table.fingerprint}
    claim_facts(output / "options.json", now)


def _one_split(
    arguments: TrainArguments, test: RatingTable, cross: dict[str, RatingTable]
) -> dict[str, float]:
    """Test results of a model before (unless trained from scratch) and after training."""
    import torch

    from pfd_iqa_hf.training.run import train

    device = "cuda" if torch.cuda.is_available() else "cpu"
    result: dict[str, float] = {}
    if not arguments.from_scratch:
        before = arguments.model or str(default_checkpoint())
        result |= {f"untrained_{k}": v for k, v in _tested(before, test, device, arguments).items()}
    output = train(arguments)
    report = read_json(output / "results" / "test" / "report.json")["agreement"]
    for name in _MEASURES:
        value = report[name]["value"]  # None where it is not defined
        result[name] = float("nan") if value is None else float(value)
    for name, table in cross.items():
        result |= {
            f"{name}_{key}": value
            for key, value in _tested(str(output), table, device, arguments).items()
        }
    return result


def _tested(
    model: str, table: RatingTable, device: str, arguments: TrainArguments
) -> dict[str, float]:
    from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
    from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
    from pfd_iqa_hf.scoring.rated import score_ratings

    predictions = score_ratings(
        PfdIqaForImageQualityAssessment.from_pretrained(model),
        PfdIqaImageProcessor.from_pretrained(model),
        table,
        batch_size=arguments.per_device_eval_batch_size,
        device=device,
        skip_bad=arguments.skip_bad,
    )
    labels = np.array([table[int(row)].mos for row in predictions.rows])
    return {
        "srcc": srcc(predictions.score, labels),
        "plcc": plcc(predictions.score, labels),
        "krcc": krcc(predictions.score, labels),
        "rmse": rmse(*(table.to_own_scale(values) for values in (predictions.score, labels))),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from pfd_iqa_hf.training.cli import told

    def work() -> str:
        given = sys.argv[1:] if argv is None else list(argv)
        if "--help" in given:
            _parser().parse_args(["--help"])
        return table_of(run_protocol(given))

    return told("pfd-iqa protocol", work)
