"""Plain attention in an exported graph: no mask where nothing is masked, no guard against its rows.

While transformers is traced it builds a mask of ones for its attention, and PyTorch's translation
replaces the NaN of rows in which everything is masked. Neither changes a number when no position is
masked, and together they take a tenth of the time.
"""

from __future__ import annotations

from typing import Any

__all__ = ["without_empty_masks"]

_SCORES = ("MatMul", "Mul", "Div")
_SAME_VALUES = ("Expand", "Reshape", "Unsqueeze", "Squeeze", "Identity")


def without_empty_masks(model: Any) -> int:
    """Take masks that mask nothing, and the guards behind them, out of a graph.

    Args:
        model: An `onnx.ModelProto`; changed in place.

    Returns:
        How many attentions were made plain.
    """
    graph = model.graph
    constants = {entry.name: entry for entry in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    instead: dict[str, str] = {}
    plain = set()
    for node in graph.node:
        if node.op_type == "Softmax":
            scores = _without_mask(node.input[0], source, constants)
            if scores != node.input[0]:
                instead[node.input[0]] = scores
            if _is_product(scores, source):
                plain.add(node.output[0])
    guards = {
        node.output[0]: node.input[2]
        for node in graph.node
        if node.op_type == "Where" and node.input[2] in plain and _guards(node, source, constants)
    }
    instead |= guards
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)
    _forget_unused(graph)
    return len(guards)


def _without_mask(name: str, source: dict[str, Any], constants: dict[str, Any]) -> str:
    """The products that scores are, where what is added to them masks nothing; else `name`."""
    node = source.get(name)
    if node is not None and node.op_type == "Add":
        for products, mask in (node.input, reversed(node.input)):
            if _is_product(products, source) and _masks_nothing(mask, source, constants):
                return str(products)
    return name


def _is_product(name: str, source: dict[str, Any]) -> bool:
    return name in source and source[name].op_type in _SCORES


def _guards(where: Any, source: dict[str, Any], constants: dict[str, Any]) -> bool:
    """Whether a node is `Where(IsNaN(weights), 0, weights)`."""
    condition, instead, weights = where.input
    test = source.get(condition)
    is_test = test is not None and test.op_type == "IsNaN" and test.input[0] == weights
    return is_test and _all_are(0, instead, constants)


def _masks_nothing(name: str, source: dict[str, Any], constants: dict[str, Any]) -> bool:
    """Whether values are zeros: stored ones, or chosen by a condition that always holds."""
    name = _origin(name, source)
    if name not in source:
        return _all_are(0, name, constants)
    node = source[name]
    return (
        node.op_type == "Where"
        and _all_are(True, _origin(node.input[0], source), constants)
        and _all_are(0, node.input[1], constants)
    )


def _origin(name: str, source: dict[str, Any]) -> str:
    """Where values come from that are only repeated or reshaped on their way to `name`."""
    while name in source and source[name].op_type in _SAME_VALUES:
        name = source[name].input[0]
    return name


def _all_are(value: float | bool, name: str, constants: dict[str, Any]) -> bool:
    from onnx import numpy_helper

    return name in constants and bool((numpy_helper.to_array(constants[name]) == value).all())


def _forget_unused(graph: Any) -> None:
    """Drop nodes and constants that no output needs any more."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [entry for entry in graph.initializer if entry.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)
