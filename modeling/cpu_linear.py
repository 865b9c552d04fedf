"""Matrix products of inference on an x86 CPU in float32 through oneDNN instead of MKL.

PyTorch computes `F.linear` in float32 with MKL, which leaves AVX-512 unused on processors that are
not Intel's. oneDNN, which PyTorch holds as well, uses it and is about twice as fast there. The sums
are the same, in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["OneDnnLinear", "cpu_linear"]

_ATTRIBUTES: tuple[str, list[Any], str] = ("none", [], "")  # no activation behind the product


class OneDnnLinear(TorchFunctionMode):
    """While entered, `F.linear` of dense float32 CPU tensors without gradients is oneDNN's.

    Belongs to the thread that enters it and changes nothing in a model.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the one function where that is possible; hand on everything else."""
        kwargs = kwargs or {}
        if func is nn.functional.linear and not kwargs and _replaceable(*args):
            values, weight = args[:2]
            bias = args[2] if len(args) > 2 else None
            return torch.ops.mkldnn._linear_pointwise(values, weight, bias, *_ATTRIBUTES)
        return func(*args, **kwargs)


def cpu_linear(model: nn.Module) -> AbstractContextManager[Any]:
    """The context to run a model's inference in: `OneDnnLinear` where it pays, else an empty one.

    It pays on x86 processors with AVX-512. A compiled model is left as it was compiled.
    """
    compiled = (
        hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None
    )
    first = next(model.parameters(), None)
    if compiled or first is None or first.device.type != "cpu" or not _pays():
        return nullcontext()
    return OneDnnLinear()


def _pays() -> bool:
    return bool(
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _replaceable(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> bool:
    return (
        _plain(values)
        and _plain(weight)
        and weight.dim() == 2
        and values.numel() > 0
        and values.dim() > 0
        and values.shape[-1] == weight.shape[1]
        and (
            bias is None
            or (_plain(bias) and bias.shape == weight.shape[:1] and bias.is_contiguous())
        )
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _plain(tensor: torch.Tensor) -> bool:
    """Dense numbers in float32 on the CPU, and no subclass with ideas of its own."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )
