"""Training throughput of the whole method against its bare backbone, in one run.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/training.py

Forward and backward pass of one batch, no layer frozen, every loss of the method; the teacher's
answers once computed live and once read from the bank.  Medians of paired rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch

from pfd_iqa_hf import PfdIqaForImageQualityAssessment, default_checkpoint
from pfd_iqa_hf.training.objectives import StudentObjective, TeacherBank
from pfd_iqa_hf.training.samples import method_draws
from pfd_iqa_hf.training.teacher import Teacher

_SIDE = 224


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    began = time.perf_counter()
    work().backward()
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = arguments.batch_size
    model = PfdIqaForImageQualityAssessment.from_pretrained(default_checkpoint())
    model.set_attn_implementation({"vision_config": "eager"})
    model.train()
    teacher = Teacher.from_student(model).eval().requires_grad_(False)
    torch.nn.init.normal_(teacher.encoder, std=0.05)
    config = model.config
    tokens = (_SIDE // model.pfd_iqa.patch_size[0]) ** 2
    drawn = [
        method_draws(0, 0, row, tokens, config.denoising_width, config.start_timestep)
        for row in range(rows)
    ]
    batch = {key: torch.stack([draw[key] for draw in drawn]) for key in drawn[0]} | {
        "pixel_values": torch.randn(rows, 3, _SIDE, _SIDE),
        "labels": torch.linspace(5, 95, rows),
        "known_distortion": torch.full((rows, len(config.distortion_names)), torch.nan),
        "level": torch.full((rows,), -1),
        "group": torch.zeros(rows, dtype=torch.int64),
        "gap": torch.zeros(0),
    }
    objective = StudentObjective(model, rows, {"correlation": 0.4, "ranking": 0.0, "map": 0.0})
    reduced = arguments.dtype == "bf16"
    pixels = batch["pixel_values"]

    with tempfile.TemporaryDirectory() as folder:
        bank = TeacherBank(teacher, Path(folder), rows, tokens)
        keys = torch.arange(rows)
        with torch.no_grad(), torch.autocast("cpu", enabled=reduced):
            bank(pixels, keys)

        def bare() -> torch.Tensor:
            with torch.autocast("cpu", enabled=reduced):
                return model.vision_model(pixel_values=pixels).last_hidden_state.float().mean()

        def live() -> torch.Tensor:
            with torch.autocast("cpu", enabled=reduced):
                with torch.no_grad():
                    targets = teacher(pixels)
                return objective(batch, targets)[0]

        def cached() -> torch.Tensor:
            with torch.autocast("cpu", enabled=reduced):
                with torch.no_grad():
                    targets = bank(pixels, keys)
                return objective(batch, targets)[0]

        works = {"bare backbone": bare, "teacher cached": cached, "teacher live": live}
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        for work in works.values():
            _seconds(work)
            model.zero_grad(set_to_none=True)
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.rounds):
            for name, work in works.items():
                times[name].append(_seconds(work))
                model.zero_grad(set_to_none=True)
    print(f"{arguments.dtype}, batch {rows}, {torch.get_num_threads()} threads")
    for name in works:
        pairs = zip(times["bare backbone"], times[name], strict=True)
        shares = [100 * bare / own for bare, own in pairs]
        low, _, high = quantiles(shares, n=4)
        print(
            f"{name:15} {rows / median(times[name]):6.2f} views a second, "
            f"{median(shares):5.1f} % of the bare backbone's (quartiles {low:.1f} to {high:.1f})"
        )


if __name__ == "__main__":
    main()
