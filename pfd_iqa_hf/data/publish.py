"""A rated set as a folder to upload: parquet with embedded pictures, declared features, a card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pfd_iqa_hf.data.splits import official_split
from pfd_iqa_hf.data.table import DatasetError, Problem, RatingTable

__all__ = ["write_parquet_dataset"]

_SHARD_BYTES = 400_000_000
_ROWS_AT_ONCE = 64  # also a row group: what a viewer reads to show one picture
_COLUMNS = ("mos_std", "reference_id", "distortion", "level", "group")


def write_parquet_dataset(
    table: RatingTable,
    output_dir: str | Path,
    *,
    license: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a table as a `datasets` folder.

    Pictures are embedded as their original bytes. `mos` is on 0 to 100, higher is better, whatever
    the source's scale was; the card says how to go back. `datasets.load_dataset(folder)` and
    `load_ratings(folder)` read it; the latter gives the same keys and fingerprint, so that files of
    splits serve both.

    Args:
        table: the rated pictures; rows with official splits go to files of their split.
        output_dir: a folder that is missing or empty; it appears complete or not at all.
        license: of the pictures and scores, as the Hub writes it, such as "cc-by-4.0".
        shard_bytes: largest sum of pictures in one file.
        progress: called with the number of rows after each few.

    Returns:
        The folder.

    Raises:
        DatasetError: the folder is not empty, only some rows have a split, or a picture cannot be
            read.
        OSError: the folder cannot be written.
        ImportError: `datasets` or pyarrow is not installed.

    Example:
        write_parquet_dataset(load_ratings("my.csv"), "my-set", license="cc0-1.0")
    """
    try:
        import datasets
        import huggingface_hub  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "writing parquet needs datasets: pip install pfd-iqa-hf[train]"
        ) from error
    folder = Path(output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what, remedy = "the folder is not empty", "give another one, or remove it"
        raise DatasetError(table.name, [Problem(str(folder), what, remedy)])
    if any(rating.split for rating in table):
        parts = {name: rows for name, rows in official_split(table).parts().items() if rows}
    else:
        parts = {"train": tuple(range(len(table)))}
    features = _features(table, datasets)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (beside / "data").mkdir(parents=True)
        for name, rows in parts.items():
            _write_part(beside / "data", name, table, rows, features, shard_bytes, progress)
        _write_card(beside, folder.resolve().name, table, parts, features, license)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _features(table: RatingTable, datasets: Any) -> Any:
    kinds = {
        "mos_std": datasets.Value("float64"),
        "reference_id": datasets.Value("string"),
        "distortion": datasets.Value("string"),
        "level": datasets.Value("int32"),
        "group": datasets.Value("string"),
    }
    used = {
        name: kind
        for name, kind in kinds.items()
        if any(getattr(rating, name) is not None for rating in table)
    }
    return datasets.Features({"image": datasets.Image(), "mos": datasets.Value("float64"), **used})


def _write_part(
    folder: Path,
    name: str,
    table: RatingTable,
    rows: Sequence[int],
    features: Any,
    shard_bytes: int,
    progress: Callable[[int], None] | None,
) -> None:
    import pyarrow
    import pyarrow.parquet

    shards = list(_shards(table, rows, shard_bytes))
    schema = features.arrow_schema
    for number, shard in enumerate(shards):
        path = folder / f"{name}-{number:05d}-of-{len(shards):05d}.parquet"
        # Pictures do not compress any further.
        with pyarrow.parquet.ParquetWriter(path, schema, compression="NONE") as writer:
            for start in range(0, len(shard), _ROWS_AT_ONCE):
                batch = shard[start : start + _ROWS_AT_ONCE]
                content = [_row(table, row, list(features)) for row in batch]
                writer.write_table(pyarrow.Table.from_pylist(content, schema=schema))
                if progress is not None:
                    progress(len(batch))


def _shards(table: RatingTable, rows: Sequence[int], limit: int) -> Iterator[list[int]]:
    shard: list[int] = []
    size = 0
    for row in rows:
        more = table[row].image.stat().st_size
        if shard and size + more > limit:
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += more
    yield shard


def _row(table: RatingTable, row: int, columns: Sequence[str]) -> dict[str, Any]:
    rating = table[row]
    try:
        content = rating.image.read_bytes()
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        problem = Problem(str(rating.image), what, "restore the picture")
        raise DatasetError(table.name, [problem]) from error
    assert table.root is not None
    place = rating.key or os.path.relpath(rating.image, table.root).replace(os.sep, "/")
    return {
        "image": {"bytes": content, "path": place},
        **{name: getattr(rating, name) for name in columns if name != "image"},
    }


def _write_card(
    folder: Path,
    title: str,
    table: RatingTable,
    parts: dict[str, tuple[int, ...]],
    features: Any,
    license: str | None,
) -> None:
    from datasets import DatasetInfo
    from huggingface_hub import DatasetCard, DatasetCardData

    size = len(table)
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    data = DatasetCardData(
        license=license or "other",
        pretty_name=title if table.name in ("", title) else f"{title} ({table.name})",
        task_categories=["image-classification"],
        size_categories=[next((text for most, text in limits if size < most), "100K<n<1M")],
        tags=["image-quality-assessment", "no-reference-iqa", "mean-opinion-score"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*.parquet"} for name in parts],
            }
        ],
        dataset_info=DatasetInfo(features=features)._to_yaml_dict(),
    )
    body = _card_text(title, table, parts, list(features))
    DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(folder / "README.md")


def _card_text(
    title: str, table: RatingTable, parts: dict[str, tuple[int, ...]], columns: Sequence[str]
) -> str:
    low, high = table.score_range
    share = "mos / 100" if table.higher_is_better else "(1 - mos / 100)"
    direction = "higher" if table.higher_is_better else "lower"
    about = {
        "image": "the picture, its original bytes",
        "mos": "mean opinion score, 0 to 100, higher is better",
        "mos_std": "standard deviation of the single opinions, in the same points",
        "reference_id": "the undistorted picture it was made from; split by this",
        "distortion": "name of its distortion",
        "level": "strength of the distortion, 1 is the mildest",
        "group": "subset",
    }
    lines = [f"# {title}", ""]
    lines += [f"{len(table):,} pictures with scores of human raters (source: {table.name}).", ""]
    lines += ["| split | pictures |", "|---|---|"]
    lines += [f"| {name} | {len(rows):,} |" for name, rows in parts.items()]
    lines += ["", "| column | content |", "|---|---|"]
    lines += [f"| `{name}` | {about[name]} |" for name in columns]
    lines += [
        "",
        f"The source's own scores run from {low:g} to {high:g}, {direction} is better: "
        f"own score = {low:g} + {high - low:g} × {share}.",
    ]
    if len(parts) == 1 and not any(rating.split for rating in table):
        lines += ["", "The set has no official split: all rows are in `train`."]
    if table.skipped:
        count = len(table.skipped)
        lines += ["", f"{count:,} listed pictures were missing or broken and are not included."]
    if table.terms:
        lines += ["", f"Terms of the source: {table.terms}."]
    lines += [
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rated = load_dataset("{title}")',
        "```",
        "",
    ]
    return "\n".join(lines)
