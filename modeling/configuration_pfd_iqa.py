"""Configuration of PFD-IQA: every choice that the model reads, with the paper's names."""

import difflib
import math
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from .views import VIEW_STRATEGIES

__all__ = ["PfdIqaConfig"]

logger = logging.get_logger(__name__)

_CHOICES: dict[str, tuple[str, ...]] = {
    "text_pooling": ("projection", "mean"),
    "prior_fusion": ("film", "add", "none"),
    "noise_alignment": ("mix", "none"),
    "condition_source": ("both", "distortion", "quality", "none"),
    "condition_weights": ("soft", "hard"),
    "denoiser": ("unet_lite", "bottleneck", "none"),
    "timestep_spacing": ("fixed_start", "diffkd"),
    "view_strategy": tuple(VIEW_STRATEGIES),
}
_POSITIVE = (
    "text_embed_dim",
    "prior_rank",
    "denoising_width",
    "denoiser_expansion",
    "condition_heads",
    "num_inference_steps",
    "num_train_timesteps",
    "head_queries",
    "head_num_attention_heads",
)
_NOT_NEGATIVE = (
    "kl_loss_weight",
    "diffusion_loss_weight",
    "feature_loss_weight",
    "reconstruction_loss_weight",
    "alignment_loss_weight",
    "deviation_loss_weight",
    "familiarity_directions",
    "familiarity_threshold",
    "uncertainty_view_weight",
    "uncertainty_spread_weight",
)
_OTHER_NUMBERS = (
    "mask_ratio",
    "unmasked_share",
    "prior_temperature",
    "beta_start",
    "beta_end",
    "start_timestep",
    "low_resolution_factor",
)
# What transformers itself writes into a config.json or passes to a constructor.
_FOREIGN_KEYS = frozenset(
    "_attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation "
    "_name_or_path attn_implementation auto_map custom_pipelines experts_implementation "
    "is_encoder_decoder model_type name_or_path num_labels output_attentions "
    "per_layer_config torch_dtype transformers_version trust_remote_code use_cache "
    "quantization_config tie_word_embeddings".split()
)


