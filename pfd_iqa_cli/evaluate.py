"""`pfd-iqa evaluate`: a model and rated pictures in, agreement and calibration out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfd_iqa_cli import dataset_options as options
from pfd_iqa_cli.messages import notes_told, progress_bar, say, write_errors_told
from pfd_iqa_cli.model_options import (
    BatchSize,
    Device,
    Dtype,
    Model,
    Views,
    check_dtype,
    open_model,
)
from pfd_iqa_cli.onnx_backend import check_views
from pfd_iqa_cli.output_paths import writable_folder

if TYPE_CHECKING:
    from pfd_iqa_hf.data.splits import Split
    from pfd_iqa_hf.data.table import RatingTable

__all__ = ["evaluate", "require_extras", "score_table"]


class Part(StrEnum):
    """Parts of a split."""

    train = "train"
    validation = "validation"
    test = "test"


class GroupBy(StrEnum):
    """Columns that pictures can be grouped by."""

    group = "group"
    distortion = "distortion"
    level = "level"
    reference_id = "reference_id"
    official = "split"


def evaluate(
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Table of paths and scores, folder, Hub id, or a known set's name; see `data`.",
            rich_help_panel="Dataset",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate a stored predictions.parquet instead of running a model.",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.json, predictions.parquet, scatter.png and calibration.png.",
            show_default=False,
        ),
    ] = None,
    official_split: Annotated[
        Part | None,
        typer.Option(help="Only this part of the set's own split.", show_default=False),
    ] = None,
    split_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Only the test part of a stored split.", show_default=False
        ),
    ] = None,
    split_index: Annotated[
        int, typer.Option(min=0, help="Which split of --split-file, from 0.")
    ] = 0,
    group_by: Annotated[
        GroupBy | None,
        typer.Option(
            help="Mean within the groups of this column; default: group, where there is one.",
            show_default=False,
        ),
    ] = None,
    own_scale: Annotated[
        bool,
        typer.Option(
            "--own-scale",
            help="Add predictions in the dataset's own scale, and plot in it. RMSE always is.",
        ),
    ] = False,
    logistic: Annotated[
        int, typer.Option(min=4, max=5, help="Parameters of the fitted logistic: 4 or 5.")
    ] = 4,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the 95 % intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    batch_size: BatchSize = 8,
    device: Device = None,
    dtype: Dtype = "fp32",
    views: Views = None,
    data_dir: options.DataDir = None,
    image_column: options.ImageColumn = None,
    mos_column: options.MosColumn = None,
    mos_std_column: options.MosStdColumn = None,
    reference_column: options.ReferenceColumn = None,
    distortion_column: options.DistortionColumn = None,
    level_column: options.LevelColumn = None,
    split_column: options.SplitColumn = None,
    group_column: options.GroupColumn = None,
    score_range: options.ScoreRange = None,
    lower_is_better: options.LowerIsBetter = False,
    skip_bad: options.SkipBad = False,
    dataset_split: options.DatasetSplit = None,
    streaming: options.Streaming = False,
) -> int:
    """Measure how well scores agree with people's, and whether the uncertainty is right.

    Exit code: 0 measured; 64 wrong usage or a dataset that cannot be used; 74 the output cannot be
    written.
    """
    check_dtype(dtype)
    check_views(views)
    if (dataset is None) == (predictions is None):
        raise typer.BadParameter(
            "give either --dataset, to run a model on it, or --predictions", param_hint="--dataset"
        )
    if predictions is not None and (model is not None or official_split or split_file):
        raise typer.BadParameter(
            "stored predictions have their model and their pictures; leave out --model, "
            "--official-split and --split-file",
            param_hint="--predictions",
        )
    if official_split is not None and split_file is not None:
        raise typer.BadParameter("give one kind of split only", param_hint="--official-split")
    if output_dir is not None:
        writable_folder(output_dir, "--output-dir")

    # From here on torch is imported.
    require_extras(plots=output_dir is not None)
    from pfd_iqa_hf.evaluation.predictions import (
        RatedPredictions,
        read_predictions,
        write_predictions,
    )
    from pfd_iqa_hf.evaluation.report import evaluate_predictions, write_report

    if predictions is not None:
        try:
            rated = read_predictions(predictions)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--predictions") from error
        if group_by is not None:
            _check_groups(rated.table, group_by)
    else:
        assert dataset is not None
        arguments = options.dataset_arguments(
            dataset,
            data_dir,
            image_column,
            mos_column,
            mos_std_column,
            reference_column,
            distortion_column,
            level_column,
            split_column,
            group_column,
            score_range,
            lower_is_better,
            skip_bad,
            dataset_split,
            streaming,
        )
        table = options.read_dataset(arguments)
        table, chosen = _chosen_part(table, official_split, split_file, split_index)
        if group_by is not None:
            _check_groups(table, group_by)
        pipeline, facts = open_model(model, device, dtype, views)
        made = score_table(pipeline, table, batch_size, skip_bad)
        rated = RatedPredictions.of(table, made, {**facts, **chosen})
        if output_dir is not None:
            # The dear part of the work is kept before anything else can fail.
            with write_errors_told():
                write_predictions(output_dir / "predictions.parquet", rated, own_scale)
    with notes_told():
        report = evaluate_predictions(
            rated,
            group_by=None if group_by is None else group_by.value,
            fit=f"logistic{logistic}",
            resamples=bootstrap,
            seed=seed,
        )
    from pfd_iqa_cli.evaluation_table import print_report

    print_report(report, sys.stdout)
    if output_dir is not None:
        with write_errors_told():
            files = write_report(output_dir, rated, report, own_scale)
        say(f"written to {output_dir}: {', '.join(file.name for file in files)}")
    return 0


def score_table(pipeline: Any, table: RatingTable, batch_size: int, skip_bad: bool) -> Any:
    """`score_ratings` for a command: with a bar, and one line for a picture that cannot be read."""
    from pfd_iqa_hf.modeling.picture_reading import PictureError
    from pfd_iqa_hf.scoring.rated import score_ratings

    try:
        with progress_bar("scoring") as progress:
            made = score_ratings(
                pipeline.model,
                pipeline.image_processor,
                table,
                batch_size=batch_size,
                progress=progress,
                skip_bad=skip_bad,
            )
    except PictureError as error:
        remedy = "" if skip_bad else "; or leave bad pictures out with --skip-bad"
        raise typer.BadParameter(f"{error}{remedy}", param_hint="--dataset") from error
    if made.skipped:
        say(f"{table.name}: {len(made.skipped):,} pictures could not be read and are left out")
        for problem in made.skipped:
            say(f"  {problem.source}: {problem.reason}")
    return made


def _check_groups(table: RatingTable, group_by: GroupBy) -> None:
    from pfd_iqa_hf.evaluation.predictions import check_group_column

    try:
        check_group_column(table, group_by.value)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--group-by") from error


def _chosen_part(
    table: RatingTable, official: Part | None, split_file: Path | None, index: int
) -> tuple[RatingTable, dict[str, Any]]:
    """The rows to evaluate, and what the report says about their choice."""
    from pfd_iqa_hf.data.splits import check_leakage, load_splits, stated_split

    if official is not None:
        try:
            part_of_it = table.split(official.value)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--official-split") from error
        try:
            check_leakage(table, stated_split(table))
        except ValueError as error:
            # The authors' split is what others report on; what is wrong with it must be known.
            say(f"note: {error}")
        return part_of_it, {"part": f"official split, {official.value}"}
    if split_file is not None:
        try:
            splits: list[Split] = load_splits(split_file, table)
            if index >= len(splits):
                raise typer.BadParameter(
                    f"{split_file} has {len(splits)} splits, numbered from 0; there is no {index}",
                    param_hint="--split-index",
                )
            check_leakage(table, splits[index])
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--split-file") from error
        part = f"{split_file.name}, split {index}, test"
        return table.select(splits[index].test), {"part": part}
    parts = sorted({rating.split for rating in table if rating.split is not None})
    if len(parts) > 1:
        say(
            f"note: {table.name} has an official split ({', '.join(parts)}) and all of it is "
            "evaluated; --official-split test takes that part only"
        )
    return table, {"part": "all pictures"}


def require_extras(plots: bool) -> None:
    """Refuse to begin where a library is missing that the end will need.

    Raises:
        typer.BadParameter: names it and the command that installs it.
    """
    import importlib.util

    wanted = ["scipy", "matplotlib", "pyarrow"] if plots else ["scipy"]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise typer.BadParameter(
            f'{", ".join(missing)} is not installed: pip install "pfd-iqa-hf[train,table]"',
            param_hint="--output-dir" if plots else "--dataset",
        )
