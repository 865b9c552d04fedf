"""The folder of a known set: finds files whatever their case and depth, says what is missing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pfd_iqa_hf.data.rows import StatedRow, build_table
from pfd_iqa_hf.data.table import DatasetError, Problem, RatingTable
from pfd_iqa_hf.scoring.find import PICTURE_SUFFIXES

__all__ = ["KnownSet", "SetFolder"]

_DEEPEST = 5


@dataclass(frozen=True)
class KnownSet:
    """What is known about a published set, and how its folder is read.

    Attributes:
        name: as its authors write it.
        rows: number of rated pictures.
        references: number of undistorted originals; None for authentic sets.
        score_range: lowest and highest label of the set's own scale.
        higher_is_better: direction of the labels.
        source: where a complete copy comes from.
        terms: what the authors say about use and redistribution.
        read: yields the rows that the set's tables state; the pictures may be missing.
        unlisted: whether a picture, by its lower-case path below the root, belongs to the set
            although no row lists it, such as an undistorted original.
    """

    name: str
    rows: int
    references: int | None
    score_range: tuple[float, float]
    higher_is_better: bool
    source: str
    terms: str
    read: Callable[[SetFolder], Iterable[StatedRow]]
    unlisted: Callable[[str], bool] = lambda path: False

    def load(self, root: str | Path, skip_bad: bool = False) -> RatingTable:
        """Read and check the set.

        A table with more or fewer rows than the published set gives a warning.

        Args:
            root: the set's folder, or one up to three levels above it.
            skip_bad: leave out rows whose picture is missing, and list them.

        Raises:
            DatasetError: a table of scores is missing, pictures are missing or doubled, labels
                cannot be read or lie outside the set's range.
            ImportError: scipy or openpyxl is needed for the set's tables and not installed.
        """
        folder = SetFolder(self.name, Path(root), self.source)
        rows = list(self.read(folder))
        for what, expected, found in (
            ("rows", self.rows, len(rows)),
            ("references", self.references, len({row.reference_id for row in rows})),
        ):
            if expected is not None and found != expected:
                warnings.warn(
                    f"{self.name} has {expected:,} {what}, this copy lists {found:,}: numbers from "
                    "it cannot be compared with published ones",
                    stacklevel=2,
                )
        table = build_table(
            self.name,
            rows,
            self.score_range,
            self.higher_is_better,
            skip_bad=skip_bad,
            extra=folder.extra_pictures(rows, self.unlisted),
            terms=self.terms,
        )
        if table.extra:
            names = ", ".join(path.name for path in table.extra[:5])
            more = ", …" if len(table.extra) > 5 else ""
            warnings.warn(
                f"{self.name}: {len(table.extra):,} pictures beside the listed ones have no score "
                f"and are not used: {names}{more}",
                stacklevel=2,
            )
        return table


class SetFolder:
    """All files below a folder, found by the end of their path, upper and lower case alike.

    Args:
        dataset: the set's name, for messages.
        root: the folder.
        source: where a complete copy comes from, for messages.

    Raises:
        DatasetError: there is no such folder.
    """

    def __init__(self, dataset: str, root: Path, source: str) -> None:
        self.dataset = dataset
        self.root = root
        self.source = source
        if not root.is_dir():
            raise self.error(str(root), "there is no such folder", "give the folder of the set")
        self._by_name: dict[str, list[tuple[str, Path]]] = {}
        for place, folders, files in os.walk(root, followlinks=True):
            below = Path(place).relative_to(root)
            folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
            if len(below.parts) >= _DEEPEST:
                folders.clear()
            for name in sorted(files):
                if not name.startswith("."):
                    path = "/" + (below / name).as_posix().casefold()
                    self._by_name.setdefault(name.casefold(), []).append((path, Path(place, name)))

    def error(self, where: str, what: str, remedy: str) -> DatasetError:
        """A one-problem error of this set."""
        return DatasetError(self.dataset, [Problem(where, what, remedy)])

    def find(self, *endings: str) -> Path | None:
        """The file whose path ends so; of several endings the first that exists.

        Args:
            endings: file names, or ends of paths with `/`. Of several files with one ending the one
                nearest to the root is meant.
        """
        for ending in endings:
            matches = self._matches(ending)
            if matches:
                return min(matches, key=lambda match: (match[0].count("/"), match[0]))[1]
        return None

    def require(self, *endings: str) -> Path:
        """Like `find`, for a file that the set is useless without.

        Raises:
            DatasetError: there is none.
        """
        path = self.find(*endings)
        if path is None:
            wanted = " or ".join(repr(ending) for ending in endings)
            raise self.error(
                str(self.root),
                f"{wanted} is missing",
                f"give the folder of a complete copy (from {self.source})",
            )
        return path

    def picture(self, where: str, folders: Sequence[str], name: str) -> dict[str, Any]:
        """The fields `where`, `image`, `name` and `trouble` of a stated row.

        Args:
            where: the row's file and number.
            folders: folders that hold the picture in one copy or another; the first wins.
            name: the picture's name as the set's table gives it.
        """
        fields: dict[str, Any] = {"where": where, "name": name, "image": None}
        for folder in folders:
            matches = self._matches(f"{folder}/{name}" if folder else name)
            if not matches:
                continue
            depth = min(path.count("/") for path, _ in matches)
            nearest = [path for match, path in matches if match.count("/") == depth]
            fields["image"] = nearest[0]
            if len(nearest) > 1:
                fields["image"] = None
                fields["trouble"] = f"{nearest[0]} and {nearest[1]} are two files with one name"
            break
        return fields

    def extra_pictures(
        self, rows: Iterable[StatedRow], unlisted: Callable[[str], bool]
    ) -> list[Path]:
        """Pictures in the folders of listed ones that no row lists."""
        listed = {row.image for row in rows}
        folders = {image.parent for image in listed if image is not None}
        return sorted(
            path
            for matches in self._by_name.values()
            for relative, path in matches
            if path.parent in folders
            and path not in listed
            and path.suffix.lower() in PICTURE_SUFFIXES
            and not unlisted(relative)
        )

    def matlab(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of a .mat file.

        Raises:
            ImportError: scipy is not installed.
            DatasetError: the file cannot be read.
        """
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise ImportError(
                f"reading {self.dataset} needs scipy: pip install pfd-iqa-hf[train]"
            ) from error
        try:
            content: dict[str, np.ndarray] = loadmat(path)
        except (ValueError, OSError, NotImplementedError, TypeError) as error:
            raise self.error(str(path), f"not readable ({error})", "copy the file again") from error
        return content

    def array(self, path: Path, *names: str) -> np.ndarray:
        """The first of the named arrays of a .mat file, flat.

        Raises:
            DatasetError: it has none of them.
        """
        content = self.matlab(path)
        for name in names:
            if name in content:
                return np.asarray(content[name]).ravel()
        wanted = " or ".join(names)
        raise self.error(str(path), f"no array named {wanted} in it", "copy the file again")

    def _matches(self, ending: str) -> list[tuple[str, Path]]:
        ending = ending.replace("\\", "/").strip("/").casefold()
        candidates = self._by_name.get(ending.rpartition("/")[2], [])
        return [match for match in candidates if match[0].endswith("/" + ending)]
