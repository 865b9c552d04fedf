"""Matrix products of inference on an x86 CPU through oneDNN instead of MKL.

PyTorch computes `F.linear` in float32, and the products inside its fused attention in bfloat16,
with MKL, which leaves AVX-512 unused on processors that are not Intel's. oneDNN, which PyTorch
holds as well, uses it and is about twice as fast there. The sums are the same, in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["OneDnnLinear", "cpu_linear", "parts_of_batch", "pictures_at_once"]

# Of more, single intermediate results pass 32 MB; glibc fetches each anew from the system then, and
# its pages cost a tenth of the time.
_VIEWS_AT_ONCE = 20

_ATTRIBUTES: tuple[str, list[Any], str] = ("none", [], "")  # no activation behind the product


class OneDnnLinear(TorchFunctionMode):
    """While entered, the products of dense CPU tensors without gradients are oneDNN's.

    These are `F.linear` in float32, and in bfloat16 attention without a mask, which is computed as
    two products with a softmax between them. Belongs to the thread that enters it and changes
    nothing in a model.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the two functions where that is possible; hand on everything else."""
        kwargs = kwargs or {}
        if func is nn.functional.linear and not kwargs and _replaceable(*args):
            values, weight = args[:2]
            bias = args[2] if len(args) > 2 else None
            return torch.ops.mkldnn._linear_pointwise(values, weight, bias, *_ATTRIBUTES)
        if func is nn.functional.scaled_dot_product_attention and _plain_attention(args, kwargs):
            query, key, value = args
            return _attention(query, key, value, kwargs.get("scale"))
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


def pictures_at_once(pixel_values: torch.Tensor) -> int:
    """How many pictures to run through the model together: on a CPU few, elsewhere all.

    Args:
        pixel_values: Views, (B, V, 3, H, W).
    """
    pictures, views = pixel_values.shape[:2]
    if pixel_values.device.type != "cpu":
        return max(pictures, 1)
    return max(_VIEWS_AT_ONCE // max(views, 1), 1)


def parts_of_batch(
    pixel_values: torch.Tensor, low_resolution: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split a batch into parts of `pictures_at_once`.

    Args:
        pixel_values: Views, (B, V, 3, H, W).
        low_resolution: (B,).
    """
    size = pictures_at_once(pixel_values)
    return zip(pixel_values.split(size), low_resolution.split(size), strict=True)


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


def _plain_attention(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether these are three tensors in bfloat16, with nothing masked or dropped."""
    return (
        len(args) == 3
        and all(_plain(part, torch.bfloat16) and part.dim() == 4 for part in args)
        and kwargs.get("attn_mask") is None
        and not any(kwargs.get(key) for key in ("dropout_p", "is_causal", "enable_gqa"))
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> torch.Tensor:
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    weights = torch.matmul(query * factor, key.transpose(-1, -2)).softmax(-1)
    return torch.matmul(weights, value)


def _plain(tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Dense numbers of a type on the CPU, and no subclass with ideas of its own."""
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.dtype == dtype
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )
