"""transformers' common image processor tests: what every processor of the library promises."""

import unittest
from typing import Any

import pytest

from pfd_iqa_hf import PfdIqaImageProcessor

from .common_tests import import_common_tests

common = import_common_tests("test_image_processing_common")


class PfdIqaImageProcessingTester(common.ImageProcessingTester):  # type: ignore[name-defined]
    def __init__(self, parent: Any, **kwargs: Any) -> None:
        kwargs.setdefault("size", {"height": 56, "width": 56})
        kwargs.setdefault("short_side", 112)
        kwargs.setdefault("image_mean", [0.5, 0.5, 0.5])
        kwargs.setdefault("image_std", [0.5, 0.5, 0.5])
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"pil": PfdIqaImageProcessor}

    def expected_output_image_shape(self, images: Any) -> tuple[int, ...]:
        return (5, self.num_channels, self.size["height"], self.size["width"])


class PfdIqaImageProcessingTest(common.ImageProcessingTestMixin, unittest.TestCase):  # type: ignore[name-defined]
    image_processor_tester_class = PfdIqaImageProcessingTester
    test_cast_dtype = True

    @pytest.mark.skip("alpha is composited: a PFD-IQA picture always has three channels")
    def test_call_numpy_4_channels(self) -> None: ...

    @pytest.mark.skip("torchvision cannot be installed beside the CPU build of torch")
    def test_new_models_require_torchvision_backend(self) -> None: ...
