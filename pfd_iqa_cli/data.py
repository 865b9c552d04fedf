"""`pfd-iqa data`: check a rated set, show what it holds, make splits, write it for publishing."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pfd_iqa_cli import dataset_options as options
from pfd_iqa_cli.messages import interrupts_raise, printable, progress_bar
from pfd_iqa_cli.output_paths import refuse_folder, writable_folder

if TYPE_CHECKING:
    from pfd_iqa_hf.data.table import RatingTable

__all__ = ["data"]

_CANNOT_WRITE = 74


class Target(StrEnum):
    """What a set can be written as."""

    parquet = "parquet"


def data(
    dataset: options.Dataset,
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
    to: Annotated[
        Target | None,
        typer.Option(
            help="Write the set as a `datasets` folder: parquet with embedded pictures, a card.",
            show_default=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder to write with --to; missing or empty.", show_default=False),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="Licence for the card, such as cc-by-4.0.", show_default=False),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(help="Make splits and write them to this JSON file.", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of splits.")] = 10,
    shares: Annotated[
        tuple[float, float, float],
        typer.Option(metavar="TRAIN VALIDATION TEST", help="Shares of the rows."),
    ] = (0.8, 0.0, 0.2),
    group_by: Annotated[
        str, typer.Option(help="Column whose equal values stay together in a split.")
    ] = "reference_id",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits.")] = 0,
) -> int:
    """Check a rated set picture by picture and show what it holds.

    With --splits FILE make seeded splits that share no reference and no identical file; with --to
    parquet write a folder that `datasets` loads and the Hub shows.

    Exit code: 0 done; 64 wrong usage, or the set cannot be used; 74 the output cannot be written.
    """
    from pfd_iqa_hf.data.publish import write_parquet_dataset
    from pfd_iqa_hf.data.splits import make_splits, save_splits
    from pfd_iqa_hf.data.table import DatasetError

    interrupts_raise()

    if (to is None) != (output_dir is None):
        raise typer.BadParameter("give --to and --output-dir together", param_hint="--to")
    if splits is not None:  # before every picture is decoded
        refuse_folder(splits, "--splits")
        writable_folder(splits.absolute().parent, "--splits")
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
    table = options.read_dataset(arguments, decode=True)
    _show(table)
    try:
        if splits is not None:
            made = make_splits(table, repeats, shares, group_by, seed)
            if group_by != "reference_id" and not any(getattr(row, group_by) for row in table):
                print(
                    f"note: no picture of {table.name} has a {group_by}; only files of equal "
                    "content stay together",
                    file=sys.stderr,
                )
            facts = {"shares": list(shares), "group_by": group_by, "seed": seed}
            save_splits(splits, table, made, facts)
            sizes = " / ".join(f"{len(rows):,}" for rows in made[0].parts().values())
            print(f"{splits}: {repeats} splits, train / validation / test {sizes}")
        if output_dir is not None:
            if table.terms is not None:
                print(f"note: terms of {table.name}: {table.terms}", file=sys.stderr)
            with progress_bar("writing") as show:
                written = 0

                def progress(count: int) -> None:
                    nonlocal written
                    written += count
                    if show is not None:
                        show(written, len(table))

                write_parquet_dataset(table, output_dir, license=license, progress=progress)
            print(f"{output_dir}: written; upload it with")
            print(f"  hf upload --repo-type dataset NAME/{output_dir.resolve().name} {output_dir}")
    except DatasetError as error:
        raise typer.BadParameter(str(error), param_hint="--output-dir") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--splits") from error
    except ImportError as error:
        raise typer.BadParameter(str(error), param_hint="--to") from error
    except OSError as error:
        print(f"cannot write: {error}", file=sys.stderr)
        return _CANNOT_WRITE
    return 0


def _show(table: RatingTable) -> None:
    """What the table holds, in a few lines; its own words may hold anything."""

    def tell(line: str) -> None:
        print(printable(line))

    scores = [rating.mos for rating in table]
    own = sorted(float(score) for score in table.to_own_scale([min(scores), max(scores)]))
    low, high = table.score_range
    direction = "higher" if table.higher_is_better else "lower"
    tell(f"{table.name}: {len(table):,} pictures, fingerprint {table.fingerprint}")
    tell(
        f"  scores {own[0]:.4g} to {own[1]:.4g} on {low:g} to {high:g}, {direction} is better; "
        f"mean on 0 to 100: {sum(scores) / len(scores):.1f}"
    )
    for name, title in (
        ("split", "splits"),
        ("group", "groups"),
        ("distortion", "distortions"),
        ("reference_id", "references"),
    ):
        values = [getattr(rating, name) for rating in table]
        known = sorted({value for value in values if value is not None})
        if not known:
            continue
        if len(known) <= 6:
            tell(f"  {title}: " + ", ".join(f"{v} {values.count(v):,}" for v in known))
        else:
            tell(f"  {title}: {len(known):,}")
    deviations = [rating.mos_std for rating in table if rating.mos_std is not None]
    if deviations:
        tell(f"  standard deviations: {len(deviations):,}")
    if table.extra:
        tell(f"  pictures without a score beside them: {len(table.extra):,}")
