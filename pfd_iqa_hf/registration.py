"""Tell transformers about PFD-IQA: the Auto classes and the pipeline task."""

from __future__ import annotations

from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.modeling.pipeline_pfd_iqa import ImageQualityAssessmentPipeline

__all__ = ["TASK", "register"]

TASK = "image-quality-assessment"


def register() -> None:
    """Register the classes and the task with transformers; calling it again changes nothing."""
    AutoConfig.register(PfdIqaConfig.model_type, PfdIqaConfig, exist_ok=True)
    AutoModel.register(PfdIqaConfig, PfdIqaForImageQualityAssessment, exist_ok=True)
    AutoImageProcessor.register(
        PfdIqaConfig, image_processor_classes={"pil": PfdIqaImageProcessor}, exist_ok=True
    )
    if TASK in PIPELINE_REGISTRY.get_supported_tasks():
        return
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=ImageQualityAssessmentPipeline,
        # Only classes in transformers' own namespace survive an export of the pipeline.
        pt_model=(AutoModel,),
        default={"model": (str(default_checkpoint()), None)},
        type="image",
    )
    # `Pipeline.save_pretrained` copies this entry into config.json: the default is a path on this
    # machine and must not go with it.
    entry = dict(PIPELINE_REGISTRY.supported_tasks[TASK])
    del entry["default"]
    ImageQualityAssessmentPipeline._registered_impl = {TASK: entry}  # type: ignore[attr-defined]
