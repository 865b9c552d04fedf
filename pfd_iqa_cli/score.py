"""`pfd-iqa score`: pictures in, scores out."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pfd_iqa_cli.model_options import Device, Model, Views, check_dtype
from pfd_iqa_cli.onnx_backend import check_onnx_options
from pfd_iqa_cli.output_paths import (
    refuse_file,
    refuse_folder,
    refuse_missing_folder,
    writable_folder,
)
from pfd_iqa_cli.ray_engine import check_ray_options, load_ray_engine
from pfd_iqa_cli.score_engine import FEW_PICTURES, Engine, EngineOptions, load_engine
from pfd_iqa_cli.score_inputs import GivenInputs
from pfd_iqa_cli.score_options import (
    TIME_LIMIT,
    AllowPrivate,
    Backend,
    BulkOptions,
    Column,
    EngineName,
    EngineOption,
    Every,
    Explain,
    Fetch,
    Format,
    Null,
    Order,
    OutputDir,
    PartSize,
    Quality,
    RayAddress,
    Recursive,
    Report,
    Resume,
    TimeLimit,
    Workers,
    check_bulk_options,
    output_format,
)
from pfd_iqa_cli.score_run import Run

if TYPE_CHECKING:
    from pfd_iqa_hf.evaluation.calibration import Calibration
    from pfd_iqa_hf.scoring.bulk import ScoredPicture
    from pfd_iqa_hf.scoring.find import FoundPicture

__all__ = ["score"]


def score(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files, folders or patterns; also - (a list), tables, archives, videos, "
            "addresses, datasets:NAME[:SPLIT].",
            show_default=False,
        ),
    ],
    recursive: Recursive = False,
    format: Annotated[
        Format | None,
        typer.Option(
            help="How to write the records; by default what --output's suffix says, else a table.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, complete or not at all."),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(min=1, help="Only the N lowest scores, worst first; failures follow them."),
    ] = None,
    sort: Annotated[
        Order | None,
        typer.Option(
            help="Order of the records, failures last unless by input or path; default: input.",
            show_default=False,
        ),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Exit with 2 if any picture scores below this."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures that go through the model together.")
    ] = 8,
    device: Device = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16 or fp16, of the backbone; the score is always fp32. Default: fp32.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    backend: Annotated[
        Backend,
        typer.Option(help="onnx runs --model FILE of `pfd-iqa export onnx`, on the CPU, at once."),
    ] = Backend.torch,
    quality: Annotated[
        Quality | None,
        typer.Option(
            help="--views of that name, if none are given; fast also takes bf16 where this machine "
            "multiplies in it.",
            show_default=False,
        ),
    ] = None,
    views: Views = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse pictures with more pixels; default: 100 million."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What `pfd-iqa calibrate` wrote: adds own_score, own_low and own_high.",
        ),
    ] = None,
    map: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save a heat map of local quality over each picture."),
    ] = None,
    explain: Explain = False,
    column: Column = None,
    null: Null = False,
    every: Every = 1.0,
    fetch: Fetch = False,
    allow_private: AllowPrivate = False,
    output_dir: OutputDir = None,
    part_size: PartSize = 10_000,
    resume: Resume = False,
    workers: Workers = None,
    time_limit: TimeLimit = TIME_LIMIT,
    report: Report = None,
    engine: EngineOption = EngineName.local,
    ray_address: RayAddress = None,
) -> int:
    """Score photographs from 0 (worst) to 100 (best).

    Folders give their picture files; a file that is named is always tried. A picture that cannot be
    scored gets a record with its error, the others are still scored.

    Exit code: 0 all scored; 1 some picture failed, whatever the others scored; 2 some score below
    --fail-under; 64 wrong usage, or no picture found; 69 the Ray cluster failed; 71 the system has
    no memory or processes left; 74 the output cannot be written; 130 interrupted; 141 the reader
    of the standard output has gone; 143 ended by SIGTERM.
    """
    bulk = BulkOptions(output_dir, part_size, resume, workers, time_limit, report)
    kind = output_format(format, output, output_dir)
    precision = dtype or "fp32"
    check_dtype(precision)
    check_bulk_options(bulk, output, worst is not None or sort is not None, map)
    _check_outputs(output, output_dir, map)
    _check_overwriting(paths, {"--output": output, "--report": report})
    if engine is EngineName.ray:
        check_ray_options(backend, device, views, map)
    elif ray_address is not None:
        raise typer.BadParameter("goes with --engine ray only", param_hint="--ray-address")
    elif backend is Backend.onnx:
        check_onnx_options(model, device, precision, explain)

    if quality is not None:
        views = views or quality.value
    if quality is Quality.fast:
        # Which types the machines of a cluster are quick in is not known here.
        if backend is Backend.torch and dtype is None and engine is EngineName.local:
            precision = _fast_dtype(device)

    # The same files as in pfd_iqa_hf, without what importing that brings along.
    from pfd_iqa_cli.light_scoring import InputOptions
    from pfd_iqa_onnx.shared import (
        COSTS_FIELDS,
        OWN_SCALE_FIELDS,
        MissingExtraError,
        require_pyarrow,
    )

    if kind is Format.parquet:
        try:
            require_pyarrow()
        except MissingExtraError as error:
            raise typer.BadParameter(str(error), param_hint="--format") from error
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    options = InputOptions(
        recursive, column, null, fetch, allow_private, every, time_limit, **limit
    )
    given = GivenInputs(paths, options, lazily=output_dir is not None)
    own_scale = _read_calibration(calibration)
    many = given.listed is None or given.listed > FEW_PICTURES
    how = EngineOptions(
        backend=backend,
        model=model,
        device=device,
        dtype=precision,
        batch_size=batch_size,
        views=views,
        max_pixels=max_pixels,
        map=map,
        pipeline=map is None
        and (many or workers is not None or report is not None or time_limit != TIME_LIMIT),
        workers=workers,
        time_limit=time_limit,
        with_views=report is not None,
        explain=explain,
    )
    loaded: Engine = (
        load_ray_engine(how, ray_address) if engine is EngineName.ray else load_engine(how)
    )
    if own_scale is not None:
        try:
            own_scale.check_model(loaded.facts["model_sha256"], loaded.facts["view_strategy"])
        except ValueError as error:
            raise typer.BadParameter(
                f"{calibration}: {error}", param_hint="--calibration"
            ) from error

    def scored(pictures: Iterator[FoundPicture]) -> Generator[ScoredPicture, None, None]:
        with contextlib.closing(loaded.score(pictures)) as results:
            for result in results:
                if own_scale is not None:
                    own_scale.add_to(result.record)
                yield result

    run = Run(
        pictures=given.pictures,
        total=given.total,
        scored=scored,
        facts={
            **loaded.facts,
            "every": every,
            "column": column,
            "calibration_sha256": None if calibration is None else _sha256(calibration),
        },
        inputs={"paths": paths, "recursive": recursive},
        extra=(
            *(COSTS_FIELDS if explain else ()),
            *(() if own_scale is None else OWN_SCALE_FIELDS),
        ),
        bulk=bulk,
        fail_under=fail_under,
    )
    code = run.to_stream(kind, output, worst, sort) if output_dir is None else run.to_folder(kind)
    given.tell_barren()
    return code


def _check_outputs(output: Path | None, output_dir: Path | None, map: Path | None) -> None:
    """Refuse places that nothing can be written to, before a model is loaded."""
    if output == Path("-"):
        raise typer.BadParameter(
            "leave it out to write to the standard output", param_hint="--output"
        )
    if output is not None:
        refuse_missing_folder(output, "--output")
    if map is not None:
        refuse_file(map, "--map")
        try:
            map.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"no folder {map} ({error})", param_hint="--map") from error
    if output_dir is not None:
        writable_folder(output_dir, "--output-dir")


def _check_overwriting(paths: list[str], outputs: dict[str, Path | None]) -> None:
    """Refuse to write over what is to be read, onto a folder, or two things into one file."""
    given = {option: output for option, output in outputs.items() if output is not None}
    for option, output in given.items():
        refuse_folder(output, option)
    if len({os.path.realpath(output) for output in given.values()}) < len(given):
        raise typer.BadParameter("name two different files", param_hint=", ".join(given))
    for option, output in given.items():
        if not output.is_file():
            continue
        for path in paths:
            if os.path.exists(path) and output.samefile(path):
                raise typer.BadParameter(
                    f"{output} is one of the inputs and would be lost: name another file",
                    param_hint=option,
                )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _read_calibration(path: Path | None) -> Calibration | None:
    if path is None:
        return None
    from pfd_iqa_onnx.shared import load_calibration

    try:
        return load_calibration(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--calibration") from error


def _fast_dtype(device: str | None) -> str:
    from pfd_iqa_cli.model_options import prepare_libraries

    prepare_libraries(device)  # a device that is none is told
    import torch

    from pfd_iqa_hf.scoring.quality import quality_settings

    return "bf16" if quality_settings("fast", device).dtype is torch.bfloat16 else "fp32"
