"""PFD-IQA: blind image quality assessment as a Hugging Face model.

Importing the package registers it with transformers:

    import pfd_iqa_hf
    from transformers import pipeline

    assess = pipeline("image-quality-assessment")
    assess("photograph.jpg")["score"]
"""

from importlib.metadata import PackageNotFoundError, version

from pfd_iqa_hf.checkpoint import default_checkpoint
from pfd_iqa_hf.modeling.configuration_pfd_iqa import PfdIqaConfig
from pfd_iqa_hf.modeling.image_processing_pfd_iqa import PfdIqaImageProcessor
from pfd_iqa_hf.modeling.modeling_pfd_iqa import PfdIqaForImageQualityAssessment, PfdIqaModel
from pfd_iqa_hf.modeling.picture_reading import PictureError
from pfd_iqa_hf.modeling.pipeline_pfd_iqa import ImageQualityAssessmentPipeline
from pfd_iqa_hf.modeling.scheduling_feature_ddim import FeatureDDIMScheduler
from pfd_iqa_hf.registration import register

__all__ = [
    "FeatureDDIMScheduler",
    "ImageQualityAssessmentPipeline",
    "PfdIqaConfig",
    "PfdIqaForImageQualityAssessment",
    "PfdIqaImageProcessor",
    "PfdIqaModel",
    "PictureError",
    "__version__",
    "default_checkpoint",
]

try:
    __version__ = version("pfd-iqa-hf")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"

register()
