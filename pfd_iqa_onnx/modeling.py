"""The modules of `pfd_iqa_hf.modeling` that need no torch, see `installed`."""

from pfd_iqa_onnx.installed import folders_of

__path__ = folders_of("modeling")
