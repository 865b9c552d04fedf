"""Ablations: the method with one part changed, on stored tokens of the frozen backbone.

    pfd-iqa ablate pfd_iqa_hf/training/recipes/ablations.yaml --dataset BIQ2021 --data-dir BIQ2021 \
        --vision-model weights/dinov2-small --text-model weights/minilm \
        --teacher run/checkpoints/teacher.safetensors --output-dir ablations

The backbone looks once at one view a picture; every variant then trains all that lies above it, on
the same views, in the same order, from the same seeds.  What is cut beside the backbone's training:
degraded triples, hence ranking and L_map.  A finished run is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.evaluation.agreement import quick_srcc
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.picture_reading import open_picture
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError, parse_arguments
from pfd_iqa_hf.training.batches import RATED, epoch_order, normalise
from pfd_iqa_hf.training.checkpoints import check_room, read_json, write_text
from pfd_iqa_hf.training.losses import correlation_loss
from pfd_iqa_hf.training.optimization import MovingAverage, parameter_groups, rate_factor
from pfd_iqa_hf.training.run_data import RunData, load_run_data
from pfd_iqa_hf.training.run_setup import claim_facts, state_hash
from pfd_iqa_hf.training.samples import method_draws, random_view, sample_generator
from pfd_iqa_hf.training.teacher import Teacher, load_teacher
from pfd_iqa_hf.training.validation import SMALLEST_GROUP, centre_crop, within_group_srcc

__all__ = ["StoredBackbone", "compare_variants", "main", "run_ablations"]

_SIDE = 224
_HELPS = 0.003
_RESAMPLES = 2000
_FORMAT = np.float16
_BYTES_A_PICTURE = 1_100_000  # of a ViT-S with four levels; the teacher's answer included
_DATA_OPTIONS = (
    "data_dir",
    "image_column",
    "mos_column",
    "reference_column",
    "split_column",
    "group_column",
    "score_range",
    "lower_is_better",
    "skip_bad",
    "dataset_split",
    "split_file",
    "split_index",
    "allow_leakage",
)
_PLAN_KEYS = (
    "pictures",
    "validation_share",
    "validation_pictures",
    "seed",
    "seeds",
    "batch_size",
    "steps",
    "learning_rate",
    "ema_decay",
    "reference",
    "variants",
)


class StoredBackbone(nn.Module):
    """Stands in for a backbone: hands out hidden states that it computed before.

    Args:
        backbone: The backbone, for its configuration.
        levels: Layers whose states are stored; the others are never read.
    """

    def __init__(self, backbone: Any, levels: Sequence[int]) -> None:
        super().__init__()
        self.config = backbone.config
        self.levels = list(levels)
        self.states: torch.Tensor | None = None

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """The states in `states`, (R, levels, 1 + N, D); the pixels give nothing but their size."""
        assert self.states is not None
        hidden: list[Any] = [None] * (max(self.levels) + 1)
        for place, level in enumerate(self.levels):
            hidden[level] = self.states[:, place]
        return SimpleNamespace(hidden_states=hidden, attentions=None)


class TokenStore:
    """Hidden states and teacher's targets of one view a picture, on disk.

    Args:
        folder: Where they lie.
        ratings: The pictures.
        augment: Random views of training instead of centre crops.
        seed: Of the views.
    """

    def __init__(self, folder: Path, ratings: Sequence[Rating], augment: bool, seed: int) -> None:
        self.folder = folder
        self.ratings = list(ratings)
        self.augment = augment
        self.seed = seed
        self.labels = torch.tensor([rating.mos for rating in ratings])
        self.parts: dict[str, np.ndarray] = {}

    def fill(self, model: PfdIqaForImageQualityAssessment, teacher: Teacher) -> None:
        """Compute what is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        finished = self.folder / "finished"
        count = len(self.ratings)
        levels = model.config.feature_levels
        if finished.exists():
            self.parts = {p.stem: np.load(p, mmap_mode="r") for p in self.folder.glob("*.npy")}
            return
        for start in range(0, count, 16):
            rows = slice(start, min(start + 16, count))
            pixels = torch.stack([self._view(row) for row in range(rows.start, rows.stop)])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                output = model.vision_model(pixel_values=pixels, output_hidden_states=True)
                found = {"states": torch.stack([output.hidden_states[n] for n in levels], dim=1)}
                found |= teacher(pixels)
            for name, values in found.items():
                if name not in self.parts:
                    path = self.folder / f"{name}.npy"
                    self.parts[name] = np.lib.format.open_memmap(
                        path, "w+", _FORMAT, (count, *values.shape[1:])
                    )
                self.parts[name][rows] = values.float().numpy()
        for part in self.parts.values():
            part.flush()  # type: ignore[attr-defined]
        finished.write_text("")

    def rows(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of some pictures, fp32."""
        return {
            name: torch.from_numpy(np.asarray(part[list(rows)]).astype(np.float32))
            for name, part in self.parts.items()
        }

    def _view(self, row: int) -> torch.Tensor:
        picture = open_picture(self.ratings[row].image)
        if not self.augment:
            return normalise(centre_crop(picture))
        return normalise(random_view(picture, sample_generator(self.seed, 0, row, purpose=4)))


def train_variant(
    fields: dict[str, Any],
    plan: dict[str, Any],
    seed: int,
    train: TokenStore,
    validation: TokenStore,
    towers: tuple[str, str],
) -> np.ndarray:
    """Train one variant from one seed; returns its validation scores, (P,)."""
    fields = dict(fields)
    no_mask = fields.pop("masks", True) is False
    torch.manual_seed(seed)
    model = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(*towers, config=fields)
    stored = StoredBackbone(model.vision_model, model.config.feature_levels)
    model.pfd_iqa.vision_model = stored
    config = model.config
    rate = float(plan["learning_rate"])
    groups = parameter_groups(model, None, rate, rate, 1.0)
    optimizer = torch.optim.AdamW(groups)
    average = MovingAverage(model.named_parameters(), float(plan["ema_decay"]))
    size, steps = int(plan["batch_size"]), int(plan["steps"])
    count = len(train.ratings)
    pixels = torch.zeros(1, 3, _SIDE, _SIDE)
    model.train()
    for step in range(steps):
        numbers = range(step * size, (step + 1) * size)
        places = [divmod(number, count) for number in numbers]
        rows = [int(epoch_order(seed, epoch, RATED, count)[place]) for epoch, place in places]
        batch = train.rows(rows)
        stored.states = batch.pop("states")
        drawn = [
            method_draws(
                seed,
                epoch,
                place,
                tokens=stored.states.shape[2] - 1,
                width=config.denoising_width,
                start_timestep=config.start_timestep,
                mask_ratio=0.0 if no_mask else float(config.mask_ratio),
                unmasked_share=1.0 if no_mask else float(config.unmasked_share),
            )
            for epoch, place in places
        ]
        inputs = {key: torch.stack([draw[key] for draw in drawn]) for key in drawn[0]}
        with torch.autocast("cpu", torch.bfloat16):
            output = model(
                pixels.expand(size, -1, -1, -1), labels=train.labels[rows], **inputs, **batch
            )
        loss = output.loss + 0.4 * correlation_loss(output.logits, train.labels[rows])
        for group in optimizer.param_groups:
            group["lr"] = group["first_rate"] * rate_factor(step, steps, max(1, steps // 20))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 5.0)
        optimizer.step()
        average.update(step)
    average.copy_to_model()
    model.eval()
    scores = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(validation.ratings), 32):
            rows = list(range(start, min(start + 32, len(validation.ratings))))
            stored.states = validation.rows(rows)["states"]
            scores.append(model(pixels.expand(len(rows), -1, -1, -1)).logits.float())
    return torch.cat(scores).numpy()


def run_ablations(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is not done yet, and compare what is.

    Raises:
        UsageError, DatasetError, OSError: as for training.
    """
    plan = _read_plan(Path(options.plan))
    output = Path(options.output_dir)
    check_room(output, _BYTES_A_PICTURE * (plan["pictures"] + plan["validation_pictures"]))
    data = load_run_data(
        replace(
            _data_arguments(options),
            validation_share=float(plan["validation_share"]),
            drop_near_copies=bool(plan.get("drop_near_copies", False)),
            check_pictures=False,
        )
    )
    pick = np.random.default_rng(int(plan["seed"])).permutation(len(data.recipe.train))
    learnt = [data.recipe.train[row] for row in pick[: int(plan["pictures"])]]
    checked = list(data.validation)[: int(plan["validation_pictures"])]
    towers = (options.vision_model, options.text_model)
    stores = (
        TokenStore(output / "train-tokens", learnt, True, int(plan["seed"])),
        TokenStore(output / "validation-tokens", checked, False, int(plan["seed"])),
    )
    base = dict(plan.get("base") or {})
    torch.manual_seed(int(plan["seed"]))  # the folder is claimed by this model's weights
    model = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(*towers, config=base)
    teacher = load_teacher(options.teacher, model)
    _claim(output, plan, data, state_hash(model), state_hash(teacher))
    for store in stores:
        store.fill(model.eval(), teacher)
    del model, teacher
    for seed in plan["seeds"]:
        for name, fields in plan["variants"].items():
            path = output / f"scores-{_short_hash(fields or {})}-{seed}.json"
            if path.exists():
                continue
            began = time.time()
            scores = train_variant(base | (fields or {}), plan, seed, *stores, towers)
            content = {"variant": name, "seed": seed, "seconds": round(time.time() - began, 1)}
            write_text(path, json.dumps({**content, "scores": scores.tolist()}))
            print(f"{name}, seed {seed}: {within_group_srcc(scores, checked):.4f}", flush=True)
    found = [
        {**read_json(path), "variant": name}
        for name, fields in plan["variants"].items()
        for path in sorted(output.glob(f"scores-{_short_hash(fields or {})}-*.json"))
    ]
    result = compare_variants(found, checked, str(plan["reference"]))
    write_text(output / "ablations.json", json.dumps(result, indent=1))
    return result


def _data_arguments(options: argparse.Namespace) -> TrainArguments:
    """What training would take the dataset's options for."""
    for word in options.data_options:
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and name not in _DATA_OPTIONS:
            raise UsageError(
                f"unknown option {word}; beside its own, ablate takes those of the dataset: "
                + ", ".join(f"--{name.replace('_', '-')}" for name in _DATA_OPTIONS)
            )
    words = ["--dataset", options.dataset, "--output-dir", options.output_dir]
    return parse_arguments([*words, *options.data_options])


def _read_plan(path: Path) -> dict[str, Any]:
    import yaml

    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(plan, dict):
        raise UsageError(f"{path} must hold names and values; see recipes/ablations.yaml")
    missing = [key for key in _PLAN_KEYS if key not in plan]
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)}; see recipes/ablations.yaml")
    if plan["reference"] not in plan["variants"]:
        raise UsageError(f"{path}: the reference {plan['reference']!r} is none of the variants")
    return plan


