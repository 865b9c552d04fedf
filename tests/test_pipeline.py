"""Way one into the package: `pipeline("image-quality-assessment")`."""

import functools
import http.server
import json
import pickle
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers import pipeline as _pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

import pfd_iqa_hf
from pfd_iqa_hf import PictureError
from pfd_iqa_hf.registration import register

TASK = "image-quality-assessment"
pipeline: Any = _pipeline  # its annotations list transformers' own tasks only


@pytest.fixture(scope="module")
def files(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(7):
        noisy = photograph + rng.normal(0, 8 * index, photograph.shape)
        cut = np.clip(noisy, 0, 255).astype(np.uint8)[: 260 - 20 * index]
        paths.append(folder / f"{index}.png")
        Image.fromarray(cut).save(paths[-1])
    return paths


def test_result_is_one_dictionary_with_the_promised_keys(
    tiny_pipeline: Any, photograph: np.ndarray
) -> None:
    result = tiny_pipeline(photograph)
    assert list(result) == ["score", "label", "uncertainty", "levels", "distortions"]
    json.dumps(result)
    assert 0 <= result["score"] <= 100 and result["uncertainty"] > 0
    bands = ["bad", "poor", "fair", "good", "excellent"]
    assert result["label"] == bands[min(int(result["score"] // 20), 4)]
    for key, count in (("levels", 5), ("distortions", 12)):
        scores = [entry["score"] for entry in result[key]]
        assert len(scores) == count and scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-4)
        assert all(set(entry) == {"label", "score"} for entry in result[key])
    assert {entry["label"] for entry in result["levels"]} == set(bands)


@pytest.mark.parametrize(
    ("score", "label"),
    [(0, "bad"), (19.99, "bad"), (20, "poor"), (40, "fair"), (60, "good"), (80, "excellent")]
    + [(100, "excellent")],
)
def test_a_border_belongs_to_the_upper_band(tiny_pipeline: Any, score: float, label: str) -> None:
    outputs = {
        "score": torch.tensor([float(score)]),
        "uncertainty": torch.ones(1),
        "levels": torch.full((1, 5), 0.2),
        "distortions": torch.full((1, 12), 1 / 12),
        "quality_map": None,
        "low_resolution": torch.tensor([False]),
        "picture": {"name": "x", "size": (1, 1), "view_strategy": "standard"},
    }
    assert tiny_pipeline.postprocess(outputs)["label"] == label


def test_the_score_is_a_function_of_the_picture(tiny_pipeline: Any, files: list[Path]) -> None:
    names = [str(file) for file in files]
    alone = [tiny_pipeline(name)["score"] for name in names]
    assert max(alone) - min(alone) > 0.1, "a constant score would prove nothing"
    together = [result["score"] for result in tiny_pipeline(names, batch_size=32)]
    backwards = [result["score"] for result in tiny_pipeline(names[::-1], batch_size=3)][::-1]
    many = [r["score"] for r in tiny_pipeline((names * 5)[:32], batch_size=32)][: len(names)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        other_threads = [result["score"] for result in tiny_pipeline(names)]
    finally:
        torch.set_num_threads(threads)
    for scores in (together, backwards, many, other_threads):
        np.testing.assert_allclose(scores, alone, atol=0.01)


def test_every_kind_of_input(tiny_pipeline: Any, files: list[Path]) -> None:
    path = files[0]
    pixels = np.asarray(Image.open(path))
    tensor = torch.from_numpy(pixels.copy()).movedim(-1, 0)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
        inputs = [str(path), path, path.read_bytes(), Image.open(path), pixels, tensor, address]
        private = {"allow_private_addresses": True}
        scores = [tiny_pipeline(entry, **private)["score"] for entry in inputs]
        with pytest.raises(PictureError, match="nothing.png: cannot be downloaded"):
            tiny_pipeline(address.replace(path.name, "nothing.png"), **private)
        with pytest.raises(PictureError, match="private address .* pass allow_private_addresses"):
            tiny_pipeline(address)
        server.shutdown()
    np.testing.assert_allclose(scores, scores[0], atol=1e-4)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"what?\r\n\r\n", "cannot be downloaded"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n",
            "more than the limit of 268,435,4",
        ),
        (b"HTTP/1.1 302 Away\r\nLocation: ftp://127.0.0.1/x.png\r\n\r\n", "redirected"),
        (b"", "takes longer than 0.5 s; raise timeout"),
    ],
    ids=["no http", "large", "ftp", "silent"],
)
def test_what_servers_answer_is_an_error_of_the_picture(
    answer: bytes, reason: str, tiny_pipeline: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)
                over.wait(30 if not answer else 0)

        over = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.png"
        options = {"allow_private_addresses": True, "timeout": 20 if answer else 0.5}
        with pytest.raises(PictureError, match=reason) as told:
            tiny_pipeline(address, **options)
        over.set()
    assert told.value.source == address and told.value.remedy


def test_lists_generators_and_datasets(tiny_pipeline: Any, files: list[Path]) -> None:
    names = [str(file) for file in files]
    expected = [result["score"] for result in tiny_pipeline(names)]
    dataset = Dataset.from_dict({"image": names}).cast_column("image", ImageFeature())
    streams = {
        "tuple": tiny_pipeline(tuple(names)),
        "generator": tiny_pipeline((name for name in names), batch_size=4),
        "KeyDataset": tiny_pipeline(KeyDataset(dataset, "image"), batch_size=3),
        "column": tiny_pipeline(dataset["image"], batch_size=2),
    }
    for kind, stream in streams.items():
        scores = [result["score"] for result in stream]
        np.testing.assert_allclose(scores, expected, atol=0.01, err_msg=kind)
    assert tiny_pipeline([]) == []
    assert isinstance(tiny_pipeline(dataset["image"]), list)
    assert tiny_pipeline(dataset.select([])["image"]) == []


def test_quality_map_covers_the_whole_picture(tiny_pipeline: Any, files: list[Path]) -> None:
    results = tiny_pipeline([str(file) for file in files[:3]], quality_map=True, batch_size=2)
    for file, result in zip(files, results, strict=False):
        width, height = Image.open(file).size
        values = result["quality_map"]
        assert values.shape == (height, width) and values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 100


def test_low_resolution_is_told(tiny_pipeline: Any) -> None:
    assert tiny_pipeline(Image.new("RGB", (223, 300)))["low_resolution"] is True


def test_options_of_a_call(tiny_pipeline: Any, photograph: np.ndarray) -> None:
    standard = tiny_pipeline(photograph)["score"]
    assert tiny_pipeline(photograph, view_strategy="fast")["score"] != standard
    with pytest.raises(ValueError, match="view_strategy"):
        tiny_pipeline(photograph, view_strategy="bogus")
    with pytest.raises(PictureError, match="over the limit"):
        tiny_pipeline(photograph, max_pixels=10)
    assert tiny_pipeline(photograph)["score"] == standard


def test_impossible_options_of_a_call_are_named(tiny_pipeline: Any, photograph: np.ndarray) -> None:
    for option in (
        *({"quality_map": "no"}, {"explain": 1}, {"max_pixels": -1}, {"max_pixels": "many"}),
        *({"timeout": 0}, {"timeout": True}),
    ):
        with pytest.raises(ValueError, match=next(iter(option))):
            tiny_pipeline(photograph, **option)


def test_a_score_that_is_no_number_names_the_picture(
    tiny_pipeline: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tiny_pipeline._forward

    def broken(inputs: Any, **parameters: Any) -> Any:
        output = forward(inputs, **parameters)
        output["score"] = output["score"] * float("nan")
        return output

    monkeypatch.setattr(tiny_pipeline, "_forward", broken)
    with pytest.raises(PictureError, match="0.png: the model's score is not a finite number"):
        tiny_pipeline(str(files[0]))


def test_errors_cross_process_borders() -> None:
    error = pickle.loads(pickle.dumps(PictureError("a.jpg", "is bad", "do better")))
    assert (error.source, error.reason, error.remedy) == ("a.jpg", "is bad", "do better")
    assert str(error) == "a.jpg: is bad; do better"


def test_auto_classes_know_the_model(tiny_checkpoint: Path) -> None:
    model = AutoModel.from_pretrained(tiny_checkpoint)
    assert isinstance(model, pfd_iqa_hf.PfdIqaForImageQualityAssessment)
    assert type(AutoConfig.from_pretrained(tiny_checkpoint)) is pfd_iqa_hf.PfdIqaConfig
    processor = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    assert type(processor) is pfd_iqa_hf.PfdIqaImageProcessor


def test_half_precision_files_compute_in_single(
    tiny_checkpoint: Path, photograph: np.ndarray, tmp_path: Path
) -> None:
    model = AutoModel.from_pretrained(tiny_checkpoint).half()
    model.save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["dtype"] = "float32"  # as the shipped file says
    (tmp_path / "config.json").write_text(json.dumps(config))
    assess = pipeline(TASK, model=str(tmp_path), device="cpu")
    # Whether pipeline() leaves the choice to the file ("auto") or not: never half.
    for loaded in (assess.model, AutoModel.from_pretrained(tmp_path)):
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert np.isfinite(assess(photograph)["score"])


def test_no_saved_configuration_holds_a_local_path(
    tiny_pipeline: Any, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tiny_pipeline.save_pretrained(tmp_path)
    again = pipeline(TASK, model=str(tmp_path), device="cpu")
    again.save_pretrained(tmp_path / "again")
    again.model.save_pretrained(tmp_path / "bare")
    for file in tmp_path.rglob("*.json"):
        text = file.read_text()
        for place in (tiny_checkpoint, tmp_path, pfd_iqa_hf.default_checkpoint().parent.parent):
            assert str(place) not in text, file
    assert (
        "default"
        not in json.loads((tmp_path / "config.json").read_text())["custom_pipelines"][TASK]
    )


def test_the_task_is_registered_once_with_the_bundled_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = PIPELINE_REGISTRY.supported_tasks[TASK]
    register()
    assert PIPELINE_REGISTRY.supported_tasks[TASK] is before and not caplog.records
    assert before["default"]["model"][0] == str(pfd_iqa_hf.default_checkpoint())


def test_the_bundled_model_needs_no_name(photograph: np.ndarray) -> None:
    if not (pfd_iqa_hf.default_checkpoint() / "model.safetensors").exists():
        pytest.skip("no checkpoint in this checkout")
    assess = pipeline(TASK, device="cpu")
    assert next(assess.model.parameters()).dtype == torch.float32
    assert 0 <= assess(photograph)["score"] <= 100
