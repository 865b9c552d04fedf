"""Batches of training: rated photographs beside degraded pristine ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from pfd_iqa_hf.data.near_copies import near_copies, thumbnails
from pfd_iqa_hf.data.splits import validation_split
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.modeling.picture_reading import PictureError, open_picture
from pfd_iqa_hf.training.samples import (
    DegradedTriple,
    degraded_triple,
    distortion_label,
    method_draws,
    random_view,
    sample_generator,
)

__all__ = ["RATED", "RecipeBatches", "RecipeData", "epoch_order", "normalise", "recipe_data"]

RATED, _PRISTINE = 10, 11  # purposes of the two orders
_MOST_SKIPPED = 20  # in a row; more than that is no single bad picture
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(view: Image.Image) -> torch.Tensor:
    """RGB view to a normalised tensor (3, H, W), as the image processor does."""
    values = (np.asarray(view, np.float32) / 255 - _MEAN) / _DEVIATION
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass
class RecipeData:
    """What a run learns from and chooses by; no test picture is among it.

    Args:
        train: Rated training pictures.
        validation: Rated pictures kept back for choosing and calibrating.
        pristine: Training pictures good enough to be degraded.
        dropped: Training pictures left out because a test picture shows the same scene.
    """

    train: list[Rating]
    validation: list[Rating]
    pristine: list[Rating]
    dropped: list[Rating]


def recipe_data(
    train: Sequence[Rating],
    test: Sequence[Rating],
    validation: Sequence[Rating] | None = None,
    *,
    validation_share: float = 0.1,
    seed: int = 0,
    drop_near_copies: bool = False,
    pristine_score: float = 75.0,
    pristine_group: str | None = None,
    photographs: Sequence[Path] = (),
) -> RecipeData:
    """Decide what is learnt from, what is chosen by and what may be degraded.

    Args:
        train: Rated training pictures.
        test: Rated test pictures; only their thumbnails are looked at.
        validation: Pictures to choose by; None keeps back a share of `train`.
        validation_share: That share.
        seed: Seed of that split.
        drop_near_copies: Leave out training pictures that show the scene of a test picture, and
            keep such copies of each other on one side of the validation split.
        pristine_score: Photographs from this score on may be degraded.
        pristine_group: Only those of this subset, if given.
        photographs: More photographs to degrade, of which nobody knows the score; they are
            repeated until they make about a quarter of all.

    Raises:
        ValueError: the training pictures cannot be split at that share.
    """
    learn, dropped = list(train), []
    if drop_near_copies:
        small = thumbnails([rating.image for rating in train])
        shown = {i for i, _ in near_copies(small, thumbnails([rating.image for rating in test]))}
        scenes = _scenes(len(train), near_copies(small, small))
        grouped = [
            replace(rating, reference_id=rating.reference_id or f"scene{scene}")
            for rating, scene in zip(train, scenes, strict=True)
        ]
        learn = [rating for i, rating in enumerate(grouped) if i not in shown]
        dropped = [grouped[i] for i in sorted(shown)]
    if validation is None:
        validation = []
        if validation_share:
            learn, validation = validation_split(learn, validation_share, seed)
    pristine = [
        rating
        for rating in learn
        if rating.mos >= pristine_score and pristine_group in (None, rating.group)
    ]
    added = [Rating(path, float("nan")) for path in photographs]
    repeated = max(1, round(len(pristine) / (3 * len(added)))) if added else 0
    return RecipeData(list(learn), list(validation), pristine + repeated * added, dropped)


def _scenes(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """A number for each of `count` pictures, equal for those that pairs connect."""
    parent = list(range(count))

    def root_of(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in pairs:
        parent[root_of(j)] = root_of(i)
    return [root_of(i) for i in range(count)]


class RecipeBatches(Dataset):
    """Batch number `step` of a run, made from (seed, epoch, index) alone.

    The rows are `rated` views with their score, then `triples` each of mild, strong and mixed
    degraded views, whose score is NaN. With several processes each gets the rows of one process
    with a larger batch that are its own, so their number does not change what is learnt.

    Args:
        data: Pictures to draw from.
        steps: Number of batches.
        rated: Rated views in a batch of one process.
        triples: Degraded triples in a batch of one process.
        seed: Seed of the run.
        distortion_names: Names of the distortion prompts, pristine first.
        draws: Keyword arguments of `method_draws`, or None for batches without random inputs.
        first: Number of the first batch: where a run goes on.
        process: Number of this process, and how many there are.
        fixed_views: Views a picture that come back in every epoch; 0 makes new ones each time.
        size: Side of a view in pixels.
        skip_bad: Take the next picture of the order for one that cannot be read, and tell.
        clean_share: Share of the triples whose milder view is certainly untouched.
        chain_share: Share of the triples that are degraded by chains.
        meaningless_share: Share of the triples whose stronger view is no picture at all.
        composed_share: Share of the others whose stronger view has a second type on top.
        type_share: Share of the triples whose type is drawn among all types alike.
        stressed_types: Types of degradation that are drawn more often.
        stressed_share: Share of the triples whose type is one of them.
    """

    def __init__(
        self,
        data: RecipeData,
        steps: int,
        rated: int,
        triples: int,
        seed: int,
        distortion_names: Sequence[str],
        draws: dict[str, float] | None = None,
        *,
        first: int = 0,
        process: tuple[int, int] = (0, 1),
        fixed_views: int = 0,
        size: int = 224,
        skip_bad: bool = False,
        clean_share: float = 0.0,
        chain_share: float = 0.0,
        meaningless_share: float = 0.0,
        composed_share: float = 0.0,
        type_share: float = 0.0,
        stressed_types: Sequence[str] = (),
        stressed_share: float = 0.0,
    ) -> None:
        self.data = data
        self.steps = steps
        self.rated = rated
        self.triples = triples
        self.seed = seed
        self.distortion_names = list(distortion_names)
        self.groups = sorted({rating.group for rating in data.train}, key=str)
        self.draws = draws
        self.first = first
        self.process = process
        self.fixed_views = fixed_views
        self.size = size
        self.skip_bad = skip_bad
        self.degraded_shares: dict[str, Any] = {
            "clean_share": clean_share,
            "chain_share": chain_share,
            "meaningless_share": meaningless_share,
            "composed_share": composed_share,
            "type_share": type_share,
            "stressed_types": tuple(stressed_types),
            "stressed_share": stressed_share,
        }
        if triples and not data.pristine:
            raise ValueError("degraded triples need pristine photographs, and there are none")

    def __len__(self) -> int:
        """Number of batches from the first one on."""
        return self.steps - self.first

    def _pick(self, count: int, number: int, purpose: int, shift: int) -> tuple[int, int, int]:
        """Row, epoch and place of sample `number`: each epoch passes once over all rows."""
        epoch, place = divmod(number, count)
        order = epoch_order(self.seed, epoch, purpose, count)
        return int(order[(place + shift) % count]), epoch, place

    def _readable(self, make: Callable[[int, int], Any], number: int, skipped: list[str]) -> Any:
        """What `make` returns for a sample, or for the next one that can be read."""
        for shift in range(_MOST_SKIPPED if self.skip_bad else 0):
            try:
                return make(number, shift)
            except PictureError as error:
                skipped.append(str(error))
        return make(number, _MOST_SKIPPED if self.skip_bad else 0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Tensors of one batch; rows in the order of the class's docstring.

        A broken picture gives {"error": PictureError}: an exception would lose its type on the way
        out of a worker process. With `skip_bad`, `skipped` holds the errors of those left out.
        """
        try:
            return self._batch(self.first + index)
        except PictureError as error:
            return {"error": error}

    def _batch(self, step: int) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        skipped: list[str] = []
        place, processes = self.process
        for i in range(self.rated):
            number = (step * processes + place) * self.rated + i
            rows.append(self._readable(self._rated_row, number, skipped))
        masks, gaps = [], []
        for i in range(self.triples):
            number = (step * processes + place) * self.triples + i
            triple, triple_rows = self._readable(self._triple_rows, number, skipped)
            rows += triple_rows
            masks.append(torch.from_numpy(triple.mask))
            gaps.append(triple.strong_level - triple.mild_level)
        batch: dict[str, Any] = {
            "pixel_values": torch.stack([row["view"] for row in rows]),
            "labels": torch.tensor([row["label"] for row in rows]),
            "known_distortion": torch.stack([row["known"] for row in rows]),
            "level": torch.tensor([row["level"] for row in rows]),
            "group": torch.tensor([row.get("group", -1) for row in rows]),
            "view_key": torch.tensor([row["key"] for row in rows]),
            "pseudo_score": torch.tensor([row.get("pseudo_score", torch.nan) for row in rows]),
            "mask": torch.stack(masks) if masks else torch.zeros(0, 1, 1),
            "gap": torch.tensor(gaps, dtype=torch.float32),
        }
        if skipped:
            batch["skipped"] = skipped
        if self.draws is not None:
            drawn = [method_draws(self.seed, *row["draw"], **self.draws) for row in rows]  # type: ignore[arg-type]
            for key in drawn[0]:
                batch[key] = torch.stack([row[key] for row in drawn])
        return batch

    def _rated_row(self, number: int, shift: int = 0) -> dict[str, Any]:
        row, epoch, place = self._pick(len(self.data.train), number, RATED, shift)
        rating = self.data.train[row]
        key = -1
        if self.fixed_views:
            # The view belongs to the picture, wherever in the epoch it comes.
            view = epoch % self.fixed_views
            generator = sample_generator(self.seed, view, row, purpose=4)
            key = row * self.fixed_views + view
        else:
            generator = sample_generator(self.seed, epoch, place, purpose=2)
        picture = open_picture(rating.image)
        return {
            "view": normalise(random_view(picture, generator, self.size)),
            "label": rating.mos,
            "group": self.groups.index(rating.group),
            "known": torch.full((len(self.distortion_names),), torch.nan),
            "level": -1,
            "key": key,
            "draw": (epoch, place),
        }

    def _triple_rows(
        self, number: int, shift: int = 0
    ) -> tuple[DegradedTriple, list[dict[str, Any]]]:
        row, epoch, place = self._pick(len(self.data.pristine), number, _PRISTINE, shift)
        rating = self.data.pristine[row]
        generator = sample_generator(self.seed, epoch, place, purpose=3)
        triple = degraded_triple(
            rating.image, generator, self.size, score=rating.mos, **self.degraded_shares
        )
        place += 1_000_000  # apart from the rated samples
        rows = []
        for j, (view, level) in enumerate(
            (
                (triple.mild, triple.mild_level),
                (triple.strong, triple.strong_level),
                (triple.mixed, triple.strong_level),
            )
        ):
            second = triple.second_group if j else None
            rows.append(
                {
                    "view": normalise(view),
                    "label": float("nan"),
                    "known": self._known_distortion((triple.group, second), level),
                    "level": level if j < 2 else -1,
                    "pseudo_score": triple.scores[j] if j < 2 else float("nan"),
                    "key": -1,
                    "draw": (epoch, 3 * place + j),
                }
            )
        return triple, rows

    def _known_distortion(self, groups: Sequence[str | None], level: int) -> torch.Tensor:
        """The true distortions as a soft label.

        NaN after a chain: what of its steps can still be seen, nobody knows.
        """
        named = [group for group in groups if group is not None]
        if not named and level:
            return torch.full((len(self.distortion_names),), torch.nan)
        return distortion_label([(group, level) for group in named], self.distortion_names)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, purpose: int, count: int) -> np.ndarray:
    """The order of an epoch's rows, (count,); `purpose` keeps independent pools apart."""
    return np.random.default_rng([seed, epoch, purpose]).permutation(count)
