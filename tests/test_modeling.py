"""The model: what a score depends on, what is saved, which switches and families work."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import (
    BACKBONES,
    SIDE,
    awake_model,
    tiny_config,
    training_inputs,
)
from torch import nn
from transformers import AutoModel, Trainer, TrainingArguments

from pfd_iqa_hf import PfdIqaForImageQualityAssessment, PfdIqaModel
from pfd_iqa_hf.modeling.modeling_pfd_iqa import BYPASSES

Model = PfdIqaForImageQualityAssessment


@pytest.fixture(scope="module")
def model() -> Model:
    return awake_model()


def _views(pictures: int, views: int, side: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(pictures, views, 3, side, side, generator=generator)


def _numpy_state() -> list[int]:
    state: Any = np.random.get_state()
    return state[1].tolist()


@torch.no_grad()
def _scores(model: Model, *args: Any, **kwargs: Any) -> torch.Tensor:
    return model(*args, **kwargs).logits


class TestScores:
    """A score is a function of the picture alone, and its parts agree with each other."""

    def test_batch_and_order_do_not_matter(self, model: Model) -> None:
        views = _views(6, 2)
        together = _scores(model, views)
        assert together.std() > 0.05  # pictures differ
        alone = torch.cat([_scores(model, view[None]) for view in views])
        assert (alone - together).abs().max() < 0.01
        assert (_scores(model, views.flip(0)).flip(0) - together).abs().max() < 0.01

    def test_one_view_may_come_without_its_axis(self, model: Model) -> None:
        views = _views(3, 1)
        assert torch.equal(_scores(model, views), _scores(model, views[:, 0]))

    def test_repeats_are_equal_and_global_random_sources_untouched(self, model: Model) -> None:
        views = _views(2, 2)
        states = random.getstate(), _numpy_state(), torch.get_rng_state()
        first = _scores(model, views)
        assert random.getstate() == states[0]
        assert _numpy_state() == states[1]
        assert torch.equal(torch.get_rng_state(), states[2])
        torch.manual_seed(99)
        assert torch.equal(first, _scores(model, views))

    def test_training_mode_draws_nothing_either(self) -> None:
        model = awake_model().train()
        inputs = training_inputs()
        state = torch.get_rng_state()
        first = model(**inputs).loss
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, model(**inputs).loss)

    def test_the_score_is_the_mean_of_the_views(self, model: Model) -> None:
        out = model(_views(3, 4))
        assert torch.allclose(out.logits, 100 * out.view_logits.sigmoid().mean(1), atol=1e-4)
        assert ((out.logits >= 0) & (out.logits <= 100)).all()
        spread = (100 * out.view_logits.sigmoid()).var(1, correction=0)
        expected = (out.view_deviations.square().mean(1) + spread).sqrt()
        assert torch.allclose(out.uncertainty, expected, rtol=1e-4)

    def test_levels_agree_with_the_score(self, model: Model) -> None:
        out = model(_views(8, 2))
        assert torch.allclose(out.level_probabilities.sum(-1), torch.ones(8), atol=1e-5)
        assert torch.allclose(out.distortion_probabilities.sum(-1), torch.ones(8), atol=1e-5)
        band = torch.bucketize(out.logits, torch.tensor(model.config.level_borders), right=True)
        cumulative = torch.cat([torch.zeros(8, 1), out.level_probabilities.cumsum(-1)], -1)
        rows = torch.arange(8)
        assert (cumulative[rows, band] <= 0.5 + 1e-5).all()
        assert (cumulative[rows, band + 1] >= 0.5 - 1e-5).all()

    def test_low_resolution_widens_the_uncertainty_and_nothing_else(self, model: Model) -> None:
        views = _views(2, 2)
        plain = model(views)
        low = model(views, low_resolution=torch.tensor([True, False]))
        assert torch.equal(low.logits, plain.logits)
        factor = model.config.low_resolution_factor
        expected = plain.uncertainty * torch.tensor([factor, 1.0])
        assert torch.allclose(low.uncertainty, expected)

    def test_the_map_explains_the_score(self, model: Model) -> None:
        out = model(_views(2, 3), output_quality_map=True)
        assert out.quality_map.shape == out.token_values.shape == (2, 3, 4, 4)
        expected = 100 * (out.token_values + model.head.bias).sigmoid()
        assert torch.allclose(out.quality_map, expected, atol=1e-4)
        # A view's logit is a weighted mean of its tokens.
        values = (out.token_values + model.head.bias).flatten(2)
        assert (out.view_logits <= values.amax(-1) + 1e-4).all()
        assert (out.view_logits >= values.amin(-1) - 1e-4).all()
        assert model(_views(2, 3)).quality_map is None

    @pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64)])
    def test_other_view_sizes(self, model: Model, height: int, width: int) -> None:
        views = torch.randn(2, 2, 3, height, width)
        out = model(views, output_quality_map=True)
        assert out.quality_map.shape == (2, 2, height // 8, width // 8)
        assert torch.isfinite(out.logits).all()

    def test_steps_can_be_chosen(self, model: Model) -> None:
        views = _views(2, 1)
        default = _scores(model, views)
        assert torch.equal(default, _scores(model, views, num_inference_steps=5))
        assert not torch.equal(default, _scores(model, views, num_inference_steps=1))
        with pytest.raises(ValueError, match="num_inference_steps.*0"):
            model(views, num_inference_steps=0)

    def test_tuples_and_base_model(self, model: Model) -> None:
        views = _views(2, 1)
        out = model(views)
        assert torch.equal(model(views, return_dict=False)[0], out.logits)
        labelled = model(views, labels=torch.tensor([10.0, 90.0]), return_dict=False)
        assert labelled[0].shape == ()  # the loss comes first
        assert torch.equal(labelled[1], out.logits)
        base: PfdIqaModel = model.pfd_iqa
        features = base(views[:, 0])
        assert features.refined.shape == (2, 16, 8)
        assert torch.equal(base(views[:, 0], return_dict=False)[0], features.refined)
        inside = model(views, output_features=True).features
        assert torch.equal(inside.refined, features.refined)
        assert inside.condition.shape == (2, 2, 8)

    @pytest.mark.parametrize("box", BYPASSES)
    def test_every_box_moves_the_score(self, model: Model, box: str) -> None:
        views = _views(4, 1)
        change = _scores(model, views, bypass=(box,)) - _scores(model, views)
        assert change.abs().max() > 1e-3

    def test_an_unknown_box_is_an_error(self, model: Model) -> None:
        with pytest.raises(ValueError, match="fussion.*condition"):
            model(_views(1, 1), bypass=("fussion",))


class TestSwitches:
    """Every ablation of the configuration builds, learns and changes the model."""

    CASES: tuple[dict[str, Any], ...] = (
        {"prior_discovery": False},
        {"prior_discovery": False, "denoiser": "none"},
        {"denoiser": "none"},
        {"denoiser": "bottleneck"},
        {"prior_fusion": "none"},
        {"prior_fusion": "add"},
        {"noise_alignment": "none"},
        {"condition_source": "distortion"},
        {"condition_source": "quality"},
        {"condition_source": "none"},
        {"condition_weights": "hard"},
        {"timestep_spacing": "diffkd"},
        {"num_inference_steps": 1},
        {"head_class_query": True},
        {"feature_levels": [2]},
        {"feature_class_token": False},
        {"denoiser_expansion": 2},
    )

    @pytest.mark.parametrize("fields", CASES, ids=str)
    def test_builds_runs_learns_and_is_saved(self, fields: dict[str, Any], tmp_path: Path) -> None:
        changed = awake_model(tiny_config(**fields))
        inputs = training_inputs()
        out = changed(**inputs)
        out.loss.backward()
        assert torch.isfinite(out.loss)
        changed.save_pretrained(tmp_path)
        loaded = Model.from_pretrained(tmp_path)
        # Loaded weights lie elsewhere in memory, which may round differently.
        assert torch.allclose(
            _scores(loaded, inputs["pixel_values"]),
            _scores(changed, inputs["pixel_values"]),
            rtol=0.0,
            atol=1e-3,
        )

    def test_loss_parts_follow_what_is_given(self, model: Model) -> None:
        inputs = training_inputs()
        plain = model(inputs["pixel_values"], labels=inputs["labels"])
        assert set(plain.loss_parts) == {"regression", "deviation"}
        whole = model(**inputs)
        assert set(whole.loss_parts) == {
            "regression",
            "deviation",
            "kl",
            "diffusion",
            "feature",
            "reconstruction",
            "alignment",
        }
        config = model.config
        expected = sum(
            (1.0 if name == "regression" else getattr(config, f"{name}_loss_weight")) * float(part)
            for name, part in whole.loss_parts.items()
        )
        assert float(whole.loss) == pytest.approx(expected, rel=1e-5)
        assert model(inputs["pixel_values"]).loss is None

    def test_masks_and_latents_are_taken_where_given(self, model: Model) -> None:
        inputs = training_inputs()
        views = inputs["pixel_values"]
        for name in ("token_mask", "latents"):
            given = _scores(model, views, **{name: inputs[name]})
            assert not torch.equal(given, _scores(model, views))
        stored = model.pfd_iqa.latents.expand(4, -1, -1)
        assert torch.equal(_scores(model, views, latents=stored), _scores(model, views))


def test_fusion_masking_hides_masked_tokens_in_training_only() -> None:
    torch.manual_seed(0)
    model = Model(tiny_config(fusion_masking=True)).eval()
    base, inputs = model.pfd_iqa, training_inputs()
    views, mask = inputs["pixel_values"], inputs["token_mask"]
    with torch.no_grad():
        whole = base(views, bypass=("fusion",))
        masked = base(views, token_mask=mask, bypass=("fusion",))
        filled = base(views, token_mask=mask)
    kept = mask[:, 0].flip(1)
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(whole.fused, whole.student)
    assert torch.equal(masked.fused[kept], whole.student[kept])
    assert not masked.fused[~kept].any()
    shift = filled.modulation.chunk(2, dim=-1)[1]
    assert torch.allclose(filled.fused[~kept], shift[~kept] + _bias_of_norm(base, filled)[~kept])


def _bias_of_norm(base: Any, features: Any) -> torch.Tensor:
    """What LN(0) leaves of (6) where a token is missing: its scaled bias."""
    return features.modulation.chunk(2, dim=-1)[0] * base.fusion.norm.bias


def test_unrated_pictures_are_left_out_of_the_loss(model: Model) -> None:
    inputs = training_inputs()
    labels = inputs["labels"].clone()
    labels[[1, 3]] = torch.nan
    mixed = model(inputs["pixel_values"], labels=labels)
    rated = model(inputs["pixel_values"][[0, 2]], labels=labels[[0, 2]])
    assert float(mixed.loss) == pytest.approx(float(rated.loss), rel=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_whole_loss_reaches_every_trainable_tensor(backbone: str) -> None:
    torch.manual_seed(0)
    model = Model(tiny_config(backbone)).train()  # zero starts included
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    reached: set[str] = set()
    for _ in range(3):
        optimizer.zero_grad()
        model(**training_inputs()).loss.backward()
        reached |= {n for n, p in trainable.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert set(trainable) - reached == set()
    frozen = set(dict(model.named_parameters())) - set(trainable)
    assert all(name.startswith("pfd_iqa.vision_model.") for name in frozen)


def test_a_loaded_model_trains_the_same_tensors(tmp_path: Path) -> None:
    model = Model(tiny_config(feature_levels=[1]))
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    kept, found = (
        {name for name, p in one.named_parameters() if not p.requires_grad}
        for one in (model, loaded)
    )
    assert found == kept and any(".layer.1." in name for name in kept)


@pytest.mark.filterwarnings("ignore")
def test_plain_trainer_runs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    rows: Any = [
        {"pixel_values": torch.randn(2, 3, SIDE, SIDE, generator=generator), "labels": 20.0 * i}
        for i in range(4)
    ]
    model = Model(tiny_config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    result = trainer.train()
    assert np.isfinite(result.training_loss)
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())
    predictions = trainer.predict(rows).predictions
    scores = predictions[0] if isinstance(predictions, tuple) else predictions
    assert scores.shape == (4,)


class TestCheckpoints:
    """What is saved comes back, and what does not fit is refused."""

    @pytest.fixture
    def folder(self, model: Model, tmp_path: Path) -> Path:
        model.save_pretrained(tmp_path)
        return tmp_path

    def test_round_trip(self, model: Model, folder: Path) -> None:
        loaded, info = Model.from_pretrained(folder, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert not loaded.training
        first, second = model(_views(2, 2)), loaded(_views(2, 2))
        for key in ("logits", "uncertainty", "level_probabilities", "distortion_probabilities"):
            # Loaded weights lie elsewhere in memory, which may round differently.
            assert torch.allclose(first[key], second[key], rtol=1e-5, atol=1e-6)
        assert type(AutoModel.from_pretrained(folder)) in (Model, PfdIqaModel)

    def test_neither_text_tower_nor_teacher_is_stored(self, folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        assert not [name for name in names if "text" in name or "teacher" in name]

    @pytest.mark.parametrize(
        ("fault", "named"),
        [
            ("missing", "pfd_iqa.latents"),
            ("missing", "head.bias"),
            ("unexpected", "head.extra"),
            ("mismatched", "head.panel"),
        ],
    )
    def test_what_does_not_fit_is_refused_by_name(
        self, folder: Path, fault: str, named: str
    ) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        if fault == "missing":
            del tensors[named]
        else:
            tensors[named] = torch.zeros(3)
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(ValueError) as caught:
            Model.from_pretrained(folder)
        assert fault in str(caught.value)
        assert named in str(caught.value)
        assert str(folder) in str(caught.value)
        loaded = Model.from_pretrained(folder, ignore_missing_weights=True)
        assert torch.isfinite(_scores(loaded, _views(1, 1))).all()

    def test_other_shapes_alone_can_be_accepted(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors["head.panel"] = torch.zeros(3, 8)
        save_file(tensors, path, metadata={"format": "pt"})
        assert Model.from_pretrained(folder, ignore_mismatched_sizes=True).head.panel.shape == (
            6,
            8,
        )

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_half_precision_keeps_head_and_score_in_full(
        self, backbone: str, tmp_path: Path
    ) -> None:
        full = awake_model(tiny_config(backbone))
        full.save_pretrained(tmp_path)
        half = Model.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert {p.dtype for p in half.head.parameters()} == {torch.float32}
        assert half.pfd_iqa.feature_norm.weight.dtype == torch.bfloat16
        views = _views(3, 1)
        out = half(views.bfloat16())
        for value in (out.logits, out.uncertainty, out.level_probabilities):
            assert value.dtype == torch.float32
        assert (out.logits - _scores(full, views)).abs().max() < 5

    def test_new_models_agree_on_their_stand_ins(self) -> None:
        first, second = Model(tiny_config()), Model(tiny_config())
        assert first.pfd_iqa.latents.any()
        assert torch.equal(first.pfd_iqa.latents, second.pfd_iqa.latents)
        assert torch.equal(first.pfd_iqa.quality_prompts, second.pfd_iqa.quality_prompts)


class _ScoreOnly(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


class TestGraphs:
    """Deployment: one graph, the same score."""

    def test_export_with_a_dynamic_batch(self, model: Model) -> None:
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(
            _ScoreOnly(model),
            (_views(3, 2),),
            dynamic_shapes={"pixel_values": {0: batch}},
        ).module()
        for pictures in (2, 3, 7):
            views = _views(pictures, 2)
            assert torch.allclose(program(views), _scores(model, views), atol=1e-3)

    def test_compile_without_a_break(self, model: Model) -> None:
        torch.compiler.reset()
        # The whole graph is captured; how a C++ compiler would lower it is torch's business.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        views = _views(3, 2)
        with torch.no_grad():
            assert torch.allclose(compiled(views).logits, _scores(model, views), atol=1e-3)
