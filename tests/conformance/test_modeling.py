"""transformers' common model tests: what every model of the library promises."""

import unittest
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from pfd_iqa_hf import PfdIqaConfig, PfdIqaForImageQualityAssessment

from .common_tests import import_common_tests

common = import_common_tests("test_modeling_common")


def _incomplete_checkpoints_allowed() -> Any:
    """PFD-IQA refuses them unless told otherwise; these tests are about what the report says."""
    model_class = PfdIqaForImageQualityAssessment
    lenient = partial(model_class.from_pretrained, ignore_missing_weights=True)
    return mock.patch.object(model_class, "from_pretrained", lenient)


class PfdIqaModelTester:
    """A tiny model, and the numbers that the common tests compare its outputs with."""

    batch_size = 2
    num_channels = 3
    image_size = 32
    patch_size = 8
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    # The class token and 4 x 4 patches.
    seq_length = encoder_seq_length = key_length = 17
    is_training = True

    def __init__(self, parent: unittest.TestCase) -> None:
        self.parent = parent

    def get_config(self) -> PfdIqaConfig:
        return PfdIqaConfig(
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": self.hidden_size,
                "intermediate_size": 37,
                "num_hidden_layers": self.num_hidden_layers,
                "num_attention_heads": self.num_attention_heads,
                "image_size": self.image_size,
                "patch_size": self.patch_size,
                "projection_dim": 16,
            },
            text_config={
                "model_type": "clip_text_model",
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "vocab_size": 99,
                "projection_dim": 16,
            },
            text_embed_dim=16,
            feature_levels=[1, 2],
            prior_rank=8,
            denoising_width=24,
            condition_heads=2,
            head_num_attention_heads=2,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[PfdIqaConfig, dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.num_channels, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": torch.rand(shape, generator=generator)}


class PfdIqaModelTest(common.ModelTesterMixin, unittest.TestCase):  # type: ignore[name-defined]
    # The base model runs inside; alone it has no loss, which the training tests ask for.
    all_model_classes = (PfdIqaForImageQualityAssessment,)
    test_resize_embeddings = False
    _is_composite = True

    def setUp(self) -> None:
        self.model_tester = PfdIqaModelTester(self)

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            # Masks and teacher features too: mask token and reconstruction learn from these alone.
            count, tokens = self.model_tester.batch_size, self.model_tester.seq_length - 1
            generator = torch.Generator().manual_seed(1)
            features = torch.randn(
                (count, tokens, self.model_tester.get_config().denoising_width), generator=generator
            )
            inputs |= {
                "labels": torch.linspace(20.0, 80.0, count, device=common.torch_device),
                "token_mask": torch.rand((count, 2, tokens), generator=generator) > 0.5,
                "teacher_features": features,
            }
        return inputs

    def test_correct_missing_keys(self) -> None:
        """A base checkpoint lacks the head, and the report says so."""
        with _incomplete_checkpoints_allowed():
            super().test_correct_missing_keys()

    def test_model_weights_reload_no_missing_tied_weights(self) -> None:
        """Of a checkpoint without any weight every tensor is reported as missing."""
        with _incomplete_checkpoints_allowed():
            super().test_model_weights_reload_no_missing_tied_weights()

    def test_model_get_set_embeddings(self) -> None:
        """The input embedding of a vision model is a convolution, not a table."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            assert isinstance(model.get_input_embeddings(), nn.Module)

    @pytest.mark.skip("the text tower is not part of a saved model")
    def test_sdpa_can_dispatch_composite_models(self) -> None: ...
