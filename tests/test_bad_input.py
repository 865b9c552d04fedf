"""Strange pictures are scored, broken ones are named, and neither costs the others their score."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pfd_iqa_hf import PictureError
from pfd_iqa_hf.scoring.find import FoundPicture, find_pictures
from pfd_iqa_hf.scoring.folder import FolderScorer
from pfd_iqa_hf.scoring.heat_map import heat_map, preview


@pytest.fixture(scope="module")
def scorer(tiny_checkpoint: Path) -> FolderScorer:
    return FolderScorer(str(tiny_checkpoint), "cpu", batch_size=4)


def test_one_run_scores_all_odd_and_names_all_broken_pictures(
    odd_pictures: dict[str, Path],
    broken_pictures: dict[str, tuple[Path, str]],
    tiny_checkpoint: Path,
) -> None:
    # Broken ones first, so that each could spoil what follows.
    paths = [path for path, _ in broken_pictures.values()] + list(odd_pictures.values())
    command = [sys.executable, "-m", "pfd_iqa_cli", "score", "--format", "jsonl"]
    result = subprocess.run(
        [*command, "--model", str(tiny_checkpoint), *map(str, paths)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["path"] for record in records] == [str(path) for path in paths]
    reasons = [reason for _, reason in broken_pictures.values()]
    for record, reason in zip(records, reasons, strict=False):
        assert record["score"] is None and reason in record["error"], record
    for record in records[len(reasons) :]:
        assert record["error"] is None and 0 <= record["score"] <= 100, record
        assert math.isfinite(record["uncertainty"]) and record["width"] and record["height"]


def test_the_pipeline_gives_the_same_reasons_as_one_exception(
    tiny_pipeline: Any, broken_pictures: dict[str, tuple[Path, str]]
) -> None:
    for path, reason in broken_pictures.values():
        with pytest.raises(PictureError, match=reason) as caught:
            tiny_pipeline(str(path))
        assert str(path) in str(caught.value)


def test_odd_pictures_score_in_the_pipeline_with_a_map(
    tiny_pipeline: Any, odd_pictures: dict[str, Path]
) -> None:
    for name, path in odd_pictures.items():
        result = tiny_pipeline(str(path), quality_map=True)
        assert np.isfinite(result["score"]), name
        width, height = (260, 300) if name == "turned.jpg" else Image.open(path).size
        assert result["quality_map"].shape == (height, width), name
        assert np.isfinite(result["quality_map"]).all(), name


def test_storage_does_not_change_the_score(
    tiny_pipeline: Any, odd_pictures: dict[str, Path], photograph: np.ndarray
) -> None:
    def score(source: Any) -> float:
        return float(tiny_pipeline(source)["score"])

    grey = Image.open(odd_pictures["grey.jpg"])
    assert score(odd_pictures["grey.jpg"]) == score(grey.convert("RGB"))
    upright = Image.open(odd_pictures["turned.jpg"]).transpose(Image.Transpose.ROTATE_270)
    assert score(odd_pictures["turned.jpg"]) == score(np.asarray(upright))
    for name in ("profile.png", "broken-profile.png", "animated.png"):
        assert score(odd_pictures[name]) == score(photograph), name
    assert score(odd_pictures["sixteen.png"]) == score(odd_pictures["sixteen.tif"])


def test_a_picture_that_vanishes_on_the_way(scorer: FolderScorer, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 30)).save(tmp_path / name)
    found, _ = find_pictures([tmp_path])
    (tmp_path / "a.png").unlink()
    records = list(scorer.score(found))
    assert "no such file" in records[0]["error"] and records[1]["error"] is None


def test_a_score_that_is_no_number_is_an_error_of_its_picture(
    scorer: FolderScorer, odd_pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = scorer.pipeline._forward

    def broken(inputs: Any, **parameters: Any) -> Any:
        output = forward(inputs, **parameters)
        output["score"] = output["score"].clone()
        output["score"][0] = float("nan")
        return output

    monkeypatch.setattr(scorer.pipeline, "_forward", broken)
    found, _ = find_pictures([odd_pictures["plain.jpg"], odd_pictures["grey.jpg"]])
    first, second = scorer.score(found)
    assert "not a finite number" in first["error"] and first["score"] is None
    assert first["width"] == 300 and second["error"] is None


def test_walks_skip_what_is_no_picture_and_tell_what_is_empty(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("z.JPG", "a.txt", "._z.jpg", "deep/b.webp", "deep/deeper/c.tif", ".hidden/d.png"):
        (tmp_path / name).write_bytes(b"x")
    flat, _ = find_pictures([tmp_path])
    assert [picture.place for picture in flat] == [Path("z.JPG")]
    deep, _ = find_pictures([tmp_path], recursive=True)
    assert [str(p.place) for p in deep] == ["z.JPG", "deep/b.webp", "deep/deeper/c.tif"]
    pattern = str(tmp_path / "**" / "*.tif")
    matches, barren = find_pictures([pattern, tmp_path / ".hidden" / "*.gif"])
    assert [p.path for p in matches] == [str(tmp_path / "deep/deeper/c.tif")] and len(barren) == 1
    assert find_pictures(["gone.jpg"]) == ([FoundPicture("gone.jpg", Path("gone.jpg"))], [])


def test_a_name_that_looks_like_a_pattern_is_a_name_first(tmp_path: Path) -> None:
    for name in ("[a].jpg", "a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    found, _ = find_pictures([tmp_path / "[a].jpg"])
    assert [picture.place.name for picture in found] == ["[a].jpg"]


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (20_000, 50), (300, 260)])
def test_heat_maps_of_any_size_are_bounded(size: tuple[int, int]) -> None:
    small = preview(Image.new("RGB", size, "grey"))
    painted = heat_map(small, np.full((small.height, small.width), 5.0, np.float32))
    assert max(small.size) <= 1600 and max(painted.size) <= 1700
    red, _, blue = painted.getpixel(((painted.width - 1) // 2, 0))  # type: ignore[misc]
    assert red > blue, "a low score is painted red"
