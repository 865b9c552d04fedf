"""Scores without one distortion in the condition: what they are made of, and their training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import awake_model, tiny_config

from pfd_iqa_hf.modeling.counterfactuals import view_logits_without
from pfd_iqa_hf.training.losses import counterfactual_loss


@pytest.fixture(scope="module")
def model() -> Any:
    return awake_model().eval()


def _outputs(model: Any) -> Any:
    views = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(views, output_features=True, output_distortion_costs=True)


def test_costs_are_the_scores_of_conditions_without_a_distortion(model: Any) -> None:
    out = _outputs(model)
    count = len(model.config.distortion_names)
    assert out.distortion_costs.shape == (2, count)
    assert (out.distortion_costs[:, 0] == 0).all()
    place = 3
    weights = out.features.distortion_logits.softmax(-1).clone()
    weights[:, place] = 0
    weights /= weights.sum(-1, keepdim=True)
    base = model.pfd_iqa
    with torch.no_grad():
        condition = base.aggregation(
            weights,
            out.features.quality_logits.softmax(-1),
            base.distortion_prompts,
            base.quality_prompts,
        )
        refined = base.denoise(out.features.aligned, base.native_grid, condition)
        score = 100 * model.head(refined).logit.sigmoid().unflatten(0, (2, 3)).mean(1)
    torch.testing.assert_close(
        out.distortion_costs[:, place], score - out.logits, atol=1e-3, rtol=0
    )
    assert out.distortion_costs[:, 1:].abs().max() > 1e-3


def test_taking_out_nothing_changes_nothing(model: Any) -> None:
    out = _outputs(model)
    removed = torch.zeros(1, len(model.config.distortion_names), dtype=torch.bool)
    with torch.no_grad():
        logits = view_logits_without(model, out.features, model.pfd_iqa.native_grid, removed)
    torch.testing.assert_close(logits, out.view_logits.flatten(), atol=1e-5, rtol=1e-4)


def test_costs_only_on_request_and_only_with_a_condition(model: Any) -> None:
    views = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert model(views).distortion_costs is None
        bare = awake_model(tiny_config(prior_discovery=False, prior_fusion="none"))
        assert bare(views, output_distortion_costs=True).distortion_costs is None


def test_the_pipeline_names_the_costs(tiny_pipeline: Any, photograph: np.ndarray) -> None:
    plain, explained = tiny_pipeline(photograph), tiny_pipeline(photograph, explain=True)
    assert "costs" not in plain
    assert explained["score"] == plain["score"]
    costs = explained["costs"]
    assert {entry["label"] for entry in costs} == set(
        tiny_pipeline.model.config.distortion_names[1:]
    )
    assert [entry["points"] for entry in costs] == sorted(
        (entry["points"] for entry in costs), reverse=True
    )


def test_the_loss_wants_the_clean_score_and_patience_with_the_rest() -> None:
    clean, own = torch.tensor([2.0, 1.0]), torch.tensor([-1.0, 0.0])
    assert counterfactual_loss(clean, clean, own, own) == 0
    assert counterfactual_loss(own, clean, own, own) > 0
    assert counterfactual_loss(clean, clean, clean, own) > 0
    target = clean.clone().requires_grad_()
    counterfactual_loss(own.clone().requires_grad_(), target, own, own).backward()
    assert target.grad is None
