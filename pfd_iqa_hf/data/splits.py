"""Training, validation and test parts that share no content; made, saved, read again, checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pfd_iqa_hf.data.table import DatasetError, Problem, Rating, RatingTable

__all__ = [
    "Split",
    "check_leakage",
    "content_hash",
    "load_splits",
    "make_splits",
    "official_split",
    "save_splits",
    "stated_split",
    "validation_split",
]

_FORMAT = "pfd-iqa splits 1"
_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of a table, from 0, each in one part at most.

    Attributes:
        train: rows to learn from.
        validation: rows to choose by; may be empty.
        test: rows to report on.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def parts(self) -> dict[str, tuple[int, ...]]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_splits(
    table: RatingTable,
    repeats: int = 10,
    shares: tuple[float, float, float] = (0.8, 0.0, 0.2),
    group_by: str | None = "reference_id",
    seed: int = 0,
) -> list[Split]:
    """Random splits, none of which has one content in two parts.

    Rows with one value of `group_by` stay together, and so do files of equal content. The result
    depends on the pictures' keys, contents and groups, and on the arguments; neither on the order
    of the rows nor on where the set lies.

    Args:
        table: rows to split; files of one size are read once for their hash.
        repeats: number of splits; the first ones are the same whatever this is.
        shares: of the rows for training, validation and test; together 1. Reached as nearly as
            whole groups allow.
        group_by: a field of `Rating`; rows without a value are groups of their own. None groups by
            equal content alone.
        seed: non-negative.

    Raises:
        ValueError: an argument is none of those, or a part that should hold rows would be empty.
        OSError: a picture cannot be read.
    """
    if repeats < 1 or seed < 0:
        raise ValueError(f"repeats must be at least 1 and seed at least 0, got {repeats}, {seed}")
    if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-6:
        raise ValueError(f"shares of train, validation and test must add up to 1, got {shares}")
    if group_by is not None and group_by not in Rating.__dataclass_fields__:
        fields = ", ".join(Rating.__dataclass_fields__)
        raise ValueError(f"no column {group_by!r} to group by; choose one of {fields}")
    groups = _groups(table, group_by)
    splits = []
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(len(groups))
        shuffled = [groups[position] for position in order]
        parts: list[tuple[int, ...]] = []
        for share in (shares[2], shares[1]):  # the test part first: it is the same for any others
            taken = _take(shuffled, share * len(table))
            parts.append(tuple(sorted(row for group in shuffled[:taken] for row in group)))
            del shuffled[:taken]
        train = tuple(sorted(row for group in shuffled for row in group))
        split = Split(train, parts[1], parts[0])
        for share, (name, rows) in zip(shares, split.parts().items(), strict=True):
            if share > 0 and not rows:
                raise ValueError(
                    f"{len(table)} pictures in {len(groups)} groups by {group_by} cannot be split "
                    f"{shares[0]:g} : {shares[1]:g} : {shares[2]:g}: the {name} part would be "
                    "empty; give more pictures or other shares"
                )
        splits.append(split)
    return splits


def stated_split(table: RatingTable) -> Split:
    """The parts that the rows of a table state; rows without one are in none."""
    return Split(
        *(tuple(row for row, rating in enumerate(table) if rating.split == name) for name in _PARTS)
    )


def official_split(table: RatingTable) -> Split:
    """The split that the dataset itself states in its column `split`.

    Raises:
        DatasetError: it states none, or some rows belong to no part.
    """
    parts: dict[str | None, list[int]] = {}
    for row, rating in enumerate(table):
        parts.setdefault(rating.split, []).append(row)
    if not parts.get("train") or not parts.get("test"):
        stated = ", ".join(sorted(name for name in parts if name)) or "none"
        what = f"no official split into train and test (parts found: {stated})"
        remedy = "add a column 'split' with train, validation and test, or make random splits"
        raise DatasetError(table.name, [Problem("splits", what, remedy)])
    if None in parts:
        what, remedy = "belongs to no part of the official split", "fill in its split"
        problems = [Problem(table.keys[row], what, remedy) for row in parts[None]]
        raise DatasetError(table.name, problems)
    return stated_split(table)


def check_leakage(table: RatingTable, split: Split) -> None:
    """Refuse a split that has one content in two parts.

    Args:
        table: the table that `split` is of; files of one size are read once for their hash.
        split: any split.

    Raises:
        DatasetError: a row, a reference or a file of identical content is in two parts; every such
            pair of files is in `problems`.
        OSError: a picture cannot be read.
    """
    problems: list[Problem] = []
    remedy = "move both to one part, or make splits grouped by reference"
    part_of: dict[int, str] = {}
    for name, rows in split.parts().items():
        for row in rows:
            if part_of.setdefault(row, name) != name:
                what = f"is in {part_of[row]} and in {name}"
                problems.append(Problem(table.keys[row], what, "name it in one part only"))
    kinds: list[tuple[str, Callable[[int], str | None]]] = [
        ("the same reference", lambda row: table[row].reference_id),
        ("identical file content", _content_names(table).__getitem__),
    ]
    for kind, key_of in kinds:
        first_in: dict[str, dict[str, int]] = {}
        for row in sorted(part_of):
            key = key_of(row)
            if key is None:
                continue
            seen = first_in.setdefault(key, {})
            if part_of[row] in seen:
                continue
            for part, other in seen.items():
                where = f"{table.keys[row]} ({part_of[row]}) and {table.keys[other]} ({part})"
                problems.append(Problem(where, f"{kind} in two parts", remedy))
            seen[part_of[row]] = row
    if problems:
        raise DatasetError(f"{table.name}, leakage", problems)


def save_splits(
    path: str | Path,
    table: RatingTable,
    splits: Sequence[Split],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write splits as JSON, by the pictures' keys, so that they serve any copy of the dataset.

    Args:
        path: the file; replaced in one step.
        table: the table the splits are of.
        splits: one or more.
        facts: how they were made, for readers; kept under "facts".

    Raises:
        OSError: the file cannot be written.
    """
    order = sorted(range(len(table)), key=lambda row: table.keys[row])
    number = {row: position for position, row in enumerate(order)}
    content = {
        "format": _FORMAT,
        "dataset": table.name,
        "fingerprint": table.fingerprint,
        "facts": dict(facts or {}),
        "pictures": [table.keys[row] for row in order],
        "splits": [
            {name: sorted(number[row] for row in rows) for name, rows in split.parts().items()}
            for split in splits
        ],
    }
    beside = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_splits(path: str | Path, table: RatingTable) -> list[Split]:
    """Read splits that `save_splits` wrote, for this table or another copy of the same dataset.

    Raises:
        DatasetError: the file is missing, none of `save_splits`, or of another dataset.
    """
    path = Path(path)

    def error(what: str, remedy: str) -> DatasetError:
        return DatasetError(path.name, [Problem(str(path), what, remedy)])

    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(content["format"])
        fingerprint, dataset = content["fingerprint"], content["dataset"]
        pictures = [str(name) for name in content["pictures"]]
        named = [
            {part: [pictures[number] for number in split[part]] for part in _PARTS}
            for split in content["splits"]
        ]
    except OSError as problem:
        what = f"cannot be read ({problem.strerror})"
        raise error(what, "give the file that the splits were saved in") from problem
    except (ValueError, LookupError, TypeError, AttributeError) as problem:
        raise error("it is no file of splits", "make the splits again") from problem
    if fingerprint != table.fingerprint:
        listed, here = set(pictures), set(table.keys)
        only_there = [name for name in pictures if name not in here]
        only_here = [key for key in table.keys if key not in listed]
        if only_there or only_here:
            detail = (
                f"{len(only_there):,} of its pictures are not in this table"
                + _examples(only_there)
                + f", {len(only_here):,} of this table are not in it"
                + _examples(only_here)
            )
        else:
            detail = "the pictures have one name but other scores"
        raise error(
            f"the splits are of another dataset ({dataset}, {len(pictures):,} pictures) than "
            f"{table.name} with {len(table):,}: {detail}",
            "give the splits of this dataset, or make new ones",
        )
    row_of = {key: row for row, key in enumerate(table.keys)}
    return [
        Split(*(tuple(sorted(row_of[name] for name in split[part])) for part in _PARTS))
        for split in named
    ]


