"""From the options of a run to the pictures of its parts, checked before anything is trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.rows import check_pictures
from pfd_iqa_hf.data.splits import (
    Split,
    check_leakage,
    load_splits,
    make_splits,
    stated_split,
)
from pfd_iqa_hf.data.table import DatasetError, Problem, Rating, RatingTable
from pfd_iqa_hf.scoring.find import find_pictures
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError
from pfd_iqa_hf.training.batches import RecipeData, recipe_data

__all__ = ["RunData", "added_photographs", "load_run_data", "read_table"]

_FEWEST = 8
_FEWEST_VALIDATION = 2
_SHOWN = 20


@dataclass(frozen=True)
class RunData:
    """The pictures of a run.

    Attributes:
        table: The whole dataset, for its name, scale and keys.
        recipe: What is learnt from and chosen by.
        validation: Pictures to choose by.
        test: Pictures to report on; may be empty.
        origin: Where the split comes from, for the card.
        fingerprint: 16 hex digits of which picture is in which part.
    """

    table: RatingTable
    recipe: RecipeData
    validation: RatingTable
    test: RatingTable
    origin: str
    fingerprint: str


def load_run_data(arguments: TrainArguments) -> RunData:
    """Read the dataset, split it, and look for everything that could stop the run later.

    Raises:
        DatasetError: the dataset or its split cannot be used; every bad row is named.
        UsageError: an option does not go with the dataset.
    """
    table = read_table(arguments)
    split, origin = _split(table, arguments)
    train, test = ([table[row] for row in rows] for rows in (split.train, split.test))
    validation = [table[row] for row in split.validation] or None
    try:
        recipe = recipe_data(
            train,
            test,
            validation,
            validation_share=arguments.validation_share,
            seed=0,  # the same for every --seed, so that runs can be compared
            drop_near_copies=arguments.drop_near_copies,
            pristine_score=arguments.pristine_score,
            pristine_group=arguments.pristine_group,
            photographs=added_photographs((arguments.photographs or "").split(os.pathsep)),
        )
    except ValueError as error:
        raise UsageError(f"--validation-share: {error}") from error
    if len(recipe.train) < _FEWEST:
        what = f"{len(recipe.train)} training pictures are too few"
        raise DatasetError(table.name, [Problem("split", what, f"give at least {_FEWEST}")])
    if arguments.triples_per_batch and not recipe.pristine:
        what = f"no training picture has a score of {arguments.pristine_score:g} or more"
        remedy = "lower --pristine-score, or set --triples-per-batch 0"
        if arguments.pristine_group:
            remedy += ", or correct --pristine-group"
        raise DatasetError(table.name, [Problem("scores", what, remedy)])
    # Two rows may share a file (embedded pictures of equal bytes), but no two share a key.
    row_of = {(rating.image, rating.key): row for row, rating in enumerate(table)}
    parts = Split(
        *(
            tuple(row_of[rating.image, rating.key] for rating in ratings)
            for ratings in (recipe.train, recipe.validation, test)
        )
    )
    if not arguments.allow_leakage:
        check_leakage(table, parts)
    _check_validation(table, recipe.validation)
    return RunData(
        table,
        recipe,
        table.select(parts.validation),
        table.select(parts.test),
        origin,
        _fingerprint(table, parts),
    )


def added_photographs(folders: Iterable[str]) -> list[Path]:
    """The files of --photographs, in the order of their names.

    Raises:
        UsageError: a folder is missing or holds no picture.
    """
    found, barren = find_pictures([folder for folder in folders if folder], recursive=True)
    barren += [str(p.path) for p in found if p.error or not Path(p.path).is_file()]
    if barren:
        raise UsageError(f"--photographs: no picture in {', '.join(barren)}; give other folders")
    return [Path(picture.path) for picture in found]


def _check_validation(table: RatingTable, validation: list[Rating]) -> None:
    """A part that no correlation is defined on would stop the run after its first epoch."""
    if validation and len({rating.mos for rating in validation}) < _FEWEST_VALIDATION:
        what = f"the {len(validation)} validation pictures do not have two different scores"
        remedy = "raise --validation-share, or set it to 0 to choose no weights"
        raise DatasetError(table.name, [Problem("split", what, remedy)])


def _fingerprint(table: RatingTable, split: Split) -> str:
    """16 hex digits of which picture is in which part, in order."""
    lines = [f"{name}\t{table.keys[row]}" for name, rows in split.parts().items() for row in rows]
    return sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_table(arguments: TrainArguments) -> RatingTable:
    """The dataset that the options name, bad pictures skipped and told if that was asked for."""
    columns = {
        "image": arguments.image_column,
        "mos": arguments.mos_column,
        "mos_std": arguments.mos_std_column,
        "reference_id": arguments.reference_column,
        "distortion": arguments.distortion_column,
        "level": arguments.level_column,
        "split": arguments.split_column,
        "group": arguments.group_column,
    }
    score_range = arguments.score_range
    try:
        table = load_ratings(
            str(arguments.dataset),
            data_dir=arguments.data_dir,
            columns={ours: theirs for ours, theirs in columns.items() if theirs is not None},
            score_range=None if score_range is None else (score_range[0], score_range[1]),
            higher_is_better=not arguments.lower_is_better,
            skip_bad=arguments.skip_bad,
            dataset_split=arguments.dataset_split,
            streaming=arguments.streaming,
        )
    except DatasetError:
        raise
    except ValueError as error:
        raise UsageError(f"--dataset {arguments.dataset}: {error}") from error
    if arguments.check_pictures:
        table = check_pictures(table, skip_bad=arguments.skip_bad)
    if table.skipped:
        print(f"{table.name}: {len(table.skipped):,} pictures skipped", file=sys.stderr)
        for problem in table.skipped[:_SHOWN]:
            print(f"  {problem.where}: {problem.what}", file=sys.stderr)
    return table


def _split(table: RatingTable, arguments: TrainArguments) -> tuple[Split, str]:
    if arguments.split_file:
        splits = load_splits(arguments.split_file, table)
        if not 0 <= arguments.split_index < len(splits):
            raise UsageError(
                f"--split-index {arguments.split_index}: {arguments.split_file} holds "
                f"{len(splits)} splits, numbered from 0"
            )
        name = Path(arguments.split_file).name
        return splits[arguments.split_index], f"split {arguments.split_index} of {name}"
    if any(rating.split for rating in table):
        if arguments.test_share:
            print(
                f"{table.name}: --test-share {arguments.test_share:g} is not used, the dataset "
                "states its own split (a table's: drop it with --split-column '')",
                file=sys.stderr,
            )
        unplaced = [
            Problem(key, "has no split while others have one", "fill it in")
            for key, rating in zip(table.keys, table, strict=True)
            if rating.split is None
        ]
        if unplaced:
            raise DatasetError(table.name, unplaced)
        stated = stated_split(table)
        if not stated.train:
            raise DatasetError(
                table.name,
                [
                    Problem(
                        "split",
                        "no row has the split train",
                        "mark the training rows, or drop the column with --split-column ''",
                    )
                ],
            )
        return stated, "the dataset's own split"
    share = arguments.test_share
    if share == 0:
        return Split(tuple(range(len(table))), (), ()), "no test part"
    try:
        split = make_splits(table, 1, (1 - share, 0.0, share), "reference_id", 0)[0]
    except ValueError as error:
        raise UsageError(f"--test-share: {error}") from error
    return split, f"random, grouped by reference, test share {share:g}"
