"""Pictures unlike the training photographs are told, everywhere a score is, and scores stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf import PfdIqaConfig, PfdIqaForImageQualityAssessment, PfdIqaImageProcessor
from pfd_iqa_hf.data.table import Rating
from pfd_iqa_hf.demo.assess import Assessment
from pfd_iqa_hf.demo.panels import Scale, score_panel
from pfd_iqa_hf.export.onnx_file import export_onnx
from pfd_iqa_hf.hub.repository_folder import build_repository_folder
from pfd_iqa_hf.modeling.familiarity import Familiarity, familiarity_feature, flat_is_unfamiliar
from pfd_iqa_hf.scoring.folder import FolderScorer, load_pipeline
from pfd_iqa_hf.scoring.records import RECORD_FIELDS, make_record
from pfd_iqa_hf.training.average_backbones import average_backbones
from pfd_iqa_hf.training.export import export
from pfd_iqa_hf.training.familiarity import fit_familiarity
from pfd_iqa_onnx import OnnxScorer
from pfd_iqa_onnx.contract import Contract


def _photograph(seed: int, short: int = 40) -> Image.Image:
    """A smooth picture with a little grain."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : short + 8, 0:short] / 9.0
    light = 120 + 70 * np.sin(columns + random.uniform(0, 6)) * np.cos(rows * random.uniform(0, 2))
    values = light[..., None] * random.uniform(0.7, 1, 3) + random.normal(0, 4, (*light.shape, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photographs, and one flat colour."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(60):
        _photograph(number).save(folder / f"{number:02}.png")
    Image.new("RGB", (40, 48), "red").save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def plain() -> PfdIqaForImageQualityAssessment:
    return awake_model(tiny_config(num_inference_steps=2))


@pytest.fixture(scope="module")
def checkpoint(
    pictures: Path,
    plain: PfdIqaForImageQualityAssessment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The plain model, fitted on forty of the photographs."""
    folder = tmp_path_factory.mktemp("fitted") / "model"
    plain.save_pretrained(folder)
    model = PfdIqaForImageQualityAssessment.from_pretrained(folder)
    files = sorted(pictures.glob("[0-9]*.png"))
    ratings = [Rating(file, 50.0) for file in files]
    processor = _processor()
    result = fit_familiarity(model, processor, ratings[:40], ratings[40:], directions=3)
    assert result["pictures"] == 40 and result["held_back"] == 20
    assert 0 < result["median"] < result["threshold"]
    export(model, folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> PfdIqaImageProcessor:
    return PfdIqaImageProcessor(size={"height": 32, "width": 32}, short_side=64)


def test_photographs_from_elsewhere_widen_what_is_familiar(pictures: Path, tmp_path: Path) -> None:
    ratings = [Rating(file, 50.0) for file in sorted(pictures.glob("[0-9]*.png"))]
    elsewhere = []
    for number in range(20):
        elsewhere.append(tmp_path / f"{number:02}.png")
        _photograph(100 + number).point(lambda value: 255 - value // 3).save(elsewhere[-1])
    thresholds = []
    for added in ((), elsewhere):
        model = awake_model(tiny_config(num_inference_steps=2))
        result = fit_familiarity(
            model, _processor(), ratings[:40], ratings[40:], directions=3, photographs=added
        )
        assert result["pictures"] == 40 + len(added) // 2
        far = fitted_distances(model, elsewhere[1::2])
        thresholds.append(float((far > result["threshold"]).float().mean()))
    assert thresholds[0] > thresholds[1] == 0, "none of those passes that the threshold knows"


def fitted_distances(model: PfdIqaForImageQualityAssessment, files: list[Path]) -> torch.Tensor:
    """Distances of pictures, as the pipeline computes them."""
    pixels = [
        _processor()(images=[Image.open(file).convert("RGB")], return_tensors="pt")
        for file in files
    ]
    with torch.no_grad():
        return torch.cat([model(**inputs).familiarity_distance for inputs in pixels])


def test_the_distance_is_that_of_a_normal_law() -> None:
    random = torch.Generator().manual_seed(0)
    scales = torch.tensor([9.0, 4.0, 1.0, 0.2, 0.2])
    samples = torch.randn((4000, 5), generator=random) * scales + 3
    law = Familiarity(5, 3)
    law.fit(samples)
    distances = law(samples)
    assert float(distances.square().mean()) == pytest.approx(2, abs=0.01), "1 inside, 1 outside"
    step = torch.tensor([[9.0, 0, 0, 0, 0], [0, 0, 4.0, 0, 0]]) * 3 + 3
    near, far = law(step).tolist()
    assert near == pytest.approx(3**0.5, rel=0.1) and far == pytest.approx(12 / 3**0.5, rel=0.1)
    with pytest.raises(ValueError, match="4 photographs .* too few for 3 directions"):
        law.fit(samples[:4])


def test_a_picture_is_compared_by_the_mean_of_its_views() -> None:
    tokens = torch.randn(2, 3, 12) * 5 + 1
    centred = tokens - tokens.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(familiarity_feature(tokens), normal.mean(1))


def test_without_it_nothing_is_told(
    plain: PfdIqaForImageQualityAssessment, pictures: Path, tmp_path: Path
) -> None:
    assert not any("familiarity" in name for name in plain.state_dict())
    plain.save_pretrained(tmp_path)
    _processor().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in [name for name in config if name.startswith("familiarity")]:
        del config[name]  # as an earlier version wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    scorer = FolderScorer(str(tmp_path), "cpu")
    assert "unfamiliar" not in scorer.pipeline(str(pictures / "red.png"))
    views = torch.randn(1, 2, 3, 32, 32)
    assert plain(views).familiarity_distance is None


def test_a_flat_colour_is_told_and_photographs_are_not(checkpoint: Path, pictures: Path) -> None:
    assess = load_pipeline(str(checkpoint), device="cpu")
    files = [str(file) for file in sorted(pictures.glob("*.png"))]
    alone: list[dict[str, Any]] = [assess(file) for file in files]
    told = [file for file, result in zip(files, alone, strict=True) if "unfamiliar" in result]
    assert str(pictures / "red.png") in told and len(told) <= 4
    assert alone[-1]["unfamiliar"] is True
    together = assess(files, batch_size=16)
    assert [r.get("unfamiliar") for r in together] == [r.get("unfamiliar") for r in alone]


def test_distances_depend_on_the_picture_alone_and_scores_are_as_before(
    checkpoint: Path, plain: PfdIqaForImageQualityAssessment
) -> None:
    model = PfdIqaForImageQualityAssessment.from_pretrained(checkpoint)
    views = torch.randn(5, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(views)
        single = torch.cat([model(view[None]).familiarity_distance for view in views])
        before = plain(views)
    torch.testing.assert_close(whole.familiarity_distance, single, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.logits, before.logits, rtol=0, atol=0.1)  # stored in fp16
    with torch.no_grad():
        again = model(views, output_quality_map=True, low_resolution=torch.ones(5).bool())
    assert torch.equal(again.familiarity_distance, whole.familiarity_distance)


def test_half_precision_keeps_the_distance(checkpoint: Path) -> None:
    load = PfdIqaForImageQualityAssessment.from_pretrained
    views = torch.randn(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = load(checkpoint)(views).familiarity_distance
        half = load(checkpoint, dtype=torch.bfloat16)(views.bfloat16()).familiarity_distance
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


def test_records_have_it(checkpoint: Path, pictures: Path) -> None:
    from pfd_iqa_hf.scoring.find import find_pictures

    found, _ = find_pictures([pictures / "00.png", pictures / "red.png"])
    records = list(FolderScorer(str(checkpoint), "cpu").score(found))
    assert [record["unfamiliar"] for record in records] == [None, True]
    assert all(tuple(record) == RECORD_FIELDS for record in records)


def test_the_page_says_it_in_words() -> None:
    scale = Scale(["bad", "poor", "fair", "good", "excellent"], [20, 40, 60, 80])
    levels = [{"label": name, "score": 0.2} for name in scale.names]
    result = {"score": 50.0, "label": "fair", "uncertainty": 9.0, "levels": levels}
    result["distortions"] = [{"label": "none", "score": 1.0}]
    for unfamiliar in (True, None):
        record = make_record("a", {"model": "m"}, {**result, "unfamiliar": unfamiliar}, (8, 8))
        page = score_panel(Assessment({"name": "a", **record}, _photograph(0), None), scale)
        assert ("does not look like the photographs" in page) is bool(unfamiliar)


@pytest.mark.slow
def test_onnx_files_tell_it_too(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    file = export_onnx(tmp_path / "model.onnx", str(checkpoint), quality_map=False).path
    scorer = OnnxScorer(file)
    assess = load_pipeline(str(checkpoint), device="cpu")
    assert scorer.contract.familiarity_threshold == assess.model.config.familiarity_threshold
    for name in ("00.png", "17.png", "red.png"):
        ours, theirs = scorer.assess(pictures / name), assess(str(pictures / name))
        assert list(ours) == list(theirs)
        assert ours["score"] == pytest.approx(theirs["score"], abs=0.01)
    assert ours["unfamiliar"] is True
    # The metadata of a file of an earlier version has no such entry.
    values = json.loads(scorer.contract.to_json())
    del values["familiarity_threshold"]
    old = Contract.from_metadata({"pfd_iqa": json.dumps(values)}, "old.onnx")
    assert old.familiarity_threshold is None


def test_a_published_repository_tells_it(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    folder = build_repository_folder(checkpoint, "org/name", tmp_path / "published")
    assert (folder / "familiarity.py").is_file()
    assess = load_pipeline(str(folder), device="cpu")
    assert assess(str(pictures / "red.png"))["unfamiliar"] is True


def test_another_backbone_forgets_it(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    mean = average_backbones([(str(checkpoint), 1.0), (str(other), 1.0)])
    assert mean.familiarity is None and mean.config.familiarity_directions == 0
    export(mean, tmp_path / "mean")
    PfdIqaForImageQualityAssessment.from_pretrained(tmp_path / "mean")


def test_impossible_wishes_are_refused(plain: PfdIqaForImageQualityAssessment) -> None:
    rating = Rating(Path("a.png"), 50.0)
    with pytest.raises(ValueError, match="held-back"):
        fit_familiarity(plain, _processor(), [rating], [])
    with pytest.raises(ValueError, match="false_alarms .* got 1"):
        fit_familiarity(plain, _processor(), [rating], [rating], false_alarms=1)
    with pytest.raises(Exception, match="familiarity_directions"):
        PfdIqaConfig(**{**plain.config.to_dict(), "familiarity_directions": 12})
    with pytest.raises(Exception, match="familiarity_level"):
        fit_familiarity(plain, _processor(), [rating], [rating], directions=3, level=9)
    assert plain.config.familiarity_directions == 0, "a fault leaves the model as it was"


@pytest.mark.parametrize("value", [-2.0, 0.0, 2.5])
def test_one_colour_is_unfamiliar_whatever_its_tokens_say(value: float) -> None:
    flat = torch.full((1, 2, 3, 8, 8), value) + torch.tensor([0.0, 0.3, 0.6])[:, None, None]
    picture = flat.clone()
    picture[0, 1, 2, 3, 3] += 0.1
    distance = flat_is_unfamiliar(torch.ones(2), torch.cat([flat + 0.01, picture]))
    assert distance.tolist() == [100.0, 1.0]