def content_hash(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex; equal for copies under other names.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def validation_split(
    ratings: Sequence[Rating], fraction: float, seed: int
) -> tuple[list[Rating], list[Rating]]:
    """Splits off a validation part, such that no picture is on both sides.

    Pictures of one reference, and files with equal content, stay together. The result depends on
    the pictures' contents, `fraction` and `seed`, and neither on the order of the rows nor on where
    the set lies. Files are read once for their hash (some seconds for 10,000 photographs).

    Args:
        ratings: rows of a training split.
        fraction: share of the rows for validation, between 0 and 1; reached within one group.
        seed: non-negative.

    Returns:
        The training rows and the validation rows, each in the order given.

    Raises:
        ValueError: `fraction` is not between 0 and 1, or one of the sides would be empty.
        OSError: a picture cannot be read.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    keys = _group_keys(ratings)
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    groups = sorted(sizes)
    wanted = fraction * len(ratings)
    chosen: set[str] = set()
    count = 0
    for position in np.random.default_rng(seed).permutation(len(groups)):
        if count >= wanted:
            break
        chosen.add(groups[position])
        count += sizes[groups[position]]
    if count in (0, len(ratings)):
        raise ValueError(
            f"{len(ratings)} rows in {len(groups)} groups cannot be split at {fraction}: "
            "give more pictures or another fraction"
        )
    training = [rating for rating, key in zip(ratings, keys, strict=True) if key not in chosen]
    validation = [rating for rating, key in zip(ratings, keys, strict=True) if key in chosen]
    return training, validation


def _group_keys(ratings: Sequence[Rating]) -> list[str]:
    """One key a row, equal for rows that must stay together: one reference, or equal content."""
    hashes = [content_hash(rating.image) for rating in ratings]
    names = [
        digest if rating.reference_id is None else f"reference {rating.reference_id}"
        for digest, rating in zip(hashes, ratings, strict=True)
    ]
    keys = list(names)
    for rows in _connected([[name, digest] for name, digest in zip(names, hashes, strict=True)]):
        for row in rows:
            keys[row] = max(names[other] for other in rows)  # a reference's before a digest
    return keys


def _groups(table: RatingTable, group_by: str | None) -> list[list[int]]:
    """Rows that must stay together; groups in an order that no row order changes."""
    keys = []
    for rating, content in zip(table, _content_names(table), strict=True):
        value = None if group_by is None else getattr(rating, group_by)
        pairs = (("group", value), ("content", content))
        keys.append([pair for pair in pairs if pair[1] is not None])
    return sorted(_connected(keys), key=lambda rows: min(table.keys[row] for row in rows))


def _connected(keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Rows that share a key, be it through other rows; ascending within a group."""
    parent = list(range(len(keys)))

    def root_of(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    for row, shared in enumerate(keys):
        for key in shared:
            parent[root_of(row)] = root_of(first.setdefault(key, row))
    groups: dict[int, list[int]] = {}
    for row in range(len(keys)):
        groups.setdefault(root_of(row), []).append(row)
    return list(groups.values())


def _take(groups: Sequence[Sequence[int]], wanted: float) -> int:
    """How many of the first groups come nearest to a number of rows."""
    count, taken = 0, 0
    for group in groups:
        if wanted - count <= count + len(group) - wanted:
            break
        count += len(group)
        taken += 1
    # A part that is asked for gets one group at least.
    return max(taken, 1) if wanted > 0 else 0


def _content_names(table: RatingTable) -> tuple[str | None, ...]:
    """A name of each row's file content, equal for equal bytes; None where no other is equal."""
    stamps = []
    for rating in table:
        status = rating.image.stat()
        stamps.append((str(rating.image), status.st_size, status.st_mtime_ns))
    return _hashes_of_one_size(tuple(stamps))


@lru_cache(maxsize=8)  # ten splits of one table are checked in a row
def _hashes_of_one_size(stamps: tuple[tuple[str, int, int], ...]) -> tuple[str | None, ...]:
    count: dict[int, int] = {}
    for _, size, _ in stamps:
        count[size] = count.get(size, 0) + 1
    return tuple(content_hash(path) if count[size] > 1 else None for path, size, _ in stamps)


def _examples(names: Sequence[str]) -> str:
    return f" (such as {names[0]})" if names else ""
