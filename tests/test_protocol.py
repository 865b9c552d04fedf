"""The protocol does each split once and sums up; the ablation compares on equal terms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rated_pictures import write_rated_pictures
from tiny_models import save_backbone, save_text_tower

from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.data.splits import load_splits
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.training.ablations import compare_variants
from pfd_iqa_hf.training.ablations import main as ablate
from pfd_iqa_hf.training.arguments import UsageError
from pfd_iqa_hf.training.checkpoints import save_tensors
from pfd_iqa_hf.training.protocol import run_protocol, summarise, table_of
from pfd_iqa_hf.training.teacher import Teacher


def test_each_split_is_done_once_and_tested_on_its_own_pictures(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    table = write_rated_pictures(tmp_path / "rated", 30)
    output = tmp_path / "protocol"
    options = f"--dataset {table} --output-dir {output} --model {tiny_checkpoint} --repeats 3"
    options += " --max-train-steps 1 --per-device-train-batch-size 4 --dataloader-num-workers 0"
    first = run_protocol([*options.split(), "--runs", "1"])
    assert first["n"] == 1 and not (output / "split-01").exists()
    stamp = (output / "split-00" / "model.safetensors").stat().st_mtime_ns
    summary = run_protocol([*options.split(), "--runs", "2"])
    assert summary["n"] == 2
    assert (output / "split-00" / "model.safetensors").stat().st_mtime_ns == stamp
    splits = load_splits(output / "splits.json", load_ratings(str(table)))
    assert len(splits) == 3
    for index, split in enumerate(splits[:2]):
        report = json.loads(
            (output / f"split-{index:02d}" / "results" / "test" / "report.json").read_text()
        )
        measured = summary["splits"][f"split-{index:02d}"]["srcc"]
        assert report["agreement"]["srcc"]["value"] == pytest.approx(measured, abs=1e-9)
        assert report["agreement"]["pictures"] == len(split.test) == 6
    assert "untrained_srcc" in table_of(summary)
    with pytest.raises(UsageError, match="another learning_rate"):
        run_protocol([*options.split(), "--learning-rate", "0.5"])
    more = run_protocol([*options.split(), "--runs", "2", "--repeats", "4"])
    assert more["splits"] == summary["splits"]
    assert load_splits(output / "splits.json", load_ratings(str(table)))[:3] == splits
    with pytest.raises(UsageError, match="--share 4/4"):
        run_protocol([*options.split(), "--share", "4/4"])


def test_the_summary_is_that_of_the_finished_splits(tmp_path: Path) -> None:
    for index, value in enumerate((0.7, 0.9, 0.8)):
        folder = tmp_path / f"split-{index:02d}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"srcc": value}))
    summary = summarise(tmp_path, "LIVEC")
    assert summary["median"] == {"srcc": 0.8}
    assert (summary["lowest"]["srcc"], summary["highest"]["srcc"], summary["n"]) == (0.7, 0.9, 3)
    written = (tmp_path / "protocol.md").read_text()
    assert "| DEIQT (ViT-S) | .875 | .894 | Qin et al., AAAI 2023 |" in written
    assert "| PFD-IQA | not verified | .922 | Li et al., arXiv 2401.11949, abstract |" in written


def test_an_ablation_goes_on_and_refuses_another_plan(tmp_path: Path) -> None:
    towers = {
        "--vision-model": save_backbone("dinov2", tmp_path / "vision"),
        "--text-model": save_text_tower("bert", tmp_path / "text"),
    }
    base = {
        "prior_rank": 6,
        "denoising_width": 8,
        "condition_heads": 2,
        "head_num_attention_heads": 2,
    }
    student = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
        str(towers["--vision-model"]), str(towers["--text-model"]), config=base
    )
    teacher = tmp_path / "teacher.safetensors"
    save_tensors(teacher, Teacher.from_student(student).state_dict())
    plan: dict[str, Any] = {
        "pictures": 12,
        "validation_share": 0.3,
        "validation_pictures": 8,
        "seed": 0,
        "seeds": [0],
        "batch_size": 4,
        "steps": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.9,
        "base": base,
        "reference": "whole",
        "variants": {"whole": {}, "no masks": {"masks": False}},
    }
    file, output = tmp_path / "plan.yaml", tmp_path / "out"
    command = [str(file), "--dataset", str(write_rated_pictures(tmp_path / "rated", 24))]
    command += [str(word) for item in towers.items() for word in item]
    command += ["--teacher", str(teacher), "--output-dir", str(output)]

    def run(**changes: Any) -> int:
        file.write_text(json.dumps(plan | changes))
        return ablate(command)

    assert run() == 0
    first = {path.name: path.stat().st_mtime_ns for path in output.glob("scores-*.json")}
    assert len(first) == 2
    # One more seed goes on; what is done stays.
    assert run(seeds=[0, 1]) == 0
    stamps = {path.name: path.stat().st_mtime_ns for path in output.glob("scores-*.json")}
    assert len(stamps) == 4 and first.items() <= stamps.items()
    assert run(steps=3) == 64
    command.extend(["--learning-rate", "1"])  # an option of training that is none of the dataset
    assert run() == 64
    del command[-2:]
    command.extend(["--mos-column", "no such column"])
    assert run() == 64
    del command[-2:]
    (output / "plan.json").write_text("{")
    assert run() == 64


def test_an_ablation_says_what_helps_only_where_it_is_sure() -> None:
    draw = np.random.default_rng(0)
    labels = draw.uniform(0, 100, 300)
    ratings = [
        Rating(Path(f"{n}.jpg"), float(mos), group=("a", "b")[n % 2])
        for n, mos in enumerate(labels)
    ]

    def run(variant: str, seed: int, noise: float) -> dict[str, object]:
        scores = labels + np.random.default_rng([seed, int(noise)]).normal(0, noise, 300)
        return {"variant": variant, "seed": seed, "scores": scores.tolist()}

    runs = [run("whole", seed, 20) for seed in (0, 1, 2)]
    runs += [run("without much", seed, 60) for seed in (0, 1, 2)]
    runs += [{**run("without nothing", seed, 20)} for seed in (0, 1, 2)]
    result = compare_variants(runs, ratings, "whole")
    assert result["without much"]["helps"] is True
    low, high = result["without much"]["interval"]
    assert low < result["without much"]["loss"] < high
    assert result["without nothing"]["helps"] is False
    assert result["without nothing"]["loss"] == 0.0
    assert result["whole"]["seeds"] == 3 and "loss" not in result["whole"]
    with pytest.raises(UsageError, match="reference 'other'"):
        compare_variants(runs, ratings, "other")
