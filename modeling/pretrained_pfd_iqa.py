"""Common ground of the models: start values, loading, and what transformers may do with them."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .configuration_pfd_iqa import PfdIqaConfig

__all__ = ["PfdIqaPreTrainedModel"]


class PfdIqaPreTrainedModel(PreTrainedModel):
    """Common ground of both models: initialisation and what transformers may do with them."""

    config_class = PfdIqaConfig
    base_model_prefix = "pfd_iqa"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["PriorDiscovery", "FeatureUNet", "QualityHead"]
    # Score and deviation are read to a hundredth of a point: bf16 has three digits.
    # (A pattern: some backbones have a part called head too.)
    _keep_in_fp32_modules_strict = ["^head"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            # Unit gain: a fixed small deviation all but ends the priors of such narrow layers.
            init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        for part in (*module.children(), module):
            # Parents come after their children: a zero start of a child's layer is restored here.
            initialize: Any = getattr(part, "initialize_parameters", None)
            if initialize is not None:
                initialize()

    @classmethod
    def from_pretrained(
        cls, *args: Any, ignore_missing_weights: bool = False, **kwargs: Any
    ) -> Any:
        """Like transformers' own, but a checkpoint that does not fit is an error.

        Only safetensors are read; transformers alone would go on to pickled weights.

        Args:
            *args: Folder or Hub id, as usual.
            ignore_missing_weights: Accept missing, unexpected and mismatched tensors; missing ones
                keep their random start.
            **kwargs: As usual; `ignore_mismatched_sizes=True` accepts other shapes alone.

        Raises:
            ValueError: the checkpoint lacks tensors, has foreign ones or other shapes.
            OSError: a folder without config.json, or a weights file that is none.
        """
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        if isinstance(source, str | os.PathLike) and kwargs.get("config") is None:
            folder = os.path.join(source, kwargs.get("subfolder") or "")
            if os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "config.json")):
                raise OSError(f"{folder} holds no config.json: name the checkpoint's folder")
        wanted = kwargs.pop("output_loading_info", False)
        accept_shapes = kwargs.pop("ignore_mismatched_sizes", False)
        kwargs.setdefault("use_safetensors", True)
        kwargs["ignore_mismatched_sizes"] = True  # collected below, with the other faults
        try:
            loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except Exception as error:
            # By its name: the package is not among those that a repository's code may import.
            if type(error).__name__ != "SafetensorError":
                raise
            raise OSError(
                f"{source}: the weights cannot be read ({error}). The file is cut off, or a "
                "pointer of Git LFS instead of it: fetch it again (`git lfs pull`)."
            ) from error
        model, info = loaded
        for part in model.modules():  # loading made parameters anew, all of them trainable
            freeze: Any = getattr(part, "freeze_unread_parameters", None)
            if freeze is not None:
                freeze()
        if not ignore_missing_weights:
            faults = {
                "missing": sorted(info["missing_keys"]),
                "unexpected": sorted(info["unexpected_keys"]),
                "mismatched": [] if accept_shapes else sorted(map(str, info["mismatched_keys"])),
            }
            found = [
                f"{len(keys)} {kind} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
                for kind, keys in faults.items()
                if keys
            ]
            if found:
                raise ValueError(
                    f"{source}: the weights do not fit {cls.__name__}: {'; '.join(found)} tensors. "
                    "Use the matching checkpoint, or pass ignore_missing_weights=True to go on "
                    "with randomly started ones."
                )
        return (model, info) if wanted else model
