"""Batches of the default recipe: rated photographs beside degraded pristine ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from pfd_iqa_hf.data.known_sets import Rating, load_biq2021, validation_split
from pfd_iqa_hf.data.near_copies import near_copies, thumbnails
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.samples import (
    degraded_triple,
    method_draws,
    random_view,
    sample_generator,
)

__all__ = ["RecipeBatches", "RecipeData", "normalise", "recipe_data"]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def normalise(view: Image.Image) -> torch.Tensor:
    """RGB view to a normalised tensor (3, H, W), as the image processor does."""
    values = (np.asarray(view, np.float32) / 255 - _MEAN) / _DEVIATION
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass
class RecipeData:
    """What the default recipe trains on and chooses by; no official test picture is among it.

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


def recipe_data(root: str, validation_share: float, seed: int) -> RecipeData:
    """Split BIQ2021's training part; copies of test pictures are dropped, bursts kept together.

    Args:
        root: Folder of BIQ2021.
        validation_share: Share of the training part to keep back.
        seed: Seed of the split.
    """
    ratings = load_biq2021(root)
    train = [rating for rating in ratings if rating.split == "train"]
    test = [rating for rating in ratings if rating.split == "test"]
    small = thumbnails([rating.image for rating in train])
    shown = {i for i, _ in near_copies(small, thumbnails([rating.image for rating in test]))}
    parent = list(range(len(train)))

    def root_of(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in near_copies(small, small):
        parent[root_of(j)] = root_of(i)
    grouped = [replace(rating, reference_id=f"scene{root_of(i)}") for i, rating in enumerate(train)]
    kept = [rating for i, rating in enumerate(grouped) if i not in shown]
    learn, validate = validation_split(kept, validation_share, seed)
    pristine = [rating for rating in learn if rating.group == "ss03" and rating.mos >= 75]
    return RecipeData(list(learn), list(validate), pristine, [grouped[i] for i in sorted(shown)])


class RecipeBatches(Dataset):
    """Batch number `step` of a run, made from (seed, epoch, index) alone.

    The rows are `rated` views with their score, then `triples` each of mild, strong and mixed
    degraded views, whose score is NaN.

    Args:
        data: Pictures to draw from.
        steps: Number of batches.
        rated: Rated views in a batch.
        triples: Degraded triples in a batch.
        seed: Seed of the run.
        distortion_names: Names of the distortion prompts, pristine first.
        draws: Keyword arguments of `method_draws`, or None for batches without random inputs.
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
    ) -> None:
        self.data = data
        self.steps = steps
        self.rated = rated
        self.triples = triples
        self.seed = seed
        self.distortion_names = list(distortion_names)
        self.draws = draws

    def __len__(self) -> int:
        """Number of batches."""
        return self.steps

    def _pick(self, pool: list[Rating], number: int, purpose: int) -> tuple[Rating, int, int]:
        """Sample `number` of the run: each epoch is one pass over the pool in its own order."""
        epoch, place = divmod(number, len(pool))
        order = np.random.default_rng([self.seed, epoch, purpose]).permutation(len(pool))
        return pool[int(order[place])], epoch, place

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """Tensors of one batch; rows in the order of the class's docstring."""
        views, labels, draws = [], [], []
        known: list[torch.Tensor] = []
        masks, gaps, levels = [], [], []
        names = len(self.distortion_names)
        for i in range(self.rated):
            number = step * self.rated + i
            rating, epoch, place = self._pick(self.data.train, number, purpose=10)
            generator = sample_generator(self.seed, epoch, place, purpose=2)
            views.append(normalise(random_view(open_picture(rating.image), generator)))
            labels.append(rating.mos)
            known.append(torch.full((names,), torch.nan))
            levels.append(-1)
            draws.append((epoch, place))
        for i in range(self.triples):
            number = step * self.triples + i
            rating, epoch, place = self._pick(self.data.pristine, number, purpose=11)
            generator = sample_generator(self.seed, epoch, place, purpose=3)
            triple = degraded_triple(rating.image, generator)
            place += 1_000_000  # apart from the rated samples
            for j, (view, level) in enumerate(
                (
                    (triple.mild, triple.mild_level),
                    (triple.strong, triple.strong_level),
                    (triple.mixed, triple.strong_level),
                )
            ):
                views.append(normalise(view))
                labels.append(float("nan"))
                known.append(self._known_distortion(triple.group, level))
                levels.append(level if j < 2 else -1)
                draws.append((epoch, 3 * place + j))
            masks.append(torch.from_numpy(triple.mask))
            gaps.append(triple.strong_level - triple.mild_level)
        batch = {
            "pixel_values": torch.stack(views),
            "labels": torch.tensor(labels),
            "known_distortion": torch.stack(known),
            "level": torch.tensor(levels),
            "mask": torch.stack(masks) if masks else torch.zeros(0, 1, 1),
            "gap": torch.tensor(gaps, dtype=torch.float32),
        }
        if self.draws is not None:
            rows = [method_draws(self.seed, e, p, **self.draws) for e, p in draws]  # type: ignore[arg-type]
            for key in rows[0]:
                batch[key] = torch.stack([row[key] for row in rows])
        return batch

    def _known_distortion(self, group: str, level: int) -> torch.Tensor:
        """The true distortion as a soft label: the mildest level is half invisible."""
        sure = (0.0, 0.6, 0.85, 0.95, 0.95, 0.95)[level]
        label = torch.full((len(self.distortion_names),), 0.02 / len(self.distortion_names))
        label[0] += 0.98 * (1 - sure)
        label[self.distortion_names.index(group)] += 0.98 * sure
        return label
