"""Whole runs of a tiny model: what they write, going on after a kill, several processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rated_pictures import tiny_arguments, write_rated_pictures
from safetensors.torch import load_file
from tiny_models import save_backbone, save_text_tower

from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.arguments import UsageError
from pfd_iqa_hf.training.failure import TrainingFailure
from pfd_iqa_hf.training.run import train
from pfd_iqa_hf.training.run_log import read_log

_TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rated_pictures(tmp_path_factory.mktemp("rated"))


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("towers")
    narrow = {
        "prior_rank": 6,
        "denoising_width": 8,
        "condition_heads": 2,
        "head_num_attention_heads": 2,
    }
    return {
        "vision_model": str(save_backbone("dinov2", folder / "vision")),
        "text_model": str(save_text_tower("bert", folder / "text")),
        "config_overrides": json.dumps(narrow),
        "from_scratch": True,
        "teacher_steps": 2,
        "teacher_rated": 3,
        "teacher_triples": 1,
        "triples_per_batch": 1,
        "pristine_score": 60,
        "freeze_layers": 1,
    }


def test_two_steps_go_the_whole_way(table: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Training, choice, calibration, export, results, plots and card."""
    output = tmp_path / "out"
    arguments = tiny_arguments(
        table, output, tiny_checkpoint, test_share=0.2, validation_share=0.95, freeze_layers=0
    )
    arguments.validation_share = 0.5
    assert train(arguments) == output
    model = PfdIqaForImageQualityAssessment.from_pretrained(output)
    before = PfdIqaForImageQualityAssessment.from_pretrained(tiny_checkpoint)
    moved = [
        not torch.allclose(new, old, atol=1e-6)
        for new, old in zip(model.parameters(), before.parameters(), strict=True)
    ]
    assert sum(moved) > 0.5 * len(moved)
    rows = read_log(output / "log.jsonl")
    first = next(row for row in rows if row["stage"] == "student")
    assert {"loss", "regression", "deviation", "correlation", "learning_rate"} <= set(first)
    for part in ("validation", "test"):
        report = json.loads((output / "results" / part / "report.json").read_text())
        assert report["agreement"]["pictures"] == {"validation": 16, "test": 8}[part]
        assert (output / "results" / part / "predictions.parquet").stat().st_size > 0
        assert (output / "results" / part / "scatter.png").stat().st_size > 1000
    card = (output / "README.md").read_text()
    assert f"--dataset {table}" in card and "| test | 8 |" in card
    assert str(tmp_path) not in (output / "config.json").read_text()
    assert (output / "training.png").stat().st_size > 1000
    last = PfdIqaForImageQualityAssessment.from_pretrained(output / "checkpoints" / "last")
    assert all(parameter.isfinite().all() for parameter in last.parameters())


def test_a_finished_model_goes_on_with_its_teacher(
    table: Path, towers: dict[str, Any], tmp_path: Path
) -> None:
    train(tiny_arguments(table, tmp_path / "first", **towers))
    teacher = tmp_path / "first" / "checkpoints" / "teacher.safetensors"
    options: dict[str, Any] = {
        "teacher": str(teacher),
        "triples_per_batch": 1,
        "pristine_score": 60,
        "config_overrides": '{"feature_loss_weight": 0.5}',
    }
    train(tiny_arguments(table, tmp_path / "second", tmp_path / "first", **options))
    rows = read_log(tmp_path / "second" / "log.jsonl")
    assert {"diffusion", "feature", "map"} <= set(rows[0]) and rows[0]["stage"] == "student"
    model = PfdIqaForImageQualityAssessment.from_pretrained(tmp_path / "second")
    assert model.config.feature_loss_weight == 0.5
    with pytest.raises(UsageError, match="does not fit"):
        other = {**options, "teacher": str(tmp_path / "first" / "model.safetensors")}
        train(tiny_arguments(table, tmp_path / "third", tmp_path / "first", **other))
    with pytest.raises(UsageError, match="prior_fusion needs --from-scratch"):
        tiny_arguments(table, tmp_path / "x", config_overrides='{"prior_fusion": "none"}')


