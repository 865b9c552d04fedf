"""`pfd-iqa distort --card`: the table and the card of a dataset, and never over an own one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from pfd_iqa_cli.main import WRONG_USAGE, run


@pytest.fixture
def made(photograph: np.ndarray, tmp_path: Path) -> list[str]:
    """A command that degrades one of two pictures: the other one is broken."""
    (tmp_path / "in").mkdir()
    Image.fromarray(photograph[:64, :64]).save(tmp_path / "in" / "a.png")
    wanted = ["--type", "jpeg", "--level", "1", "--level", "5"]
    return ["distort", str(tmp_path / "in"), *wanted, "--output-dir", str(tmp_path / "out")]


def test_the_card_and_the_table_are_written(made: list[str], tmp_path: Path) -> None:
    (tmp_path / "in" / "broken.png").write_bytes(b"broken")
    assert run([*made, "--card", "acme/degraded", "--license", "cc0-1.0"]) == 1
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "cc0-1.0" and card.data.pretty_name == "degraded"
    assert "acme/degraded" in card.text and "2 degraded copies of 1 pictures" in card.text
    rows = list(csv.DictReader((tmp_path / "out" / "metadata.csv").open()))
    assert [row["level"] for row in rows] == ["1", "5"]
    assert all((tmp_path / "out" / row["file_name"]).is_file() for row in rows)


def test_an_own_card_is_kept(
    made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    assert run([*made, "--card", "acme/degraded"]) == 0
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert not (tmp_path / "out" / "metadata.csv").exists()
    assert "README.md was kept" in capsys.readouterr().err


def test_without_the_option_there_are_pictures_alone(made: list[str], tmp_path: Path) -> None:
    assert run(made) == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--card", "a b"], "alphanumeric"),
        (["--license", "cc0-1.0"], "--card"),
    ],
)
def test_wrong_options(
    made: list[str],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*made, *arguments]) == WRONG_USAGE
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert run(["distort", made[1], "--sheet", "s.png", "--card", "acme/x"]) == WRONG_USAGE
