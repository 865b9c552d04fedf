"""oneDNN's matrix products in the pipeline: the same scores, and the model as it was."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import pipeline

from pfd_iqa_hf.modeling import cpu_linear as module
from pfd_iqa_hf.modeling.cpu_linear import OneDnnLinear, cpu_linear
from pfd_iqa_hf.scoring.quality import QualitySettings, quality_settings

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)


def _calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that are asked for, as the mode sees them."""
    seen: list[tuple[int, ...]] = []
    replaceable = module._replaceable

    def noted(*args: torch.Tensor) -> bool:
        answer = replaceable(*args)
        if answer:
            seen.append(tuple(args[0].shape))
        return answer

    monkeypatch.setattr(module, "_replaceable", noted)
    return seen


@needs_onednn
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (2, 1, 3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 5, bias=bias)
    values = torch.randn(*shape)
    with torch.no_grad():
        expected = layer(values)
        with OneDnnLinear():
            found = layer(values)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


@needs_onednn
def test_values_need_not_be_contiguous() -> None:
    layer = nn.Linear(4, 3)
    values = torch.randn(4, 6, 2)
    with torch.no_grad():
        expected = layer(values.permute(2, 1, 0))
        with OneDnnLinear():
            torch.testing.assert_close(layer(values.permute(2, 1, 0)), expected)


@needs_onednn
@pytest.mark.parametrize("kind", ["every second", "one for all", "sparse"])
def test_odd_weights_stay_with_torch(kind: str) -> None:
    weight, bias = torch.randn(4, 3), torch.randn(8)[::2]
    if kind == "one for all":
        bias = torch.randn(1)
    if kind == "sparse":
        weight, bias = weight.to_sparse_csr(), torch.randn(4)
    values = torch.randn(2, 3)
    with torch.no_grad():
        expected = nn.functional.linear(values, weight, bias)
        with OneDnnLinear():
            assert torch.equal(nn.functional.linear(values, weight, bias), expected)


@needs_onednn
def test_what_it_cannot_do_stays_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _calls(monkeypatch)
    layer = nn.Linear(4, 3)
    values = torch.randn(2, 4)
    with OneDnnLinear():
        layer(values).sum().backward()  # gradients
        assert layer.weight.grad is not None
        with torch.no_grad():
            layer(values[:0])
            layer.double()(values.double())
            with torch.autocast("cpu", torch.bfloat16):
                layer.float()(values)
    assert seen == []


def _attentions(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of the attentions that are computed as two products."""
    seen: list[torch.Size] = []
    attention = module._attention

    def noted(*args: Any) -> torch.Tensor:
        seen.append(args[0].shape)
        return attention(*args)

    monkeypatch.setattr(module, "_attention", noted)
    return seen


@needs_onednn
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_in_bfloat16_is_that_of_torch(
    scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _attentions(monkeypatch)
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 9, 3, 8).bfloat16().transpose(1, 2) for _ in range(3))
    with torch.no_grad(), OneDnnLinear():
        found = nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)
    exact = nn.functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), scale=scale
    )
    assert seen == [query.shape] and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, atol=0.02, rtol=0.02)


@needs_onednn
@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.ones(9, 9, dtype=torch.bool).tril()},
        {"dropout_p": 0.5},
        {"dtype": torch.float32},
        {"gradients": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_attention_stays_with_torch(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _attentions(monkeypatch)
    dtype = options.pop("dtype", torch.bfloat16)
    values = torch.randn(2, 3, 9, 8, dtype=dtype)
    with torch.set_grad_enabled(options.pop("gradients", False)), OneDnnLinear():
        nn.functional.scaled_dot_product_attention(values, values, values, **options)
    assert seen == []


@needs_onednn
def test_a_pipeline_scores_the_same_through_it(
    tiny_checkpoint: Path, photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    build: Any = pipeline  # its overloads list transformers' own tasks only
    assess = build("image-quality-assessment", model=str(tiny_checkpoint), device="cpu")
    weights = {name: type(part) for name, part in assess.model.named_modules()}
    monkeypatch.setattr(module, "_pays", lambda: False)
    expected = assess(photograph, quality_map=True)
    monkeypatch.setattr(module, "_pays", lambda: True)
    seen = _calls(monkeypatch)
    found = assess(photograph, quality_map=True)
    assert len(seen) > 20
    assert found["score"] == pytest.approx(expected["score"], abs=1e-3)
    torch.testing.assert_close(
        torch.tensor(found["quality_map"]), torch.tensor(expected["quality_map"]), atol=1e-2, rtol=0
    )
    assert {name: type(part) for name, part in assess.model.named_modules()} == weights


@needs_onednn
def test_it_belongs_to_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _calls(monkeypatch)
    layer = nn.Linear(4, 3)

    def elsewhere() -> None:
        with torch.no_grad():
            layer(torch.randn(2, 4))

    with OneDnnLinear(), torch.no_grad():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen == []
        layer(torch.randn(5, 4))
    assert seen == [(5, 4)]


def test_compiled_models_and_those_elsewhere_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_pays", lambda: True)
    plain, inside = nn.Linear(4, 3), nn.Linear(4, 3)
    assert isinstance(cpu_linear(plain), OneDnnLinear)
    compiled: Any = torch.compile(plain)
    inside.compile()
    for other in (compiled, inside, nn.Linear(4, 3, device="meta")):
        assert not isinstance(cpu_linear(other), OneDnnLinear)
    monkeypatch.setattr(module, "_pays", lambda: False)
    assert not isinstance(cpu_linear(plain), OneDnnLinear)


def test_qualities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("thorough", "standard"):
        assert quality_settings(name) == QualitySettings(name, torch.float32)
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            "pfd_iqa_hf.scoring.quality._has_bfloat16", lambda device, known=native: known
        )
        fast = quality_settings("fast", "cpu")
        assert (fast.views, fast.dtype) == ("fast", dtype)
    with pytest.raises(ValueError, match="standard, fast"):
        quality_settings("best")
