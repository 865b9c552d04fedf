"""A typing error would train another model than the one that was meant."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_models import BACKBONES, TEXT_TOWERS, tiny_config
from transformers import AutoConfig
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from pfd_iqa_hf import PfdIqaConfig

IMPOSSIBLE: list[tuple[str, Any]] = [
    ("text_pooling", "max"),
    ("prior_fusion", "filmm"),
    ("noise_alignment", "always"),
    ("condition_source", "neither"),
    ("condition_weights", "firm"),
    ("denoiser", "unet"),
    ("timestep_spacing", "trailing"),
    ("view_strategy", "nativ"),
    ("text_embed_dim", 0),
    ("prior_rank", -1),
    ("prior_rank", "six"),
    ("denoising_width", 0),
    ("denoiser_expansion", 0),
    ("condition_heads", 3),
    ("head_num_attention_heads", 5),
    ("head_queries", 0),
    ("num_inference_steps", 0),
    ("num_inference_steps", 401),
    ("num_inference_steps", 2.5),
    ("num_train_timesteps", 0),
    ("start_timestep", 0),
    ("start_timestep", 1000),
    ("beta_start", 0.0),
    ("beta_start", math.nan),
    ("beta_end", 1.0),
    ("beta_end", 1e-9),
    ("mask_ratio", 1.0),
    ("mask_ratio", math.nan),
    ("unmasked_share", 1.1),
    ("prior_temperature", 0),
    ("prior_temperature", math.inf),
    ("feature_levels", []),
    ("feature_levels", [0, 1]),
    ("feature_levels", [1, 3]),
    ("feature_levels", [2, 1]),
    ("feature_levels", [1, 1]),
    ("feature_levels", ["1"]),
    ("feature_levels", 2),
    ("distortion_names", ["blur", "blur"]),
    ("distortion_names", ["none"]),
    ("distortion_names", None),
    ("level_names", ["bad"] * 5),
    ("distortion_template", "a blurred photo"),
    ("level_template", "{} and {}"),
    ("level_borders", [20, 40, 60]),
    ("level_borders", [20, 60, 40, 80]),
    ("level_borders", [0, 40, 60, 80]),
    ("level_borders", ["a", 40, 60, 80]),
    ("score_range", [100.0, 0.0]),
    ("score_range", [0.0]),
    ("score_range", "wide"),
    ("low_resolution_factor", 0.5),
    ("low_resolution_factor", math.inf),
    ("uncertainty_view_weight", -1),
    ("uncertainty_spread_weight", math.nan),
    ("interval_factors", [1.28]),
    ("kl_loss_weight", -0.1),
    ("diffusion_loss_weight", math.inf),
    ("feature_loss_weight", math.nan),
    ("reconstruction_loss_weight", "much"),
    ("alignment_loss_weight", -0.5),
    ("deviation_loss_weight", -1),
    ("prior_discovery", "yes"),
    ("head_class_query", 2),
    ("vision_config", {"model_type": "vitt"}),
    ("vision_config", {"model_type": "resnet"}),
    ("vision_config", "openai/clip-vit-base-patch16"),
    ("text_config", {"model_type": "berd"}),
    ("text_config", 3),
]


@pytest.mark.parametrize(("field", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises((ValueError, StrictDataclassError)) as caught:
        tiny_config(**{field: value})
    assert field in str(caught.value)


def test_a_misspelt_field_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="denoising_widht.*denoising_width"):
        tiny_config(denoising_widht=64)
    with pytest.raises(ValueError, match="xyzzy"):
        tiny_config(xyzzy=1)


def test_a_newer_config_json_warns_and_loads(tmp_path: Path) -> None:
    tiny_config(prior_rank=7).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    fields["prior_shape"] = "round"
    path.write_text(json.dumps(fields))
    with CaptureLogger(logging.get_logger(PfdIqaConfig.__module__)) as captured:
        config = AutoConfig.from_pretrained(tmp_path)
    assert "prior_shape" in captured.out
    assert config.prior_rank == 7
    assert not hasattr(config, "prior_shape")


@pytest.mark.parametrize("text", TEXT_TOWERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_families_are_rebuilt_by_model_type(backbone: str, text: str, tmp_path: Path) -> None:
    config = tiny_config(backbone, text)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    for one in (config, loaded):
        assert type(one.vision_config) is type(AutoConfig.for_model(backbone))
        assert type(one.text_config) is type(AutoConfig.for_model(text))
        assert one.vision_config.patch_size == 8
        assert one.text_config.vocab_size == 99
    first, second = config.to_dict(), loaded.to_dict()
    for ours in (first, second):
        ours.pop("transformers_version", None)
        ours.pop("_name_or_path", None)
    assert first == second


def test_a_saved_configuration_contains_no_local_path(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    loaded = PfdIqaConfig.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()


def test_defaults_are_a_clip_pair_and_the_documented_prompts() -> None:
    config: Any = PfdIqaConfig()
    assert config.vision_config.model_type == "clip_vision_model"
    assert config.text_config.model_type == "clip_text_model"
    assert config.level_prompts[0] == "a photo with bad quality"
    assert config.distortion_prompts[:2] == [
        "a photo without artifacts",
        "a photo with jpeg2000 compression artifacts",
    ]
    assert len(config.distortion_prompts) == 12


def test_bounds_themselves_are_allowed() -> None:
    tiny_config(
        mask_ratio=0, unmasked_share=1, low_resolution_factor=1, kl_loss_weight=0, beta_end=1e-4
    )
    tiny_config(num_inference_steps=400)
    tiny_config(timestep_spacing="diffkd", num_inference_steps=500)
