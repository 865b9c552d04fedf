"""PFD-IQA: wires backbone, PDA, PDR and head; every box of the paper's figure is a sibling file.

| letter | meaning |
|---|---|
| B | pictures |
| V | views of a picture |
| R | rows of the flattened batch, B·V |
| N | tokens of a view |
| D, D' | width of the student feature, of the denoised feature |
| K_d, K_q | prompts of the distortion task, of the quality task |

Equation numbers are those of `docs/method.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from .checkpoint_pair import load_pair
from .configuration_pfd_iqa import PfdIqaConfig
from .counterfactuals import distortion_costs
from .familiarity import Familiarity, familiarity_feature, flat_is_unfamiliar
from .feature_unet import FeatureUNet
from .model_losses import method_losses, opinion_losses
from .noise_alignment import NoiseAlignment, PriorFusion
from .outputs import PfdIqaFeatures, PfdIqaOutput, in_declared_order
from .pretrained_pfd_iqa import PfdIqaPreTrainedModel
from .prior_discovery import PriorDiscovery
from .prompt_aggregation import PromptAggregation, centred_prompts
from .quality_head import QualityHead, level_probabilities
from .scheduling_feature_ddim import FeatureDDIMScheduler
from .text_prompts import check_prompt_fields, load_text_tower, prompt_embeddings

__all__ = [
    "BYPASSES",
    "PfdIqaFeatures",
    "PfdIqaForImageQualityAssessment",
    "PfdIqaModel",
    "PfdIqaOutput",
    "PfdIqaPreTrainedModel",
]

BYPASSES = ("condition", "fusion", "alignment", "denoising")


class PfdIqaModel(PfdIqaPreTrainedModel):
    """Backbone, prior discovery and aggregation (PDA), diffusion refinement (PDR).

    Args:
        config: The configuration; the backbone is built from `config.vision_config`.
    """

    distortion_prompts: torch.Tensor
    quality_prompts: torch.Tensor
    latents: torch.Tensor

    def __init__(self, config: PfdIqaConfig) -> None:
        super().__init__(config)
        vision_config: Any = config.vision_config
        self.vision_model: Any = AutoModel.from_config(vision_config)
        self.freeze_unread_parameters()
        width, target = vision_config.hidden_size, config.denoising_width
        patch, side = vision_config.patch_size, vision_config.image_size
        self.patch_size = (patch, patch) if isinstance(patch, int) else tuple(patch)
        image_size = (side, side) if isinstance(side, int) else tuple(side)
        self.native_grid = (
            image_size[0] // self.patch_size[0],
            image_size[1] // self.patch_size[1],
        )
        levels = len(config.feature_levels)
        self.level_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(levels))
        self.level_projections = nn.ModuleList(nn.Linear(width, width) for _ in range(levels))
        self.class_projections: nn.ModuleList | None = None
        if config.feature_class_token:
            self.class_projections = nn.ModuleList(
                nn.Linear(width, width, bias=False) for _ in range(levels)
            )
        self.level_weights = nn.Parameter(torch.zeros(levels))
        self.feature_norm = nn.LayerNorm(width)

        self.register_buffer(
            "distortion_prompts", torch.zeros(len(config.distortion_names), config.text_embed_dim)
        )
        self.register_buffer(
            "quality_prompts", torch.zeros(len(config.level_names), config.text_embed_dim)
        )
        self.has_priors = config.prior_discovery
        if self.has_priors:
            task = (
                width,
                config.prior_rank,
                config.text_embed_dim,
                target,
                float(config.prior_temperature),
            )
            self.distortion_task = PriorDiscovery(*task)
            self.quality_task = PriorDiscovery(*task)
        self.has_denoiser = config.denoiser != "none"
        self.fusion: PriorFusion | None = None
        if self.has_priors and config.prior_fusion != "none":
            self.fusion = PriorFusion(width, config.prior_rank, config.prior_fusion)
        if self.has_priors and self.has_denoiser:
            self.aggregation = PromptAggregation(
                config.text_embed_dim, target, config.condition_source, config.condition_weights
            )
        self.alignment = NoiseAlignment(
            width, target, config.prior_rank, self.has_denoiser and config.noise_alignment == "mix"
        )
        if self.has_denoiser:
            self.denoiser = FeatureUNet(
                target,
                config.denoiser_expansion,
                config.condition_heads,
                levels=2 if config.denoiser == "unet_lite" else 1,
            )
            # ε of (8) at test time: stored, so that a score depends on the picture alone.
            self.register_buffer(
                "latents", torch.zeros(1, self.native_grid[0] * self.native_grid[1], target)
            )
        self.scheduler = FeatureDDIMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_start=float(config.beta_start),
            beta_end=float(config.beta_end),
            start_timestep=config.start_timestep,
            timestep_spacing=config.timestep_spacing,
        )
        self._fill_buffers()
        self.post_init()

    def freeze_unread_parameters(self) -> None:
        """What no forward pass reads gets no gradient: distributed training would wait for it."""
        last = self.config.feature_levels[-1]
        for name, parameter in self.vision_model.named_parameters():
            parts = name.split(".")
            numbers = [int(part) for part in parts if part.isdigit()]
            in_layer = bool(numbers) and ("layer" in parts or "layers" in parts)
            unread = (
                numbers[0] >= last
                if in_layer
                else "embeddings" not in parts and "pre_layrnorm" not in parts
            )
            if unread or "mask_token" in parts:
                parameter.requires_grad_(False)

    def initialize_parameters(self) -> None:
        """Start values of the tensors that belong to no layer; stand-ins for prompts and ε."""
        init.zeros_(self.level_weights)
        self._fill_buffers()

    @torch.no_grad()
    def _fill_buffers(self) -> None:
        """Fixed stand-ins, the same in every new model: unit prompts and ε."""
        generator = torch.Generator(device="cpu").manual_seed(2401)
        for name in ("distortion_prompts", "quality_prompts", "latents"):
            buffer = getattr(self, name, None)
            if buffer is None:
                continue
            values = torch.randn(buffer.shape, generator=generator, device="cpu")
            if name != "latents":
                values = centred_prompts(values)
            init.copy_(buffer, values.to(buffer.dtype))

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's patch embedding."""
        return self.vision_model.get_input_embeddings()

    def student_feature(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], Any]:
        """(0): several levels of the backbone fused on the token grid.

        Args:
            pixel_values: Normalised views, (R, 3, H, W).
            **kwargs: Passed to the backbone.

        Returns:
            F^s (R, N, D), class token (R, D), the grid (rows, columns) and the backbone's output.
        """
        height, width = pixel_values.shape[-2:]
        grid = (height // self.patch_size[0], width // self.patch_size[1])
        if grid != self.native_grid and self.vision_model.config.model_type != "dinov2":
            kwargs.setdefault("interpolate_pos_encoding", True)  # DINOv2 always does
        kwargs["output_hidden_states"] = True
        output = self.vision_model(pixel_values=pixel_values, **kwargs)
        states = output.hidden_states
        tokens = grid[0] * grid[1]
        weights = self.level_weights.softmax(0)
        feature: Any = None
        shared: Any = None  # what the class tokens add to every token, (R, D)
        for place, level in enumerate(self.config.feature_levels):
            norm, weight = self.level_norms[place], weights[place]
            project: Any = self.level_projections[place]
            state = states[level].to(norm.weight.dtype)
            normed = norm(state)
            # The level's weight goes into the small matrix, not over all tokens.
            part = F.linear(normed, weight * project.weight, weight * project.bias)
            feature = part if feature is None else feature + part
            if self.class_projections is not None:
                # Where there is no class token, the mean is normalised, not the tokens.
                has_one = state.shape[1] > tokens
                class_token = normed[:, 0] if has_one else norm(state.mean(dim=1))
                seen = weight * self.class_projections[place](class_token)
                shared = seen if shared is None else shared + seen
        feature = feature[:, -tokens:]  # (R, N, D): class and register tokens come first
        if shared is not None:
            feature = feature + shared[:, None]
        class_token = _class_token(states[self.config.feature_levels[-1]], tokens)
        return self.feature_norm(feature), class_token, grid, output

    def _latents_for(self, grid: tuple[int, int]) -> torch.Tensor:
        """The stored ε on another grid: nearest neighbours, so that its variance stays one."""
        if grid == self.native_grid:
            return self.latents.float()
        image = self.latents.float().transpose(1, 2).unflatten(2, self.native_grid)
        return F.interpolate(image, size=grid, mode="nearest").flatten(2).transpose(1, 2)

    def denoise(
        self,
        aligned: torch.Tensor,
        grid: tuple[int, int],
        condition: torch.Tensor,
        num_inference_steps: int | None = None,
    ) -> torch.Tensor:
        """(12): DDIM refinement of an aligned feature.

        Args:
            aligned: F̂_T, (R, N, D').
            grid: Rows and columns of the tokens.
            condition: c, (R, 2, D').
            num_inference_steps: Steps; None takes the configured number.

        Returns:
            F̂_0, (R, N, D'), fp32.
        """
        folded = self.denoiser.fold(condition)
        state = aligned.float()
        if num_inference_steps is None:
            num_inference_steps = self.config.num_inference_steps
        for level, previous in self.scheduler.schedule(num_inference_steps):
            timestep = torch.full((1,), float(level), device=state.device)
            velocity = self.denoiser(state, timestep, grid, folded)
            state = self.scheduler.turn(velocity, level, previous, state)
        return state

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        *,
        token_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        diffusion_latents: torch.Tensor | None = None,
        teacher_features: torch.Tensor | None = None,
        teacher_distortion_probabilities: torch.Tensor | None = None,
        teacher_level_probabilities: torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        bypass: Sequence[str] = (),
        **kwargs: Any,
    ) -> PfdIqaFeatures:
        """Refine the features of views.

        Training draws nothing itself: masks, latents and timesteps come in as tensors, so that a
        run does not depend on batch size, resuming or the number of processes.

        Args:
            pixel_values: Normalised views, (R, 3, H, W).
            token_mask: (1), True keeps a token; one mask per task, (R, 2, N).
            latents: ε of (8), (R, N, D'); None takes the stored ones.
            timesteps: t of (10), (R,), integers.
            diffusion_latents: ε of (10), (R, N, D').
            teacher_features: F_0^t of (9), (R, N, D').
            teacher_distortion_probabilities: p^d, (R, K_d).
            teacher_level_probabilities: p^q, (R, K_q).
            num_inference_steps: DDIM steps; None takes the configured number.
            bypass: Boxes to leave out, for diagnosis: any of "condition" (zeros), "fusion" (F^s),
                "alignment" (γ = 1), "denoising" (F̂_T).
            **kwargs: Passed to the backbone.

        Raises:
            ValueError: `bypass` names no box.
        """
        for name in bypass:
            if name not in BYPASSES:
                raise ValueError(f"bypass: no box '{name}'; there are {', '.join(BYPASSES)}")
        feature, class_token, grid, vision = self.student_feature(pixel_values, **kwargs)
        output = PfdIqaFeatures(student=feature, class_token=class_token, fused=feature)
        wanted = kwargs.get("output_hidden_states", False)
        if isinstance(wanted, list | tuple):  # some layers only, None for the others
            places = {place % len(vision.hidden_states) for place in wanted}
            states = enumerate(vision.hidden_states)
            output.hidden_states = tuple(state if i in places else None for i, state in states)
        elif wanted:
            output.hidden_states = vision.hidden_states
        output.attentions = getattr(vision, "attentions", None)
        if self.config.familiarity_directions:
            state = vision.hidden_states[self.config.familiarity_level]
            output.familiarity_token = _class_token(state, grid[0] * grid[1])

        if self.has_priors:
            masks = (None, None) if token_mask is None else token_mask.unbind(1)
            output.distortion_prior, output.distortion_logits = self.distortion_task(
                feature, grid, self.distortion_prompts, masks[0]
            )
            output.quality_prior, output.quality_logits = self.quality_task(
                feature, grid, self.quality_prompts, masks[1]
            )
            if masks[0] is not None and self.config.fusion_masking:
                # Mirrored: elsewhere than the priors' own masks, which fusion could recognise.
                output.fused = torch.where(masks[0].flip(1)[..., None], feature, 0.0)
            if self.fusion is not None and "fusion" not in bypass:
                output.fused, output.modulation = self.fusion(
                    output.fused, output.distortion_prior, output.quality_prior
                )
        if self.has_denoiser:
            noise = latents if latents is not None else self._latents_for(grid)
        else:
            noise = feature.new_zeros(1)
        aligned, clean, output.alignment_weight = self.alignment(output.fused, noise)
        output.aligned = clean if "alignment" in bypass else aligned
        output.refined = output.aligned
        if self.has_denoiser:
            if output.distortion_logits is None or output.quality_logits is None:
                weight = self.denoiser.output.weight
                condition = weight.new_zeros(feature.shape[0], 2, weight.shape[0])
            else:
                condition = self.aggregation(
                    output.distortion_logits.softmax(-1),
                    output.quality_logits.softmax(-1),
                    self.distortion_prompts,
                    self.quality_prompts,
                )
            if "condition" in bypass:
                condition = torch.zeros_like(condition)
            output.condition = condition
            if "denoising" not in bypass:
                output.refined = self.denoise(output.aligned, grid, condition, num_inference_steps)
        output.losses = method_losses(
            self,
            output,
            grid,
            clean=clean,
            token_mask=token_mask,
            timesteps=timesteps,
            diffusion_latents=diffusion_latents,
            teacher_features=teacher_features,
            teacher_distortion_probabilities=teacher_distortion_probabilities,
            teacher_level_probabilities=teacher_level_probabilities,
        )
        return in_declared_order(output)


