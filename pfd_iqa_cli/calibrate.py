"""`pfd-iqa calibrate`: some fifty own scores in, a map to the own scale and intervals out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfd_iqa_cli import dataset_options as options
from pfd_iqa_cli.messages import notes_told, say, write_errors_told
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
from pfd_iqa_cli.output_paths import refuse_folder, writable_folder

__all__ = ["calibrate"]

_NAME = "calibration.json"


def calibrate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="SCORES",
            help="Table with the columns image and mos, your own scores; or any --dataset of "
            "`pfd-iqa evaluate`.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=f"File to write; default: {_NAME} in the model's folder, or here for the bundled "
            "model and Hub ids.",
            show_default=False,
        ),
    ] = None,
    coverage: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="Share of pictures inside the intervals.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds of the cross-validation.")] = 0,
    model: Model = None,
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
    """Map scores to your own scale, with intervals, from some fifty pictures that you rated.

    Nothing is trained. `pfd-iqa score --calibration FILE` then adds own_score, own_low, own_high.

    Exit code: 0 written; 64 wrong usage or scores that cannot be used; 74 cannot be written.
    """
    check_dtype(dtype)
    check_views(views)
    if output is None:
        output = Path(model) / _NAME if model is not None and Path(model).is_dir() else Path(_NAME)
    refuse_folder(output, "--output")
    writable_folder(output.absolute().parent, "--output")

    # From here on torch is imported.
    from pfd_iqa_cli.evaluate import require_extras, score_table

    require_extras(plots=False)
    from pfd_iqa_hf.evaluation.calibration import LEAST_PICTURES, fit_calibration, save_calibration

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
    table = options.read_dataset(arguments, hint="SCORES")
    if len(table) < LEAST_PICTURES:  # said before minutes are spent on scoring
        raise typer.BadParameter(
            f"{table.name}: {len(table)} rated pictures are too few for a map and for intervals "
            f"that hold what they promise; rate at least {LEAST_PICTURES}, better 50",
            param_hint="SCORES",
        )
    pipeline, facts = open_model(model, device, dtype, views)
    made = score_table(pipeline, table, batch_size, skip_bad)
    kept = table.select(made.rows.tolist())
    with notes_told():
        try:
            calibration = fit_calibration(
                made.score,
                made.uncertainty,
                [rating.mos for rating in kept],
                score_range=table.score_range,
                higher_is_better=table.higher_is_better,
                coverage=coverage,
                facts={
                    key: facts[key] for key in ("model", "model_sha256", "version", "view_strategy")
                },
                seed=seed,
            )
        except ValueError as error:
            raise typer.BadParameter(f"{table.name}: {error}", param_hint="SCORES") from error
    with write_errors_told():
        save_calibration(output, calibration)
    fit = calibration.facts["fit"]
    unit = (table.score_range[1] - table.score_range[0]) / 100.0
    print(
        f"{calibration.pictures} pictures, SRCC {fit['srcc']:.3f}; error on pictures left out of "
        f"the fit {unit * fit['rmse_cross_validated']:.3g} (always saying the mean: "
        f"{unit * fit['rmse_of_the_mean']:.3g}), on your scale of {table.score_range[0]:g} to "
        f"{table.score_range[1]:g}"
    )
    say(f"written to {output}; use it with: pfd-iqa score --calibration {output} PATH...")
    return 0
