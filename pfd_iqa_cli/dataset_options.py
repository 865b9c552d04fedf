"""`--dataset` and what belongs to it, the same in every command that reads rated pictures."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pfd_iqa_hf.data.table import RatingTable

__all__ = [
    "DataDir",
    "Dataset",
    "DatasetSplit",
    "DistortionColumn",
    "GroupColumn",
    "ImageColumn",
    "LevelColumn",
    "LowerIsBetter",
    "MosColumn",
    "MosStdColumn",
    "ReferenceColumn",
    "ScoreRange",
    "SkipBad",
    "SplitColumn",
    "Streaming",
    "dataset_arguments",
    "read_dataset",
]

_PANEL = "Dataset"
_SHOWN_SKIPS = 20

Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="Table of paths and scores (CSV, TSV, JSONL, parquet, xlsx), ImageFolder with "
        "metadata.csv, `datasets` folder or Hub id, or a known set's name with --data-dir.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of a known set, or the one that a table's paths are relative to.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]


def _column(flag: str, what: str) -> Any:
    return typer.Option(
        flag,
        metavar="NAME",
        help=f"Column of {what}.",
        rich_help_panel=_PANEL,
        show_default=False,
    )


ImageColumn = Annotated[
    str | None, _column("--image-column", "the pictures, else image, file_name, path …")
]
MosColumn = Annotated[str | None, _column("--mos-column", "the scores, else mos or score")]
MosStdColumn = Annotated[str | None, _column("--mos-std-column", "their standard deviations")]
ReferenceColumn = Annotated[
    str | None, _column("--reference-column", "the undistorted originals' names")
]
DistortionColumn = Annotated[str | None, _column("--distortion-column", "the distortion's name")]
LevelColumn = Annotated[str | None, _column("--level-column", "the distortion's level, from 1")]
SplitColumn = Annotated[
    str | None, _column("--split-column", "the split: train, validation or test")
]
GroupColumn = Annotated[str | None, _column("--group-column", "the subset")]
ScoreRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--score-range",
        metavar="LOW HIGH",
        help="Lowest and highest possible score; else 0 100.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
LowerIsBetter = Annotated[
    bool,
    typer.Option(
        "--lower-is-better", help="Low scores mean good pictures.", rich_help_panel=_PANEL
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave missing and broken pictures out and list them.",
        rich_help_panel=_PANEL,
    ),
]
DatasetSplit = Annotated[
    str | None,
    typer.Option(
        "--dataset-split",
        metavar="NAME",
        help="Only this split of the dataset, such as test.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Streaming = Annotated[
    bool,
    typer.Option(
        "--streaming",
        help="Read a Hub dataset as it comes, without a copy of its files.",
        rich_help_panel=_PANEL,
    ),
]


def dataset_arguments(
    dataset: str,
    data_dir: Path | None = None,
    image_column: str | None = None,
    mos_column: str | None = None,
    mos_std_column: str | None = None,
    reference_column: str | None = None,
    distortion_column: str | None = None,
    level_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    score_range: tuple[float, float] | None = None,
    lower_is_better: bool = False,
    skip_bad: bool = False,
    dataset_split: str | None = None,
    streaming: bool = False,
) -> dict[str, Any]:
    """The arguments of `load_ratings` that a command's options mean."""
    columns = {
        "image": image_column,
        "mos": mos_column,
        "mos_std": mos_std_column,
        "reference_id": reference_column,
        "distortion": distortion_column,
        "level": level_column,
        "split": split_column,
        "group": group_column,
    }
    return {
        "dataset": dataset,
        "data_dir": data_dir,
        "columns": {ours: theirs for ours, theirs in columns.items() if theirs is not None},
        "score_range": score_range,
        "higher_is_better": not lower_is_better,
        "skip_bad": skip_bad,
        "dataset_split": dataset_split,
        "streaming": streaming,
    }


def read_dataset(
    arguments: dict[str, Any], decode: bool = False, hint: str = "--dataset"
) -> RatingTable:
    """`load_ratings` for a command: notes and skipped pictures go to standard error.

    Args:
        arguments: of `load_ratings`, as `dataset_arguments` gives them.
        decode: decode every picture once, so that a broken one is found now.
        hint: What the command calls the dataset.

    Raises:
        typer.BadParameter: the dataset cannot be used; the message names row and remedy.
    """
    from pfd_iqa_hf.data.load import load_ratings
    from pfd_iqa_hf.data.rows import check_pictures

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        try:
            table = load_ratings(**arguments)
            if decode:
                table = check_pictures(table, skip_bad=arguments["skip_bad"])
        except (ValueError, ImportError) as error:
            raise typer.BadParameter(str(error), param_hint=hint) from error
    for note in notes:
        if issubclass(note.category, UserWarning):
            print(f"note: {note.message}", file=sys.stderr)
    if table.skipped:
        print(f"{table.name}: {len(table.skipped):,} pictures skipped", file=sys.stderr)
        for problem in table.skipped[:_SHOWN_SKIPS]:
            print(f"  {problem.where}: {problem.what}", file=sys.stderr)
        if len(table.skipped) > _SHOWN_SKIPS:
            print(f"  … and {len(table.skipped) - _SHOWN_SKIPS:,} more", file=sys.stderr)
    return table