def _class_token(state: torch.Tensor, tokens: int) -> torch.Tensor:
    """The class token (R, D) of a state (R, ≥ N, D); the token mean where there is none."""
    return state[:, 0] if state.shape[1] > tokens else state.mean(dim=1)


class PfdIqaForImageQualityAssessment(PfdIqaPreTrainedModel):
    """PFD-IQA with its head: pictures in, scores from 0 to 100 out, higher is better.

    Args:
        config: The configuration.
    """

    def __init__(self, config: PfdIqaConfig) -> None:
        super().__init__(config)
        self.pfd_iqa = PfdIqaModel(config)
        self.head = QualityHead(
            config.denoising_width,
            config.head_queries,
            config.head_num_attention_heads,
            self.pfd_iqa.vision_model.config.hidden_size if config.head_class_query else None,
        )
        self.familiarity: Familiarity | None = None
        if config.familiarity_directions:
            vision_config: Any = config.vision_config
            self.familiarity = Familiarity(vision_config.hidden_size, config.familiarity_directions)
            self._keep_in_fp32_modules_strict = [*self._keep_in_fp32_modules_strict, "^familiarity"]
        self.post_init()

    @property
    def vision_model(self) -> nn.Module:
        """The bare backbone."""
        return self.pfd_iqa.vision_model

    @property
    def explains(self) -> bool:
        """Whether it can tell what each distortion costs."""
        return self.pfd_iqa.has_priors and self.pfd_iqa.has_denoiser

    def get_input_embeddings(self) -> nn.Module:
        """The backbone's patch embedding."""
        return self.pfd_iqa.get_input_embeddings()

    @classmethod
    def from_vision_text_pretrained(
        cls, vision: str, text: str, config: dict[str, Any] | None = None, **kwargs: Any
    ) -> PfdIqaForImageQualityAssessment:
        """Build a model on a pre-trained backbone, prompts encoded by a pre-trained text tower.

        Everything but the backbone starts at random: train it before use.

        Args:
            vision: Folder or Hub id of the backbone; of a CLIP or SigLIP pair the image half.
            text: Folder or Hub id of the text tower; of a pair the text half.  The documented pair
                is `openai/clip-vit-base-patch16` for both.
            config: Fields of `PfdIqaConfig` that differ from the defaults.
            **kwargs: Passed to both `from_pretrained`, e.g. `revision`.

        Returns:
            The model; neither tower's text half is part of it.
        """
        backbone, tower, tokenizer, fields = load_pair(vision, text, config or {}, **kwargs)
        model = cls(PfdIqaConfig(**fields))
        own = model.vision_model.state_dict()
        # What the backbone has and this model does not read (a pooler) stays behind.
        own |= {key: value for key, value in backbone.state_dict().items() if key in own}
        model.vision_model.load_state_dict(own)
        model.set_prompts(tower, tokenizer)
        return model.eval()

    def set_prompts(self, tower: Any, tokenizer: Any = None, **fields: Any) -> None:
        """Encode the prompts anew into the model's buffers.

        Args:
            tower: Text tower, or a folder or Hub id of one.
            tokenizer: Its tokenizer; None with a folder or id.
            **fields: Prompt fields of the configuration to change first: names (as many as
                before), templates, `pristine_prompt`.

        Raises:
            ValueError: another number of names, an impossible template, or another embedding
                width; the model is then as before.
        """
        check_prompt_fields(self.config, fields)
        if isinstance(tower, str):
            tower, tokenizer, _ = load_text_tower(tower)
        # On a copy, so that a fault leaves the model as it was.
        config = copy.deepcopy(self.config)
        for key, value in fields.items():
            setattr(config, key, value)
        config.validate_architecture()
        base = self.pfd_iqa
        buffers = (base.distortion_prompts, base.quality_prompts)
        new = [
            prompt_embeddings(tower, tokenizer, prompts, config.text_pooling, buffer.shape[-1])
            for buffer, prompts in zip(
                buffers, (config.distortion_prompts, config.level_prompts), strict=True
            )
        ]
        for buffer, embeddings in zip(buffers, new, strict=True):
            buffer.copy_(embeddings.to(buffer))
        for key, value in fields.items():
            setattr(self.config, key, value)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        low_resolution: torch.Tensor | None = None,
        output_quality_map: bool = False,
        output_features: bool = False,
        output_distortion_costs: bool = False,
        **kwargs: Any,
    ) -> PfdIqaOutput:
        """Score pictures.

        Args:
            pixel_values: Normalised views, (B, V, 3, H, W), or one view a picture, (B, 3, H, W).
            labels: Opinion scores, 0 to 100, (B,); NaN marks a picture without one.
            low_resolution: True where the picture had to be enlarged, (B,); widens the deviation.
            output_quality_map: Return `quality_map` and `token_values`.
            output_features: Return the intermediate features.
            output_distortion_costs: Return `distortion_costs`: denoising and head run once more for
                each distortion. None where the model has no priors or no denoiser.
            **kwargs: Training inputs of `PfdIqaModel.forward` for the R = B·V views in order,
                `num_inference_steps`, `bypass`, and the backbone's own arguments.

        Returns:
            A `PfdIqaOutput`, or a tuple with `return_dict=False`.
        """
        if pixel_values.dim() == 4:
            pixel_values = pixel_values[:, None]  # (B, 1, 3, H, W)
        pictures, views = pixel_values.shape[:2]
        for name in ("output_hidden_states", "output_attentions"):
            if name not in kwargs and getattr(self.config, name, False):
                kwargs[name] = True
        features = self.pfd_iqa(
            pixel_values.flatten(0, 1), return_dict=True, **kwargs
        )  # R = B·V rows
        head_type = self.head.bias.dtype
        with torch.autocast(pixel_values.device.type, enabled=False):
            judged = self.head(
                features.refined.to(head_type),
                features.class_token.to(head_type) if self.head.class_query is not None else None,
            )
            low, high = self.config.score_range
            logits = judged.logit.unflatten(0, (pictures, views))  # (B, V)
            deviations = judged.deviation.unflatten(0, (pictures, views))
            view_scores = low + (high - low) * logits.sigmoid()
            score = view_scores.mean(dim=1)  # (16)
            spread = (view_scores - score[:, None]).square().mean(dim=1)
            variance = (
                self.config.uncertainty_view_weight * deviations.square().mean(dim=1)
                + self.config.uncertainty_spread_weight * spread
            )
            uncertainty = variance.clamp(min=1e-4).sqrt()
            if low_resolution is not None:
                factor = self.config.low_resolution_factor
                uncertainty = torch.where(low_resolution, factor * uncertainty, uncertainty)
            output = PfdIqaOutput(
                logits=score,
                uncertainty=uncertainty,
                level_probabilities=level_probabilities(
                    score, uncertainty, list(self.config.level_borders)
                ),
                view_logits=logits,
                view_deviations=deviations,
                hidden_states=features.hidden_states,
                attentions=features.attentions,
            )
            if features.distortion_logits is not None:
                probabilities = features.distortion_logits.float().softmax(-1)
                output.distortion_probabilities = probabilities.unflatten(
                    0, (pictures, views)
                ).mean(dim=1)
            if self.familiarity is not None and features.familiarity_token is not None:
                tokens = features.familiarity_token.unflatten(0, (pictures, views))
                distance = self.familiarity(familiarity_feature(tokens.detach()))
                output.familiarity_distance = flat_is_unfamiliar(distance, pixel_values)
            height, width = pixel_values.shape[-2:]
            grid = (height // self.pfd_iqa.patch_size[0], width // self.pfd_iqa.patch_size[1])
            if output_distortion_costs and self.explains:
                output.distortion_costs = distortion_costs(
                    self, features, grid, score, kwargs.get("num_inference_steps")
                )
            if output_quality_map:
                values = judged.token_values.unflatten(1, grid).unflatten(0, (pictures, views))
                output.token_values = values  # (B, V, h, w)
                output.quality_map = low + (high - low) * (values + self.head.bias).sigmoid()
            if output_features:
                output.features = features
            if labels is not None:
                parts = opinion_losses(labels, view_scores, deviations, (low, high))
                parts |= features.losses or {}
                # L without L_map, which needs three pictures at once and belongs to the trainer.
                output.loss = torch.stack(
                    [self._loss_weight(name) * part for name, part in parts.items()]
                ).sum()
                output.loss_parts = parts
        return in_declared_order(output)

    def _loss_weight(self, name: str) -> float:
        return 1.0 if name == "regression" else float(getattr(self.config, f"{name}_loss_weight"))
