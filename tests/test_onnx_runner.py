"""An exported file scores like PyTorch, says what it is, and needs no torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_models import ExportedModel
from PIL import Image

from pfd_iqa_hf.export.agreement import TOLERANCES, check_agreement
from pfd_iqa_hf.export.graph import ScoreGraph
from pfd_iqa_hf.scoring.find import find_pictures
from pfd_iqa_hf.scoring.folder import FolderScorer
from pfd_iqa_hf.scoring.records import RECORD_FIELDS
from pfd_iqa_onnx import Contract, ModelFileError, OnnxScorer, PictureError
from pfd_iqa_onnx.contract import METADATA_KEY

PRECISIONS = ("fp32", "fp16", "int8")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of every layout of views, and one that is none."""
    folder = tmp_path_factory.mktemp("shapes")
    whole = Image.fromarray(photograph)
    sizes = [(300, 260), (260, 300), (900, 280), (280, 900), (90, 120), (1500, 1100), (224, 224)]
    for number, size in enumerate(sizes):
        whole.resize(size).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def torch_scorer(short_checkpoint: Path) -> FolderScorer:
    return FolderScorer(str(short_checkpoint), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_records_are_those_of_pytorch(
    precision: str,
    batch_size: int,
    exported_model: ExportedModel,
    torch_scorer: FolderScorer,
    pictures: Path,
) -> None:
    found, _ = find_pictures([pictures])
    expected = list(torch_scorer.score(found))
    file = exported_model(precision).path
    records = list(OnnxScorer(file, batch_size).score(found))
    # What the tiny random model's precision costs it; uncertainty and map are in points too.
    points = TOLERANCES[precision][1]
    assert len({record["score"] for record in records}) == 8, "seven scores and one failure"
    for record, reference in zip(records, expected, strict=True):
        assert tuple(record) == RECORD_FIELDS
        for field in ("path", "width", "height", "error", "model_sha256", "version"):
            assert record[field] == reference[field], field
        assert record["model"] == str(file)
        if record["error"] is not None:
            assert "not a picture" in record["error"] and record["score"] is None
            continue
        assert record["score"] == pytest.approx(reference["score"], abs=points)
        near_border = abs((reference["score"] + 10) % 20 - 10) <= points  # bands are 20 wide
        assert record["label"] == reference["label"] or near_border
        assert record["uncertainty"] == pytest.approx(reference["uncertainty"], abs=points)
        for field in ("levels", "distortions"):
            shares = [entry["score"] for entry in record[field]]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) == pytest.approx(1, abs=1e-4)
            theirs = {entry["label"]: entry["score"] for entry in reference[field]}
            for entry in record[field]:
                assert entry["score"] == pytest.approx(theirs[entry["label"]], abs=points / 50)


@pytest.mark.slow
def test_other_views_and_the_map_are_those_of_pytorch(
    exported_model: ExportedModel, torch_scorer: FolderScorer, pictures: Path
) -> None:
    file = exported_model("fp32").path
    fast = OnnxScorer(file, view_strategy="fast")
    for name in ("0.png", "2.png", "4.png"):
        ours = fast.assess(pictures / name, quality_map=True)
        theirs = torch_scorer.pipeline(str(pictures / name), view_strategy="fast", quality_map=True)
        assert list(ours) == list(theirs), "the same fields, low_resolution where it applies"
        assert ours["score"] == pytest.approx(theirs["score"], abs=0.01)
        assert ours["quality_map"].shape == theirs["quality_map"].shape
        assert np.abs(ours["quality_map"] - theirs["quality_map"]).max() < 0.05
    assert fast.assess(pictures / "0.png") != OnnxScorer(file).assess(pictures / "0.png")