def _claim(
    output: Path, plan: dict[str, Any], data: RunData, model_hash: str, teacher_hash: str
) -> None:
    """Refuse a folder whose runs were made from another plan, dataset, backbone or teacher."""
    now = {key: plan.get(key) for key in (*_PLAN_KEYS, "base", "drop_near_copies")}
    for key in ("variants", "seeds", "reference"):  # these may grow
        del now[key]
    now |= {"dataset": data.table.fingerprint, "split": data.fingerprint}
    now |= {"model": model_hash, "teacher": teacher_hash}
    claim_facts(output / "plan.json", now)


def _short_hash(fields: dict[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def compare_variants(
    runs: Sequence[dict[str, Any]], ratings: Sequence[Rating], reference: str
) -> dict[str, Any]:
    """Each variant beside the reference: SRCC within subsets, and whether the difference is sure.

    Args:
        runs: `variant`, `seed` and `scores` of each run.
        ratings: The pictures of the scores.
        reference: Name of the variant that the others are compared with.

    Returns:
        For each variant `srcc` and `deviation` over seeds, `loss` (reference minus variant, over
        the seeds both have) with a paired bootstrap 90 % interval over pictures, and `helps`: the
        part that the variant lacks earns at least .003, and the interval lies above 0.
    """
    scores: dict[str, dict[int, np.ndarray]] = {}
    for run in runs:
        scores.setdefault(run["variant"], {})[run["seed"]] = np.array(run["scores"])
    if reference not in scores:
        raise UsageError(f"no run of the reference {reference!r} is finished yet")
    draws = np.random.default_rng(0).integers(0, len(ratings), (_RESAMPLES, len(ratings)))
    table = np.array([rating.mos for rating in ratings])
    groups = np.array([rating.group or "" for rating in ratings])
    result: dict[str, Any] = {}
    for name, by_seed in scores.items():
        values = [within_group_srcc(each, ratings) for each in by_seed.values()]
        row: dict[str, Any] = {
            "seeds": len(values),
            "srcc": float(np.mean(values)),
            "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        }
        shared = sorted(set(by_seed) & set(scores[reference]))
        if name != reference and shared:
            gaps = [
                within_group_srcc(scores[reference][seed], ratings)
                - within_group_srcc(by_seed[seed], ratings)
                for seed in shared
            ]
            pairs = [(scores[reference][seed], by_seed[seed]) for seed in shared]
            drawn = np.array([_mean_gap(pairs, table, groups, draw) for draw in draws])
            low, high = np.quantile(drawn, [0.05, 0.95])
            loss = float(np.mean(gaps))
            row |= {"loss": loss, "interval": [float(low), float(high)]}
            row["helps"] = bool(loss >= _HELPS and low > 0)
        result[name] = row
    return result


def _mean_gap(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    draw: np.ndarray,
) -> float:
    """Reference minus variant on one resample, mean over seeds and subsets."""
    gaps = []
    inside = groups[draw]
    names, counts = np.unique(inside, return_counts=True)
    # As in `within_group_srcc`: small subsets say nothing.
    large = [name for name, count in zip(names, counts, strict=True) if count >= SMALLEST_GROUP]
    parts = [draw[inside == name] for name in large] if len(large) > 1 else [draw]
    for rows in parts:
        for first, second in pairs:
            gaps.append(quick_srcc(first[rows], labels[rows]))
            gaps[-1] -= quick_srcc(second[rows], labels[rows])
    return float(np.nanmean(gaps))


def table_of(result: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    lines = ["| variant | SRCC within subsets | lost against the whole | 90 % interval | helps |"]
    lines.append("|---|---|---|---|---|")
    for name, row in result.items():
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.4f}"
        cells = [name, f"{row['srcc']:.4f}{spread}"]
        if "loss" in row:
            low, high = row["interval"]
            cells += [f"{row['loss']:+.4f}", f"{low:+.4f} to {high:+.4f}"]
            cells.append("yes" if row["helps"] else "no")
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    from pfd_iqa_hf.training.cli import told

    parser = argparse.ArgumentParser(
        prog="pfd-iqa ablate",
        description="Train variants of the method on stored tokens of the frozen backbone; the "
        "dataset's options are those of pfd-iqa train.",
        allow_abbrev=False,
    )
    parser.add_argument("plan", help="YAML: sizes, seeds and variants; see recipes/ablations.yaml")
    parser.add_argument("--dataset", required=True, help="as for training")
    parser.add_argument("--vision-model", required=True, help="backbone, folder or Hub id")
    parser.add_argument("--text-model", required=True, help="text tower, folder or Hub id")
    parser.add_argument("--teacher", required=True, help="teacher.safetensors of a training")
    parser.add_argument("--output-dir", required=True, help="tokens (about 1 MB a picture), scores")

    def work() -> str:
        options, data_options = parser.parse_known_args(argv)
        options.data_options = data_options
        return table_of(run_ablations(options))

    return told("pfd-iqa ablate", work)
