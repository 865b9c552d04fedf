"""`load_ratings`: one name or path in, one checked table of rated pictures out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pfd_iqa_hf.data.columns import Columns, stated_row
from pfd_iqa_hf.data.known_sets import KNOWN_SETS, known_set
from pfd_iqa_hf.data.known_sets.set_folder import SetFolder
from pfd_iqa_hf.data.rows import SPLIT_NAMES, StatedRow, build_table
from pfd_iqa_hf.data.table import DatasetError, Problem, RatingTable
from pfd_iqa_hf.data.table_files import TABLE_SUFFIXES, read_table
from pfd_iqa_hf.scoring.find import PICTURE_SUFFIXES

__all__ = ["load_ratings"]

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
# Embedded pictures come in these; a folder of any other files is not worth asking `datasets`.
_DATASETS_SUFFIXES = {".parquet", ".arrow", ".tar", ".zip"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_ratings(
    dataset: str,
    *,
    data_dir: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    score_range: tuple[float, float] | None = None,
    higher_is_better: bool = True,
    skip_bad: bool = False,
    dataset_split: str | None = None,
    streaming: bool = False,
    cache_dir: Path | None = None,
) -> RatingTable:
    """Read rated pictures, check every row, and map the labels to 0 to 100, higher is better.

    Args:
        dataset: one of

            - a table of paths and scores: .csv, .tsv, .txt, .jsonl, .ndjson, .parquet, .xlsx;
            - an ImageFolder: a folder with `metadata.csv` (or .jsonl, .parquet) and its column
              `file_name`, in it or in its folders `train`, `validation`, `test`;
            - a folder of the library `datasets`, or the id of a dataset on the Hub;
            - with `data_dir`, the name of a known set (`pfd_iqa_hf.data.known_sets`).
        data_dir: for a table the folder that its paths are relative to (by default the table's
            own); for a known set its folder.
        columns: our names (image, mos, mos_std, reference_id, distortion, level, split, group) to
            the dataset's; an empty string reads no such column. Known sets have their own.
        score_range: lowest and highest possible score; 0 to 100 if None. Known sets have their own.
        higher_is_better: direction of the scores. Known sets have their own.
        skip_bad: leave out pictures that are missing or empty and list them in `skipped`. Broken
            ones that only decoding shows are found by `pfd_iqa_hf.data.rows.check_pictures`.
        dataset_split: only the rows of one split, "train", "validation" or "test"; of a `datasets`
            folder or id, any split that it has.
        streaming: read a Hub dataset as it comes, without a second copy of it on disk.
        cache_dir: where embedded pictures are written, once, under the hash of their content; by
            default below Hugging Face's cache.

    Returns:
        The table; `Rating.image` is always a file.

    Raises:
        DatasetError: the dataset cannot be used; names every bad row and its remedy.
        ImportError: a library that this kind of dataset needs is not installed.
        ValueError: the range is empty, or an argument does not go with this kind of dataset.
    """
    names = Columns(columns or {})
    path = Path(dataset)
    known = known_set(dataset)
    if known is not None and (data_dir is not None or not path.exists()):
        if data_dir is None:
            what, remedy = "is the name of a known set", "give its folder with --data-dir"
            raise DatasetError(known.name, [Problem("dataset", f"{dataset!r} {what}", remedy)])
        if score_range is not None or not higher_is_better or names.given:
            raise ValueError(f"{known.name} has its own columns, range and direction: give none")
        table = known.load(data_dir, skip_bad=skip_bad)
        return table if dataset_split is None else _of_split(table, dataset_split)
    if path.is_dir() and not _metadata_files(path):
        _refuse_useless_folder(path)
    if not path.is_file() and not (path.is_dir() and _metadata_files(path)):
        if not path.exists():
            _refuse_what_is_no_id(dataset)
        from pfd_iqa_hf.data.hub_sets import datasets_rows

        name, rows = datasets_rows(dataset, names, dataset_split, streaming, cache_dir)
        return build_table(name, rows, score_range, higher_is_better, skip_bad=skip_bad)
    if path.is_file():
        name, found = path.name, _table_rows(path, names, data_dir, cache_dir)
    else:
        name, found = path.resolve().name, _image_folder_rows(path, names, cache_dir)
    table = build_table(name, found, score_range, higher_is_better, skip_bad=skip_bad)
    if path.is_dir():
        # Without a common root one sub-folder's keys would change with the other's.
        table = replace(table, root=path, extra=_unlisted(path, table))
    return table if dataset_split is None else _of_split(table, dataset_split)


def _of_split(table: RatingTable, split: str) -> RatingTable:
    try:
        return table.split(split)
    except ValueError as error:
        remedy = "leave --dataset-split out, or name a split that it has"
        raise DatasetError(table.name, [Problem("splits", str(error), remedy)]) from error


def _table_rows(
    path: Path,
    names: Columns,
    data_dir: str | Path | None,
    cache_dir: Path | None,
    split: str | None = None,
) -> Iterator[StatedRow]:
    """Rows of a table; pictures lie beside it, below `data_dir`, or in its cells."""
    base = path.parent if data_dir is None else Path(data_dir)
    if not base.is_dir():
        what, remedy = f"there is no folder {base}", "correct --data-dir"
        raise DatasetError(path.name, [Problem(str(path), what, remedy)])
    folder: SetFolder | None = None
    found: dict[str, str] = {}
    columns: tuple[str, ...] | None = None
    for where, cells in read_table(path):
        if cells.columns != columns:  # JSON rows may differ
            found = names.find(cells, path.name, first=columns is None)
            columns = cells.columns
        image = cells[found["image"]]
        if isinstance(image, bytes):
            image = {"bytes": image, "path": None}
        fields: dict[str, object] = {}
        if isinstance(image, Mapping):
            from pfd_iqa_hf.data.hub_sets import stored_picture

            fields = stored_picture(image, cache_dir, where)
        elif image in (None, ""):
            fields = {"image": None, "name": "", "trouble": "no picture is named"}
        elif not isinstance(image, str | int | float):
            kind = type(image).__name__
            trouble = f"a cell of type {kind} is neither a path nor a picture"
            fields = {"image": None, "name": "", "trouble": trouble}
        else:
            name = os.fspath(str(image)).replace("\\", "/") if os.sep == "/" else str(image)
            fields = {"image": base / name, "name": name}
            if data_dir is not None and not (base / name).exists() and not Path(name).is_absolute():
                # A table that names files only, and pictures in sub-folders.
                folder = folder or SetFolder(path.name, base, "")
                fields = folder.picture(where, [""], name)
        yield stated_row(where, cells, found, fields, split)


def _image_folder_rows(root: Path, names: Columns, cache_dir: Path | None) -> Iterator[StatedRow]:
    for metadata in _metadata_files(root):
        folder = metadata.parent.name
        split = folder if metadata.parent != root and folder.casefold() in SPLIT_NAMES else None
        yield from _table_rows(metadata, names, None, cache_dir, split)


def _metadata_files(root: Path) -> list[Path]:
    """The tables of an ImageFolder: one in the folder itself, or one in each split's folder."""
    for folders in ([root], sorted(path for path in root.iterdir() if path.is_dir())):
        tables = []
        for folder in folders:
            here = [folder / name for name in _METADATA if (folder / name).is_file()]
            if len(here) > 1:
                what = f"{here[0].name} and {here[1].name} both list pictures"
                raise DatasetError(root.name, [Problem(str(folder), what, "keep one of them")])
            tables += here
        if tables:
            return tables
    return []


