"""Masks that mask nothing leave the exported graph; masks that do, and all numbers, stay."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_models import ExportedModel
from onnx import parser

from pfd_iqa_hf.export.attention import without_empty_masks


def _attention(mask: str, floor: str = "{-3e38}", zero: str = "{0}") -> Any:
    """One attention of four positions as PyTorch's translation writes it."""
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        attention (float[b, 4, 8] query, float[b, 4, 8] key) => (float[b, 4, 8] output)
        <bool[4, 4] ones = {mask}, float zero = {zero}, float floor = {floor}, float none = {{0}},
         int64[3] shape = {{1, 4, 4}}>
        {{
            turned = Transpose <perm = [0, 2, 1]> (key)
            wide = Expand (ones, shape)
            mask = Where (wide, zero, floor)
            products = MatMul (query, turned)
            masked = Add (products, mask)
            weights = Softmax <axis = -1> (masked)
            empty = IsNaN (weights)
            guarded = Where (empty, none, weights)
            output = MatMul (guarded, key)
        }}
    """)
    onnx.checker.check_model(model, full_check=True)
    return model


def _run(model: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 3, 4, 8)).astype(np.float32)
    return np.asarray(session.run(None, {"query": query, "key": key})[0])


def _kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_mask_of_ones_and_its_guard_go() -> None:
    model = _attention("{" + ", ".join(["1"] * 16) + "}")
    expected = _run(model)
    assert without_empty_masks(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert _kinds(model) == {"Transpose": 1, "MatMul": 2, "Softmax": 1}
    assert not model.graph.initializer, "what only the mask needed goes with it"
    np.testing.assert_allclose(_run(model), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {"mask": "{" + ", ".join(["1"] * 12 + ["0"] * 4) + "}"},
        {"mask": "{" + ", ".join(["1"] * 16) + "}", "zero": "{0.5}"},
    ],
    ids=["an empty row", "not zero"],
)
def test_a_mask_that_masks_stays(given: dict[str, str]) -> None:
    model = _attention(**given)
    expected, kinds = _run(model), _kinds(model)
    assert without_empty_masks(model) == 0
    assert _kinds(model) == kinds
    np.testing.assert_array_equal(_run(model), expected)


def test_an_exported_model_has_plain_attention(exported_model: ExportedModel) -> None:
    model = onnx.load(exported_model("fp32").path)
    source = {name: node.op_type for node in model.graph.node for name in node.output}
    softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert softmax and not _kinds(model)["IsNaN"]
    used = {name for node in model.graph.node for name in node.input}
    used.update(output.name for output in model.graph.output)
    assert all(used.intersection(node.output) for node in model.graph.node), "nothing is unused"
    assert "Where" not in {source.get(name) for node in softmax for name in node.input}
