"""Options, schedules, averages, checkpoints on disk, and bad input before hours are spent."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rated_pictures import tiny_arguments, write_rated_pictures
from tiny_models import tiny_config

from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.data.table import DatasetError
from pfd_iqa_hf.training import checkpoints
from pfd_iqa_hf.training.arguments import TrainArguments, UsageError, parse_arguments
from pfd_iqa_hf.training.optimization import (
    MovingAverage,
    backbone_layers,
    freeze_lower_layers,
    parameter_groups,
    rate_factor,
)
from pfd_iqa_hf.training.report import command_line
from pfd_iqa_hf.training.run_data import load_run_data
from pfd_iqa_hf.training.run_log import RunLog, read_log

_NEEDED = ["--dataset", "a.csv", "--output-dir", "out"]


def test_both_spellings_of_an_option_and_a_yaml_file(tmp_path: Path) -> None:
    kebab = parse_arguments([*_NEEDED, "--learning-rate", "3e-4", "--num-train-epochs", "2"])
    snake = parse_arguments([*_NEEDED, "--learning_rate", "3e-4", "--num_train_epochs", "2"])
    assert kebab == snake and kebab.learning_rate == 3e-4
    file = tmp_path / "run.yaml"
    file.write_text("dataset: a.csv\noutput-dir: out\nlearning_rate: 1e-3\nseed: 4\n")
    both = parse_arguments(["--config", str(file), "--seed", "5"])
    assert (both.learning_rate, both.seed, both.dataset) == (1e-3, 5, "a.csv")
    file.write_text("mixed_precision: no\nfrom-scratch: false\nscore_range: [1, 5]\n")
    plain = parse_arguments(["--config", str(file), *_NEEDED])
    assert (plain.mixed_precision, plain.score_range) == ("no", [1, 5])
    off = parse_arguments([*_NEEDED, "--no-check-pictures"])
    assert not off.check_pictures and kebab.check_pictures


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lerning-rate", "1"], "unknown option --lerning-rate"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0"),
        (["--from-scratch"], "--vision-model"),
        (["--push-to-hub"], "--hub-model-id"),
        (["--ema-decay", "1.0"], "--ema-decay must be from 0 to below 1"),
        (["--fixed-views", "2"], "--from-scratch"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--max-grad-norm", "0"], "--max-grad-norm must be above 0"),
        (["--push-to-hub", "--hub-model-id", "bad//na me"], "--hub-model-id"),
        (["--teacher", "t", "--from-scratch"], "--vision-model"),
        (["--stressed-types", "denoise"], "--stressed-types and --stressed-share go together"),
        (["--stressed-share", "0.3"], "--stressed-types and --stressed-share go together"),
        (["--stressed-types", "denoise,blurr"], "--stressed-types: no type 'blurr'; there are"),
    ],
)
def test_a_wrong_option_is_named(more: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_arguments([*_NEEDED, *more])


def test_a_wrong_yaml_file_is_named(tmp_path: Path) -> None:
    for text, message in (
        ("lerning_rate: 1", "unknown option 'lerning_rate'"),
        ("- a list", "names and values"),
        ("a: [", "is no YAML"),
        ("learning_rate: fast", "learning_rate must be a number"),
        ("learning_rate: [1, 2]", "learning_rate must be float"),
        ("max_train_steps: 2.5", "max_train_steps must be int"),
    ):
        file = tmp_path / "run.yaml"
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            parse_arguments([*_NEEDED, "--config", str(file)])


def test_the_shipped_recipes_are_readable_and_whole() -> None:
    import pfd_iqa_hf.training as package

    recipes = Path(package.__file__).parent / "recipes"
    more = ["--vision-model", "v", "--text-model", "t", "--output-dir", "out"]
    first, second = (
        parse_arguments(["--config", str(recipes / name), *more])
        for name in ("backbone.yaml", "default.yaml")
    )
    assert first.from_scratch and first.overrides["denoiser"] == "none"
    assert second.from_scratch and second.overrides["fusion_masking"] is True
    third = parse_arguments(["--config", str(recipes / "finishing.yaml"), *more[-2:]])
    assert third.names_weight and third.frozen_parts == "denoiser,alignment"
    fourth = parse_arguments(["--config", str(recipes / "polishing.yaml"), *more[-2:]])
    assert fourth.random_draws and "color_shift" in fourth.stressed
    # Weights of all stages are chosen by pictures that none has seen.
    for name in ("dataset", "drop_near_copies", "validation_share"):
        stages = (first, second, third, fourth)
        assert len({getattr(stage, name) for stage in stages}) == 1


def test_the_card_gives_the_command_of_the_run() -> None:
    given = [*_NEEDED, "--seed", "3", "--score-range", "1", "5", "--lower-is-better"]
    given += ["--no-check-pictures", "--config-overrides", '{"prior_fusion": "none"}']
    arguments = parse_arguments(
        [*given, "--from-scratch", "--vision-model", "v", "--text-model", "t"]
    )
    import shlex

    words = shlex.split(command_line(arguments))
    assert parse_arguments(words[2:]) == arguments
    together = "accelerate launch --num_processes 2 -m pfd_iqa_cli train".split()
    assert shlex.split(command_line(arguments, processes=2)) == [*together, *words[2:]]


def test_a_help_page_and_a_usage_error_through_the_command() -> None:
    start = [sys.executable, "-m", "pfd_iqa_cli", "train"]
    shown = subprocess.run([*start, "--help"], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0 and "--learning-rate" in shown.stdout
    wrong = subprocess.run(
        [*start, *_NEEDED, "--resumee", "latest"], capture_output=True, text=True, timeout=120
    )
    assert wrong.returncode == 64
    assert "--resumee" in wrong.stderr and "Traceback" not in wrong.stderr


def test_rates_fall_with_depth_and_frozen_layers_have_none() -> None:
    model = PfdIqaForImageQualityAssessment(tiny_config())
    backbone: Any = model.vision_model
    freeze_lower_layers(backbone, 1)
    first, second = backbone_layers(backbone)
    assert not any(p.requires_grad for p in first.parameters())
    assert not any(p.requires_grad for p in backbone.embeddings.parameters())
    groups = parameter_groups(model, backbone, 1e-4, 1e-3, 0.5)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    trained = [p for p in second.parameters() if p.requires_grad]
    assert {rate_of[id(p)] for p in trained} == {1e-4}
    assert {rate_of[id(p)] for p in model.head.parameters()} == {1e-3}
    assert all(decay_of[id(p)] == (0.05 if p.dim() > 1 else 0) for p in model.head.parameters())
    for parameter in first.parameters():
        parameter.requires_grad_(True)
    groups = parameter_groups(model, backbone, 1e-4, 1e-3, 0.5)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rate_of[id(p)] for p in first.parameters()} == {0.5e-4}
    fusion: Any = model.pfd_iqa.fusion
    groups = parameter_groups(model, backbone, 1e-4, 1e-3, 0.5, own_rates=[(fusion, 4e-3)])
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rate_of[id(p)] for p in fusion.parameters()} == {4e-3}
    assert {rate_of[id(p)] for p in model.head.parameters()} == {1e-3}


def test_schedules() -> None:
    warm = [rate_factor(step, 100, 10) for step in range(10)]
    assert warm == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rate_factor(55, 100, 10) == pytest.approx(0.5)
    assert rate_factor(100, 100, 10) == pytest.approx(0, abs=1e-9)
    assert rate_factor(55, 100, 10, "linear") == pytest.approx(0.5)
    assert rate_factor(99, 100, 10, "constant") == 1.0


def test_the_average_follows_and_gives_the_weights_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    average = MovingAverage([("w", weight)], decay=0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update(step=1000)
    with average.applied():
        torch.testing.assert_close(weight.data, torch.full((3,), 0.1))
    torch.testing.assert_close(weight.data, torch.ones(3))
    copied = MovingAverage([("w", weight)], decay=0.0)
    with torch.no_grad():
        weight.fill_(5.0)
    copied.update(step=0)
    torch.testing.assert_close(copied.state_dict()["w"], torch.full((3,), 5.0))


def _note(text: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "a").write_text(text)

    return fill


def test_a_checkpoint_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "student-0000002"
    checkpoints.write_folder(target, _note("old"))

    def fails(folder: Path) -> None:
        (folder / "a").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write_folder(target, fails)
    assert (target / "a").read_text() == "old"
    # What a kill in the middle of a save leaves behind.
    (tmp_path / "student-0000003.part").mkdir()
    assert checkpoints.find_checkpoint(tmp_path, "student") == target
    assert not (tmp_path / "student-0000003.part").exists()
    for step in (4, 6):
        folder = tmp_path / f"student-{step:07d}"
        checkpoints.write_folder(folder, _note("x"))
    checkpoints.prune_checkpoints(tmp_path, "student", 2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["student-0000004", "student-0000006"]


def test_no_room_is_an_error_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match=r"MiB free and the run needs.*--output-dir"):
        checkpoints.check_room(tmp_path / "new", 1 << 60)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot be written to"):
        checkpoints.check_room(tmp_path / "file" / "out", 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run as another user")
def test_a_folder_without_permission_is_an_error_before_training(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written to"):
        checkpoints.check_room(tmp_path / "out", 0)


def test_a_full_disk_is_one_message_and_the_run_goes_on_later(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """On a real disk of 40 MB, filled after the check has passed."""
    from pfd_iqa_hf.training import engine
    from pfd_iqa_hf.training.run import train

    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("may not mount a small disk: " + mounted.stderr.decode().strip())
    try:
        table = write_rated_pictures(tmp_path / "rated", 12)
        options: dict[str, Any] = {"checkpointing_steps": 1, "validation_share": 0.0}
        filled = engine._State._fill

        def fill_disk(state: engine._State, folder: Path) -> None:
            if state.stage.progress.step == 2 and not (disk / "ballast").exists():
                with open(disk / "ballast", "wb", buffering=0) as file:
                    try:
                        while file.write(bytes(1 << 16)):
                            pass
                    except OSError:
                        pass
            filled(state, folder)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine._State, "_fill", fill_disk)
            with pytest.raises(OSError, match=r"could not be written.*student-0000001"):
                train(tiny_arguments(table, disk / "out", tiny_checkpoint, **options))
        (disk / "ballast").unlink()
        train(tiny_arguments(table, disk / "out", tiny_checkpoint, **options, resume="latest"))
        PfdIqaForImageQualityAssessment.from_pretrained(disk / "out")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_resumed_log_forgets_what_will_be_written_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        log.write("student", step, loss=1 / 3)
    log.write("validation", 2, srcc=0.5)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"stage": "student", "st')  # a kill in the middle of a line
    log.rewind(("student", "validation"), 3)
    assert [(row["stage"], row["step"]) for row in read_log(tmp_path / "log.jsonl")] == [
        ("student", 1),
        ("student", 2),
        ("validation", 2),
    ]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda text: text, {"test_share": 0.8}, "too few"),
        (lambda text: text + "pictures/p00.jpg,5\n", {}, "second time"),
        (lambda text: text + "pictures/none.jpg,5\n", {}, r"none\.jpg.*missing"),
        (lambda text: text.replace("mos", "opinion", 1), {}, "opinion"),
        (lambda text: text, {"score_range": [1.0, 5.0]}, "outside the declared 1 to 5"),
        (lambda text: text, {"triples_per_batch": 1, "pristine_score": 99.0}, "--pristine-score"),
        (lambda text: text, {"photographs": "nowhere"}, "--photographs: no picture in nowhere"),
    ],
)
def test_bad_data_is_named_before_training(
    tmp_path: Path, change: Any, options: dict[str, Any], message: str
) -> None:
    table = write_rated_pictures(tmp_path / "rated", 12)
    table.write_text(change(table.read_text()))
    with pytest.raises((DatasetError, UsageError), match=message):
        load_run_data(tiny_arguments(table, tmp_path / "out", **options))


def test_a_truncated_picture_is_found_or_skipped_before_training(tmp_path: Path) -> None:
    table = write_rated_pictures(tmp_path / "rated", 20)
    picture = table.parent / "pictures" / "p07.jpg"
    picture.write_bytes(picture.read_bytes()[:900])
    with pytest.raises(DatasetError, match=r"p07\.jpg"):
        load_run_data(tiny_arguments(table, tmp_path / "out", check_pictures=True))
    data = load_run_data(
        tiny_arguments(table, tmp_path / "out", check_pictures=True, skip_bad=True)
    )
    assert len(data.table) == 19 and "p07.jpg" in str(data.table.skipped[0])


def test_one_picture_on_both_sides_of_a_split_is_an_error(tmp_path: Path) -> None:
    table = write_rated_pictures(tmp_path / "rated", 20)
    rows = table.read_text().splitlines()
    parts = ["split"] + ["train"] * 14 + ["test"] * 6
    table.write_text("\n".join(f"{row},{part}" for row, part in zip(rows, parts, strict=True)))
    pictures = table.parent / "pictures"
    (pictures / "p19.jpg").write_bytes((pictures / "p02.jpg").read_bytes())
    with pytest.raises(DatasetError, match="identical file content"):
        load_run_data(tiny_arguments(table, tmp_path / "out"))
    data = load_run_data(tiny_arguments(table, tmp_path / "out", drop_near_copies=True))
    assert len(data.recipe.dropped) == 1 and len(data.test) == 6
    assert isinstance(tiny_arguments(table, tmp_path / "out"), TrainArguments)
