"""A finished checkpoint as a folder that `from_pretrained` loads."""

from __future__ import annotations

from pathlib import Path

from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.training.checkpoints import save_tensors

__all__ = ["export"]


def export(model: PfdIqaForImageQualityAssessment, folder: Path) -> None:
    """Write weights in fp16, a configuration that asks for fp32, and the image processor.

    Args:
        model: The trained model.
        folder: Made if there is none; files of the same names are replaced, one by one and each
            complete or absent.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.name_or_path = ""
    half = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    beside = folder / "model.safetensors.part"
    save_tensors(beside, half, metadata={"format": "pt"})
    beside.replace(folder / "model.safetensors")
    model.config.save_pretrained(folder)
    processor = PfdIqaImageProcessor(view_strategy=model.config.view_strategy)
    processor.save_pretrained(folder)