@pytest.mark.parametrize("fixed_views", [0, 2])
def test_from_scratch_uses_every_loss(
    table: Path, towers: dict[str, Any], tmp_path: Path, fixed_views: int
) -> None:
    options = {**towers, "fixed_views": fixed_views, "mixed_precision": "bf16", "eval_steps": 1}
    train(tiny_arguments(table, tmp_path / "out", **options))
    rows = read_log(tmp_path / "out" / "log.jsonl")
    last = [row for row in rows if row["stage"] == "student"][-1]
    parts = {"regression", "deviation", "kl", "reconstruction", "feature", "diffusion"}
    assert parts | {"correlation", "ranking", "map"} <= set(last)
    checked = [row for row in rows if row["stage"] == "validation"]
    assert [row["step"] for row in checked] == [1, 2]
    assert {"moved_condition", "moved_fusion", "moved_alignment", "moved_denoising"} <= set(
        checked[0]
    )
    assert not any("NaN" in json.dumps(row) for row in rows)


def test_a_finishing_stage_learns_names_and_map_while_the_denoiser_rests(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    more = write_rated_pictures(tmp_path / "more", 2).parent / "pictures"
    options: dict[str, Any] = {
        "triples_per_batch": 2,
        "pristine_score": 60,
        "photographs": str(more),
        "frozen_parts": "denoiser,alignment",
        "names_weight": 0.5,
        "map_ranking_weight": 0.2,
        "type_share": 1.0,
        "stressed_types": "color_shift,denoise",
        "stressed_share": 0.5,
        "random_draws": True,
    }
    output = tmp_path / "out"
    train(tiny_arguments(table, output, tiny_checkpoint, **options))
    assert {"names", "levels", "map_ranking"} <= set(read_log(output / "log.jsonl")[0])
    before, after = (
        PfdIqaForImageQualityAssessment.from_pretrained(folder).pfd_iqa.state_dict()
        for folder in (tiny_checkpoint, output / "checkpoints" / "last")
    )
    # Finished weights are written in half precision.
    changed = {
        name.split(".")[0]
        for name in before
        if not torch.equal(before[name].half(), after[name].half())
    }
    assert {"distortion_task", "quality_task"} <= changed
    assert not {"denoiser", "alignment"} & changed
    PfdIqaForImageQualityAssessment.from_pretrained(output / "checkpoints" / "best")
    with pytest.raises(UsageError, match="no part 'denoise'; there are .*denoiser"):
        options["frozen_parts"] = "denoise"
        train(tiny_arguments(table, tmp_path / "wrong", tiny_checkpoint, **options))


def test_the_method_stands_on_a_backbone_tuned_without_it(
    table: Path, towers: dict[str, Any], tmp_path: Path
) -> None:
    off = {"prior_discovery": False, "prior_fusion": "none", "denoiser": "none"}
    plain = json.dumps(json.loads(towers["config_overrides"]) | off | {"noise_alignment": "none"})
    first, second = tmp_path / "first", tmp_path / "second"
    train(tiny_arguments(table, first, **{**towers, "config_overrides": plain}))
    assert "teacher" not in {row["stage"] for row in read_log(first / "log.jsonl")}
    assert not (first / "checkpoints" / "teacher.safetensors").exists(), "nothing would use it"

    options = {**towers, "vision_model": str(first), "freeze_layers": 12, "eval_steps": 1}
    train(tiny_arguments(table, second, **options, teacher_freeze_layers=0))
    tuned = PfdIqaForImageQualityAssessment.from_pretrained(first).vision_model.state_dict()
    model = PfdIqaForImageQualityAssessment.from_pretrained(second)
    assert model.config.denoiser != "none"
    for name, tensor in model.vision_model.state_dict().items():
        torch.testing.assert_close(tensor, tuned[name], atol=0, rtol=0)
    teacher = second / "checkpoints" / "teacher.safetensors"
    learnt = load_file(teacher)
    query = next(name for name in learnt if "layer.0" in name and name.endswith("q_proj.weight"))
    assert not torch.equal(learnt[query], tuned[query.removeprefix("vision_model.")])

    again = train(tiny_arguments(table, tmp_path / "third", **options, teacher=str(teacher)))
    assert "teacher" not in {row["stage"] for row in read_log(again / "log.jsonl")}


def test_the_bank_gives_what_the_teacher_gives(towers: dict[str, Any], tmp_path: Path) -> None:
    from pfd_iqa_hf.training.objectives import TeacherBank
    from pfd_iqa_hf.training.teacher import Teacher

    student = PfdIqaForImageQualityAssessment.from_vision_text_pretrained(
        towers["vision_model"], towers["text_model"], config=json.loads(towers["config_overrides"])
    )
    teacher = Teacher.from_student(student).eval().requires_grad_(False)
    torch.nn.init.normal_(teacher.encoder)
    bank = TeacherBank(teacher, tmp_path, views=5, tokens=16)
    views = torch.rand(3, 3, 32, 32)
    live = teacher(views)
    first = bank(views, torch.tensor([4, -1, 0]))
    teacher.forward = None  # type: ignore[assignment]  # a second look would fail
    again = TeacherBank(teacher, tmp_path, views=5, tokens=16)(views[[2, 0]], torch.tensor([0, 4]))
    for name, values in live.items():
        torch.testing.assert_close(first[name], values.float(), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(again[name], first[name][[2, 0]], atol=0, rtol=0)


def test_other_options_or_data_do_not_go_on(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    train(tiny_arguments(table, output, tiny_checkpoint, max_train_steps=1))
    with pytest.raises(UsageError, match="--resume latest"):
        train(tiny_arguments(table, output, tiny_checkpoint, max_train_steps=1))
    with pytest.raises(UsageError, match="max_train_steps was 1, is 3"):
        train(tiny_arguments(table, output, tiny_checkpoint, max_train_steps=3, resume="latest"))
    other = tmp_path / "other.csv"
    text = table.read_text().splitlines()
    folder = table.parent / "pictures"
    other.write_text("\n".join(text[:-1]).replace("pictures/", f"{folder}/"))
    with pytest.raises(UsageError, match="another dataset"):
        train(tiny_arguments(other, output, tiny_checkpoint, max_train_steps=1, resume="latest"))


def test_another_split_or_start_does_not_go_on(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Former training pictures would become test pictures, without a word."""
    rows = table.read_text().splitlines()
    folder = table.parent / "pictures"

    def split_table(name: str, first: int) -> Path:
        parts = ["test" if first <= n < first + 6 else "train" for n in range(len(rows) - 1)]
        lines = [f"{row},{part}" for row, part in zip(rows[1:], parts, strict=True)]
        path = tmp_path / name
        text = "\n".join(["image,mos,split", *lines])
        path.write_text(text.replace("pictures/", f"{folder}/"))
        return path

    output = tmp_path / "out"
    train(tiny_arguments(split_table("a.csv", 0), output, tiny_checkpoint, max_train_steps=1))
    again: dict[str, Any] = {"max_train_steps": 1, "resume": "latest"}
    with pytest.raises(UsageError, match="another split"):
        train(tiny_arguments(split_table("b.csv", 9), output, tiny_checkpoint, **again))
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, other)
    model = PfdIqaForImageQualityAssessment.from_pretrained(other)
    with torch.no_grad():
        next(model.head.parameters()).add_(1.0)
    model.save_pretrained(other)
    with pytest.raises(UsageError, match="other weights"):
        train(tiny_arguments(tmp_path / "a.csv", output, other, **again))
    train(tiny_arguments(tmp_path / "a.csv", output, tiny_checkpoint, **again))


@pytest.mark.parametrize("file", ["objective.safetensors", "optimizer.pt", "progress.json"])
def test_a_damaged_checkpoint_is_named(
    table: Path, tiny_checkpoint: Path, tmp_path: Path, file: str
) -> None:
    output = tmp_path / "out"
    train(tiny_arguments(table, output, tiny_checkpoint, max_train_steps=1))
    damaged = output / "checkpoints" / "student-0000001" / file
    damaged.write_bytes(damaged.read_bytes()[:7] if file != "optimizer.pt" else b"")
    again: dict[str, Any] = {"max_train_steps": 1, "resume": "latest"}
    with pytest.raises(TrainingFailure, match="student-0000001 is damaged"):
        train(tiny_arguments(table, output, tiny_checkpoint, **again))
    with pytest.raises(TrainingFailure, match="student-000000x"):
        again["resume"] = str(output / "checkpoints" / "student-000000x")
        train(tiny_arguments(table, output, tiny_checkpoint, **again))


def test_foreign_files_are_not_replaced(table: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("My project.")
    with pytest.raises(UsageError, match=r"holds README\.md"):
        train(tiny_arguments(table, tmp_path, tiny_checkpoint))


def _command(table: Path, output: Path, model: Path, *more: str) -> list[str]:
    options = "--max-train-steps 12 --checkpointing-steps 1 --eval-steps 4 --logging-steps 1 "
    options += "--per-device-train-batch-size 3 --dataloader-num-workers 0 --resume latest"
    start = [sys.executable, "-m", "pfd_iqa_cli", "train", "--dataset", str(table)]
    return [*start, "--output-dir", str(output), "--model", str(model), *options.split(), *more]


def test_a_killed_run_ends_in_the_same_bits(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Killed at random moments, most of which lie in or between the saves after every step."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(_command(table, whole, tiny_checkpoint), check=True, timeout=300)
    moments = random.Random(os.getpid())
    for kill in range(3):
        process = subprocess.Popen(_command(table, killed, tiny_checkpoint))
        wanted = 3 * kill + 1
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            steps = [int(p.name[8:15]) for p in killed.glob("checkpoints/student-???????*")]
            if steps and max(steps) >= wanted:
                break
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    subprocess.run(_command(table, killed, tiny_checkpoint), check=True, timeout=300)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    losses = [
        [
            {k: v for k, v in row.items() if k != "time"}
            for row in read_log(folder / "log.jsonl")
            if row["stage"] in ("student", "validation")
        ]
        for folder in (whole, killed)
    ]
    assert losses[0] == losses[1]


def test_several_processes_give_the_gradients_of_one(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    script = _TESTS / "distributed_gradients.py"
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    results = []
    for processes, rows in ((1, 4), (2, 2)):
        output = tmp_path / f"{processes}.safetensors"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(processes), str(script)]
        command += [str(table), str(tiny_checkpoint), str(output), str(rows)]
        subprocess.run(command, check=True, env=environment, timeout=300)
        results.append(load_file(output))
    one, two = results
    assert one.keys() == two.keys() and len(one) > 50
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in one.values())


def test_two_processes_train(table: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(_TESTS.parent / "train.py")]
    command += _command(table, output, tiny_checkpoint)[4:]
    command[command.index("--max-train-steps") + 1] = "2"
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=300)
    PfdIqaForImageQualityAssessment.from_pretrained(output)
    rows = [row for row in read_log(output / "log.jsonl") if row["stage"] == "student"]
    assert [row["step"] for row in rows] == [1, 2]  # the main process alone writes


def test_accumulated_batches_are_one_batch(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    losses = []
    for rows, batches in ((4, 1), (2, 2)):
        output = tmp_path / str(rows)
        options = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}
        train(
            tiny_arguments(
                table,
                output,
                tiny_checkpoint,
                max_train_steps=1,
                correlation_weight=0.0,
                validation_share=0.0,
                **options,
            )
        )
        first = next(r for r in read_log(output / "log.jsonl") if r["stage"] == "student")
        losses.append(first["regression"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_early_stopping_ends_a_run_that_no_longer_improves(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    train(
        tiny_arguments(
            table,
            tmp_path / "out",
            tiny_checkpoint,
            max_train_steps=8,
            eval_steps=1,
            early_stopping_patience=2,
            learning_rate=1e-12,
            backbone_learning_rate=1e-12,
        )
    )
    checked = [r for r in read_log(tmp_path / "out" / "log.jsonl") if r["stage"] == "validation"]
    assert [row["step"] for row in checked] == [1, 2, 3]


def test_a_diverging_run_stops_with_reason_and_checkpoint(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = tiny_arguments(
        table,
        tmp_path / "out",
        tiny_checkpoint,
        max_train_steps=9,
        checkpointing_steps=1,
        learning_rate=1e30,
        backbone_learning_rate=1e30,
        ema_decay=0.0,
        validation_share=0.0,
    )
    with pytest.raises(TrainingFailure, match=r"is (nan|-?inf).*--learning-rate.*student-0000"):
        train(arguments)


def test_a_constant_prediction_stops_the_run(
    table: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    constant = tmp_path / "constant"
    model = PfdIqaForImageQualityAssessment.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    model.save_pretrained(constant)
    shutil.copy(tiny_checkpoint / "preprocessor_config.json", constant)
    arguments = tiny_arguments(
        table, tmp_path / "out", constant, learning_rate=1e-30, backbone_learning_rate=1e-30
    )
    with pytest.raises(TrainingFailure, match="one score"):
        train(arguments)


def test_a_picture_that_vanishes_stops_the_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    table = write_rated_pictures(tmp_path / "rated", 12)
    arguments = tiny_arguments(
        table, tmp_path / "out", tiny_checkpoint, validation_share=0.0, max_train_steps=8
    )
    (table.parent / "pictures" / "p03.jpg").write_bytes(b"gone bad")
    with pytest.raises(TrainingFailure, match=r"p03\.jpg.*--resume latest"):
        train(arguments)
    arguments = tiny_arguments(
        table,
        tmp_path / "skipping",
        tiny_checkpoint,
        validation_share=0.0,
        max_train_steps=8,
        skip_bad=True,
    )
    train(arguments)
    (row,) = [r for r in read_log(tmp_path / "skipping" / "log.jsonl") if r["stage"] == "skipped"]
    assert len(row["pictures"]) == 1 and "p03.jpg" in row["pictures"][0]