@pytest.mark.slow
def test_views_are_bit_for_bit_the_image_processors(
    exported_model: ExportedModel, torch_scorer: FolderScorer, pictures: Path
) -> None:
    scorer = OnnxScorer(exported_model("fp32").path)
    processor: Any = torch_scorer.pipeline.image_processor
    for name in ("1.png", "3.png", "4.png", "5.png"):
        with Image.open(pictures / name) as picture:
            ours = scorer.inputs(picture)
            theirs = processor(picture, return_tensors="np")
        assert np.array_equal(ours["pixel_values"], theirs["pixel_values"][0])
        assert ours["low_resolution"] == theirs["low_resolution"][0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_says_what_it_is(
    precision: str,
    exported_model: ExportedModel,
    torch_scorer: FolderScorer,
    short_checkpoint: Path,
) -> None:
    exported = exported_model(precision)
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"], "one file"
    assert exported.size == exported.path.stat().st_size
    model = onnx.load(str(exported.path))
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    contract = json.loads(metadata[METADATA_KEY])
    config: Any = torch_scorer.pipeline.model.config
    processor: Any = torch_scorer.pipeline.image_processor
    assert contract["precision"] == precision
    assert (contract["view_strategy"], contract["views"]) == ("standard", 5)
    assert contract["view_size"] == processor.size["height"]
    for field in ("short_side", "max_pixels", "rescale_factor"):
        assert contract[field] == getattr(processor, field), field
    assert contract["image_mean"] == list(processor.image_mean)
    assert contract["image_std"] == list(processor.image_std)
    for field in ("level_names", "level_borders", "distortion_names", "score_range"):
        assert contract[field] == list(getattr(config, field)), field
    assert contract["interval_factors"] == config.interval_factors
    assert contract["model"] == short_checkpoint.name, "no path of this machine"
    data = exported.path.read_bytes()
    for private in (str(ROOT), str(short_checkpoint.parent), "site-packages"):
        assert private.encode() not in data
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    pixel_values = shapes["pixel_values"]
    assert pixel_values[2:] == [3, 224, 224] and all(isinstance(n, str) for n in pixel_values[:2])
    assert shapes["score"] == pixel_values[:1] and shapes["levels"][1] == 5


@pytest.mark.slow
def test_a_smaller_precision_is_a_smaller_file(exported_model: ExportedModel) -> None:
    whole = exported_model("fp32")
    for precision in ("fp16", "int8"):
        exported = exported_model(precision)
        weights = [entry.data_type for entry in onnx.load(str(exported.path)).graph.initializer]
        kind = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
        assert exported.size < whole.size and kind in weights


@pytest.mark.slow
def test_a_file_of_another_model_is_noticed(exported_model: ExportedModel) -> None:
    from conftest import _tiny_config
    from tiny_models import awake_model

    scorer = OnnxScorer(exported_model("fp32").path)
    with pytest.raises(ModelFileError, match="differ from PyTorch's by .* if that was it"):
        check_agreement(ScoreGraph(awake_model(_tiny_config())).eval(), scorer, "x.onnx")


@pytest.mark.slow
def test_a_score_that_is_no_number_is_an_error_of_its_picture(
    exported_model: ExportedModel, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = OnnxScorer(exported_model("fp32").path)
    run = scorer.run_inputs

    def broken(inputs: Any, with_map: bool = False) -> Any:
        outputs = run(inputs, with_map)
        outputs[0]["score"] = np.array(np.nan, np.float32)
        return outputs

    monkeypatch.setattr(scorer, "run_inputs", broken)
    found, _ = find_pictures([pictures / "0.png", pictures / "1.png"])
    first, second = scorer.score(found)
    assert "not a finite number" in first["error"] and first["score"] is None
    assert first["width"] == 300 and second["error"] is None
    with pytest.raises(PictureError, match="0.png: the model's score is not"):
        scorer.assess(pictures / "0.png")


@pytest.mark.slow
def test_every_kind_of_picture(
    exported_model: ExportedModel,
    odd_pictures: dict[str, Path],
    broken_pictures: dict[str, tuple[Path, str]],
) -> None:
    scorer = OnnxScorer(exported_model("fp32").path)
    found, _ = find_pictures([str(path) for path in odd_pictures.values()])
    assert [r["error"] for r in scorer.score(found)] == [None] * len(odd_pictures)
    found, _ = find_pictures([str(path) for path, _ in broken_pictures.values()])
    for record, (_, reason) in zip(scorer.score(found), broken_pictures.values(), strict=True):
        assert reason in record["error"] and record["score"] is None


def _rewritten(change: Callable[[onnx.ModelProto], None]) -> Callable[[bytes], bytes]:
    def _write(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        change(model)
        return model.SerializeToString()

    return _write


def _drop_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def _newer(model: onnx.ModelProto) -> None:
    onnx.helper.set_model_props(model, {METADATA_KEY: '{"format": 99}'})


def _damaged(model: onnx.ModelProto) -> None:
    onnx.helper.set_model_props(model, {METADATA_KEY: '{"format": 1, "views": 5}'})


def _other_size(model: onnx.ModelProto) -> None:
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = json.dumps({**json.loads(entry.value), "view_size": 999})


def _other_model(data: bytes) -> bytes:
    value = onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["pixel_values"], ["logits"])
    graph = onnx.helper.make_graph([node], "other", [value], [result])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    original = onnx.ModelProto.FromString(data).metadata_props
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in original})
    return model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "cannot load it"),
        (lambda data: b"This is no model.", "cannot load it"),
        (lambda data: data[: len(data) // 2], "cannot load it"),
        (_rewritten(_drop_metadata), "of another model than PFD-IQA"),
        (_rewritten(_newer), "is of format 99, this version reads 1; install"),
        (_rewritten(_damaged), "its metadata is damaged"),
        (_rewritten(_other_size), "tell of views of 999 x 999, its graph takes"),
        (_other_model, "inputs and outputs are not those"),
    ],
    ids=["empty", "text", "half", "no metadata", "newer", "damaged", "size", "another graph"],
)
def test_a_file_that_is_no_model_is_one_line(
    spoil: Callable[[bytes], bytes], reason: str, exported_model: ExportedModel, tmp_path: Path
) -> None:
    file = tmp_path / "spoilt.onnx"
    file.write_bytes(spoil(exported_model("fp32").path.read_bytes()))
    with pytest.raises(ModelFileError, match=reason) as caught:
        OnnxScorer(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_missing_files_and_wrong_views(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.onnx", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(ModelFileError, match=reason):
            OnnxScorer(path)
    with pytest.raises(ModelFileError, match="another model"):
        Contract.from_metadata({"other": "1"}, "x.onnx")


@pytest.mark.slow
def test_neither_torch_nor_transformers_is_needed(
    exported_model: ExportedModel, pictures: Path
) -> None:
    # Forbidden modules rather than looked for: an import that is caught somewhere would hide.
    heavy = ("torch", "transformers", "diffusers", "safetensors", "onnx", "typer", "rich", "scipy")
    code = (
        "import sys\n"
        f"for name in {heavy}: sys.modules[name] = None\n"
        "from pfd_iqa_onnx.__main__ import main\n"
        f"code = main(['--model', {str(exported_model('fp32').path)!r}, {str(pictures)!r}])\n"
        "assert 'pfd_iqa_hf' not in sys.modules\n"
        "sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["error"] is None for record in records] == [True] * 7 + [False]
    assert all(tuple(record) == RECORD_FIELDS for record in records)