def _unlisted(root: Path, table: RatingTable) -> tuple[Path, ...]:
    """Pictures of the folder that no row lists."""
    listed = {os.path.abspath(rating.image) for rating in table}
    return tuple(path for path in _pictures(root) if os.path.abspath(path) not in listed)


def _pictures(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
            yield path


def _refuse_useless_folder(root: Path) -> None:
    """An error for a folder that is no ImageFolder and that `datasets` could not read either."""
    suffixes = {path.suffix.lower() for path in root.rglob("*") if path.is_file()}
    if suffixes & _DATASETS_SUFFIXES:
        return
    if suffixes & PICTURE_SUFFIXES:
        what = "the folder has pictures but no metadata.csv with their scores"
        remedy = (
            "add metadata.csv with the columns file_name and mos, or give a table with --dataset; "
            "for a known set give its name, and the folder with --data-dir"
        )
    else:
        what = "the folder has no pictures" if suffixes else "the folder is empty"
        remedy = "give a folder with pictures and metadata.csv, or the table itself"
    raise DatasetError(root.resolve().name, [Problem(str(root), what, remedy)])


def _refuse_what_is_no_id(dataset: str) -> None:
    """An error for a name that is no file, no folder and cannot be a dataset on the Hub."""
    if Path(dataset).suffix.lower() in TABLE_SUFFIXES:
        what, remedy = "there is no such file", "correct the path"
    elif _HUB_ID.fullmatch(dataset) and not dataset.startswith("."):
        return
    else:
        known = ", ".join(item.name for item in KNOWN_SETS)
        what = "there is no such file, folder, known set or Hub dataset"
        remedy = f"correct the path, or name a known set ({known}) with --data-dir"
    raise DatasetError(dataset, [Problem(dataset, what, remedy)])
