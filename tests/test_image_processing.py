"""The processor's configuration travels with a checkpoint and must decide what the model sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from pfd_iqa_hf import PfdIqaImageProcessor, PictureError
from pfd_iqa_hf.modeling.views import picture_views


def test_values_are_the_normalised_views(photograph: np.ndarray) -> None:
    processor = PfdIqaImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    output = processor(photograph, return_tensors="pt")
    views, _ = picture_views(Image.fromarray(photograph))
    expected = (views / 255.0 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    assert output["pixel_values"].dtype == torch.float32
    assert output["pixel_values"].shape == (1, 5, 3, 224, 224)
    np.testing.assert_allclose(
        output["pixel_values"][0].movedim(1, -1).numpy(), expected, atol=1e-5
    )


def test_every_kind_of_input_gives_the_same_values(photograph: np.ndarray, tmp_path: Path) -> None:
    processor: Any = PfdIqaImageProcessor()
    path = tmp_path / "a.png"
    Image.fromarray(photograph).save(path)
    tensor = torch.from_numpy(photograph).movedim(-1, 0)
    inputs: list[Any] = [photograph, path, str(path), path.read_bytes(), Image.open(path), tensor]
    inputs += [tensor / 255, photograph / 255.0]
    output = processor(inputs, return_tensors="pt")["pixel_values"]
    assert all(torch.equal(values, output[0]) for values in output)
    stack = torch.stack([tensor, tensor])
    assert torch.equal(processor(stack, return_tensors="pt")["pixel_values"], output[:2])


def test_small_pictures_are_marked() -> None:
    pictures = [Image.new("RGB", (300, 223)), Image.new("RGB", (224, 224))]
    output = PfdIqaImageProcessor()(pictures, return_tensors="pt")
    assert output["low_resolution"].tolist() == [True, False]


def test_configuration_survives_saving(tmp_path: Path) -> None:
    processor = PfdIqaImageProcessor(view_strategy="fast", short_side=400, max_pixels=1000)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is PfdIqaImageProcessor
    assert loaded.to_dict() == processor.to_dict()
    with pytest.raises(PictureError, match="over the limit of 1,000"):
        loaded(np.zeros((100, 100, 3), np.uint8))
    output = loaded(np.zeros((10, 100, 3), np.uint8), return_tensors="np")
    assert output["pixel_values"].shape == (1, 2, 3, 224, 224)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("view_strategy", "bogus"),
        ("short_side", 100),
        ("max_pixels", 0),
        ("max_pixels", "many"),
        ("short_side", 512.5),
        ("size", {"height": 224, "width": 200}),
        ("image_mean", [0.5, 0.5]),
        ("image_std", [0.2, 0.2, 0.0]),
        ("rescale_factor", 0.0),
    ],
)
def test_impossible_values_name_their_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        PfdIqaImageProcessor(**{field: value})
    with pytest.raises(ValueError, match=field):
        PfdIqaImageProcessor()(np.zeros((9, 9, 3), np.uint8), **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_mean", "zz"),
        ("image_mean", [0.5, "a", 0.5]),
        ("image_std", [0.2, float("nan"), 0.2]),
        ("rescale_factor", "zz"),
        ("rescale_factor", [1 / 255] * 3),
    ],
)
def test_what_a_configuration_file_may_hold_instead_of_numbers(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        PfdIqaImageProcessor(**{field: value})


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(3, 40, 40).to_sparse(), torch.zeros(3, 40, 40, device="meta")],
    ids=["sparse", "meta"],
)
def test_a_tensor_without_plain_values_is_refused_by_name(tensor: torch.Tensor) -> None:
    with pytest.raises(PictureError, match="dense tensor"):
        PfdIqaImageProcessor()(tensor, return_tensors="pt")