@strict
class PfdIqaConfig(PreTrainedConfig):
    """Everything that shapes a PFD-IQA model; the defaults are a CLIP pair of base size.

    Args:
        vision_config: Configuration (or its dictionary with `model_type`) of the student's
            backbone; any transformers vision transformer that returns hidden states.
        text_config: Configuration of the text tower that encoded the prompts. The tower itself is
            neither stored nor needed by a saved model.
        text_embed_dim: Width D_text of the prompt embeddings.
        text_pooling: `"projection"` (CLIP's projected end-of-text token) or `"mean"` (normalised
            mean of the text tokens).
        distortion_names: Names of the distortion prompts; the first one means undistorted.
        distortion_template: Prompt of a distortion, `{}` is its name.
        pristine_prompt: Prompt of the first entry of `distortion_names`.
        level_names: Names of the five quality bands, worst first.
        level_template: Prompt of a quality band, `{}` is its name.
        level_borders: Inner borders of the bands in score points; a border belongs to the upper
            band.
        feature_levels: Backbone layers (1 is the first) fused into the student feature (0).
        feature_class_token: Add each level's projected class token (its token mean where a
            backbone has none) to that level's tokens in (0), so that what the whole view shows
            passes through PDA and PDR like everything else.
        prior_discovery: Whether PDA runs; off, priors and condition vanish (ablation).
        prior_rank: Inner width of the two prior generators.
        mask_ratio: Largest share of masked tokens in training, drawn uniformly from 0.
        unmasked_share: Share of the training samples that keep all tokens.
        fusion_masking: In training, as many tokens as are masked for the distortion task, on the
            other side of the grid, are missing from the student feature, so that fusion has to
            bring them from the priors.
        prior_temperature: First value of the learnt temperature of the prompt similarities (3).
        prior_fusion: How the priors modulate the student feature (6).
        condition_source: Which task's prompts condition the denoiser.
        condition_weights: `"soft"` averages prompts by probability (the paper's), `"hard"` takes
            the most probable one (ablation).
        noise_alignment: `"mix"` is DiffKD's adapter (7)-(8), `"none"` leaves it out (ablation).
        denoiser: `"unet_lite"`, `"bottleneck"` (one level, no resampling) or `"none"`.
        denoising_width: Width D' of the denoised feature.
        denoiser_expansion: Inner width of the denoiser's blocks over D'.
        condition_heads: Attention heads from tokens to the condition.
        num_train_timesteps: Length of the noise schedule.
        beta_start: First noise variance of the linear schedule.
        beta_end: Last noise variance of the linear schedule.
        start_timestep: Noise level at which denoising starts.
        timestep_spacing: `"fixed_start"` or `"diffkd"`, see `FeatureDDIMScheduler`.
        num_inference_steps: DDIM steps in training and at test time.
        head_queries: Panel members of the quality decoder.
        head_num_attention_heads: Attention heads of the quality decoder.
        head_class_query: Feed the raw class token to the panel as well; it bypasses the refinement.
        score_range: Lowest and highest score; higher is better.
        view_strategy: View strategy that the image processor of a new model is built with.
        low_resolution_factor: Widening of the uncertainty for pictures that had to be enlarged.
        uncertainty_view_weight: a of (16), weight of the mean view variance.
        uncertainty_spread_weight: b of (16), weight of the variance between views.
        interval_factors: Conformal factors q of (16) by nominal coverage, e.g. `{"0.8": 1.28}`.
        familiarity_directions: Principal directions of the training photographs that the model
            knows, to tell pictures that are unlike them; 0 if it does not tell.
        familiarity_level: Backbone layer (1 is the first) whose class token they belong to.
        familiarity_threshold: Distance beyond which a picture is unfamiliar.
        kl_loss_weight: Weight of (4), pseudo-labels.
        diffusion_loss_weight: Weight of (11), denoising of teacher features.
        feature_loss_weight: Weight of (13), refined student against teacher.
        reconstruction_loss_weight: Weight of the masked reconstruction in (4).
        alignment_loss_weight: Weight of the squared difference of γ (7) from the weight that
            matches the noise level; 0 leaves γ to the other losses, as DiffKD's adapter does.
        deviation_loss_weight: Weight of the Gaussian likelihood of the view deviation (15).

    Raises:
        ValueError: a keyword is unknown or a sub-configuration impossible.
        StrictDataclassError: a value has the wrong type or is impossible (huggingface_hub's
            exception).  Every message names the field.
    """

    model_type = "pfd_iqa"
    # Rebuilt by `model_type` below; `AutoConfig` lets any backbone stand here.
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference = [
        "view_logits",
        "view_deviations",
        "token_values",
        "features",
        "loss_parts",
        "quality_map",
        "hidden_states",
        "attentions",
    ]

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    text_embed_dim: int = 512
    text_pooling: str = "projection"
    distortion_names: list[str] | tuple[str, ...] = (
        "none",
        "jpeg2000 compression",
        "jpeg compression",
        "noise",
        "blur",
        "color",
        "contrast",
        "overexposure",
        "underexposure",
        "spatial",
        "quantization",
        "other",
    )
    distortion_template: str = "a photo with {} artifacts"
    pristine_prompt: str = "a photo without artifacts"
    level_names: list[str] | tuple[str, ...] = ("bad", "poor", "fair", "good", "excellent")
    level_template: str = "a photo with {} quality"
    level_borders: list[int | float] | tuple[int | float, ...] = (20, 40, 60, 80)

    feature_levels: list[int] | tuple[int, ...] = (4, 8, 10, 12)
    feature_class_token: bool = True
    prior_discovery: bool = True
    prior_rank: int = 96
    mask_ratio: int | float = 0.75
    unmasked_share: int | float = 0.25
    fusion_masking: bool = False
    prior_temperature: int | float = 0.07
    prior_fusion: str = "film"
    condition_source: str = "both"
    condition_weights: str = "soft"
    noise_alignment: str = "mix"

    denoiser: str = "unet_lite"
    denoising_width: int = 192
    denoiser_expansion: int = 1
    condition_heads: int = 4
    num_train_timesteps: int = 1000
    beta_start: int | float = 1e-4
    beta_end: int | float = 0.02
    start_timestep: int = 400
    timestep_spacing: str = "fixed_start"
    num_inference_steps: int = 5

    head_queries: int = 6
    head_num_attention_heads: int = 6
    head_class_query: bool = False
    score_range: list[int | float] | tuple[int | float, ...] = (0.0, 100.0)
    view_strategy: str = "standard"
    low_resolution_factor: int | float = 1.5
    uncertainty_view_weight: int | float = 1.0
    uncertainty_spread_weight: int | float = 1.0
    interval_factors: dict[str, int | float] | None = None
    familiarity_directions: int = 0
    familiarity_level: int = 8
    familiarity_threshold: int | float = 0.0

    kl_loss_weight: int | float = 0.2
    diffusion_loss_weight: int | float = 0.3
    feature_loss_weight: int | float = 0.05
    reconstruction_loss_weight: int | float = 0.05
    alignment_loss_weight: int | float = 0.3
    deviation_loss_weight: int | float = 0.01
    initializer_range: int | float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Rebuild the sub-configurations, refuse unknown keywords, hand the rest to the base."""
        if not self.is_remote_code():
            # The installed class needs no code from the repository: without this entry
            # `pipeline(...)` of an exported repository asks for no `trust_remote_code`.
            kwargs.pop("custom_pipelines", None)
        self._refuse_unknown(kwargs)
        for key, default in (
            ("vision_config", "clip_vision_model"),
            ("text_config", "clip_text_model"),
        ):
            value = getattr(self, key)
            if value is None or isinstance(value, dict):
                fields = dict(value or {})
                model_type = fields.pop("model_type", default)
                if model_type not in CONFIG_MAPPING:
                    raise ValueError(f"'{key}': transformers has no model_type {model_type!r}")
                setattr(self, key, AutoConfig.for_model(model_type, **fields))
            elif not isinstance(value, PreTrainedConfig):
                raise ValueError(
                    f"'{key}' must be a configuration or its dictionary, got {value!r}; "
                    "from_vision_text_pretrained builds a model from checkpoints"
                )
            # Where a tower was loaded from is no business of whoever gets the saved model.
            getattr(self, key)._name_or_path = ""
        for name in ("distortion_names", "level_names", "level_borders", "feature_levels"):
            if isinstance(getattr(self, name), tuple):
                setattr(self, name, list(getattr(self, name)))
        if all(isinstance(bound, int | float) for bound in self.score_range):
            self.score_range = [float(bound) for bound in self.score_range]
        kwargs.setdefault("num_labels", 1)
        self.problem_type = "regression"
        super().__post_init__(**kwargs)

    @classmethod
    def _known_keys(cls) -> set[str]:
        return set(cls.__dataclass_fields__) | set(_FOREIGN_KEYS)

    @classmethod
    def _refuse_unknown(cls, kwargs: dict[str, Any]) -> None:
        for key in kwargs:
            if key not in cls._known_keys():
                near = difflib.get_close_matches(key, cls.__dataclass_fields__, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(f"PfdIqaConfig has no field '{key}'{hint}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Like the base class; keys that a newer version wrote are dropped with a warning."""
        if not isinstance(config_dict, dict):
            raise ValueError(f"config.json must hold one object, got {type(config_dict).__name__}")
        unknown = sorted(set(config_dict) - cls._known_keys())
        if unknown:
            logger.warning(
                "config.json has fields that this version of PFD-IQA does not know and leaves out: "
                f"{', '.join(unknown)}"
            )
        known = {key: value for key, value in config_dict.items() if key not in unknown}
        return super().from_dict(known, **kwargs)

    def validate_architecture(self) -> None:
        """Check every field that types alone cannot.

        Raises:
            ValueError: names the field, its value and what would be accepted.
        """
        super().validate_architecture()

        def require(holds: bool, field: str, wish: str) -> None:
            if not holds:
                raise ValueError(f"'{field}' must be {wish}, got {getattr(self, field)!r}")

        for field, choices in _CHOICES.items():
            require(getattr(self, field) in choices, field, f"one of {', '.join(choices)}")
        for field in (*_POSITIVE, *_NOT_NEGATIVE, *_OTHER_NUMBERS):
            require(math.isfinite(getattr(self, field)), field, "a finite number")
        for field in _POSITIVE:
            require(getattr(self, field) > 0, field, "positive")
        for field in _NOT_NEGATIVE:
            value = getattr(self, field)
            require(value >= 0, field, "a number of at least 0")
        for field in ("distortion_names", "level_names"):
            names = getattr(self, field)
            require(len(names) >= 2, field, "at least two names")
            require(len(set(names)) == len(names), field, "without repetition")
        for field in ("distortion_template", "level_template"):
            require(getattr(self, field).count("{}") == 1, field, "a text with one {}")
        for needed in ("hidden_size", "num_hidden_layers", "patch_size", "image_size"):
            require(
                hasattr(self.vision_config, needed), "vision_config", f"a transformer with {needed}"
            )
        layers = int(getattr(self.vision_config, "num_hidden_layers", 0))
        require(bool(self.feature_levels), "feature_levels", "at least one layer")
        require(
            all(1 <= level <= layers for level in self.feature_levels),
            "feature_levels",
            f"layers from 1 to {layers} of the backbone",
        )
        require(
            sorted(set(self.feature_levels)) == list(self.feature_levels),
            "feature_levels",
            "ascending, without repetition",
        )
        width = int(getattr(self.vision_config, "hidden_size", 0))
        if self.familiarity_directions:
            require(
                self.familiarity_directions < width,
                "familiarity_directions",
                f"below the backbone's width ({width})",
            )
            require(
                1 <= self.familiarity_level <= layers,
                "familiarity_level",
                f"a layer from 1 to {layers} of the backbone",
            )
        borders = list(self.level_borders)
        low, high = self.score_range if len(self.score_range) == 2 else (0.0, -1.0)
        require(low < high, "score_range", "two numbers, the lower one first")
        require(
            len(borders) == len(self.level_names) - 1
            and all(a < b for a, b in zip([low, *borders], [*borders, high], strict=True)),
            "level_borders",
            f"{len(self.level_names) - 1} ascending numbers inside the score range",
        )
        require(0 <= self.mask_ratio < 1, "mask_ratio", "from 0 to below 1")
        require(0 <= self.unmasked_share <= 1, "unmasked_share", "from 0 to 1")
        require(self.prior_temperature > 0, "prior_temperature", "positive")
        require(0 < self.beta_start < 1, "beta_start", "between 0 and 1")
        require(self.beta_start <= self.beta_end < 1, "beta_end", "from beta_start to below 1")
        require(
            0 < self.start_timestep < self.num_train_timesteps,
            "start_timestep",
            "between 0 and num_train_timesteps",
        )
        limit = (
            self.start_timestep
            if self.timestep_spacing == "fixed_start"
            else self.num_train_timesteps // 2
        )
        require(self.num_inference_steps <= limit, "num_inference_steps", f"at most {limit}")
        require(self.low_resolution_factor >= 1, "low_resolution_factor", "at least 1")
        for field, divisor in (
            ("condition_heads", self.condition_heads),
            ("head_num_attention_heads", self.head_num_attention_heads),
        ):
            require(
                self.denoising_width % divisor == 0,
                field,
                f"a divisor of denoising_width ({self.denoising_width})",
            )

    @property
    def distortion_prompts(self) -> list[str]:
        """The distortion task's prompts, in the order of `distortion_names`."""
        return [self.pristine_prompt] + [
            self.distortion_template.format(name) for name in self.distortion_names[1:]
        ]

    @property
    def level_prompts(self) -> list[str]:
        """The quality task's prompts, worst first."""
        return [self.level_template.format(name) for name in self.level_names]
