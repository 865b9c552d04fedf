"""The map would not explain the score, or levels and score would contradict each other."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pfd_iqa_hf.modeling.quality_head import QualityHead, level_probabilities

BORDERS = [20.0, 40.0, 60.0, 80.0]


@pytest.fixture
def head() -> QualityHead:
    torch.manual_seed(0)
    head = QualityHead(width=12, queries=6, heads=3, class_width=None)
    head.initialize_parameters()
    torch.nn.init.constant_(head.bias, 0.3)
    torch.nn.init.normal_(head.deviation.weight)
    return head


def test_contributions_sum_to_the_logit(head: QualityHead) -> None:
    for tokens in (1, 16, 99):
        judged = head(3 * torch.randn(4, tokens, 12))
        total = (judged.token_weights * judged.token_values).sum(-1) + head.bias
        assert torch.allclose(judged.logit, total, atol=1e-4)
        assert torch.allclose(judged.token_weights.sum(-1), torch.ones(4), atol=1e-5)
        assert (judged.token_weights >= 0).all()


def test_equal_tokens_score_what_each_of_them_says(head: QualityHead) -> None:
    token = torch.randn(1, 1, 12)
    judged = head(token.expand(1, 20, 12))
    assert torch.allclose(judged.token_values + head.bias, judged.logit[:, None], atol=1e-5)
    assert torch.allclose(judged.logit, head(token).logit, atol=1e-5)


def test_order_of_the_tokens_does_not_matter(head: QualityHead) -> None:
    feature, order = torch.randn(2, 16, 12), torch.randperm(16)
    first, second = head(feature), head(feature[:, order])
    assert torch.allclose(first.logit, second.logit, atol=1e-5)
    assert torch.allclose(first.token_values[:, order], second.token_values, atol=1e-5)


def test_deviation_has_its_floor_and_sends_no_gradient_back(head: QualityHead) -> None:
    feature = torch.randn(8, 16, 12, requires_grad=True)
    deviation = head(feature).deviation
    assert (deviation >= 0.5).all()
    deviation.sum().backward()
    assert feature.grad is None or not feature.grad.any()
    assert head.deviation.weight.grad is not None
    assert head.panel.grad is None or not head.panel.grad.any()


def test_class_token_counts_only_where_it_is_asked_for(head: QualityHead) -> None:
    torch.manual_seed(1)
    reader = QualityHead(width=12, queries=6, heads=3, class_width=5)
    reader.initialize_parameters()
    feature = torch.randn(2, 16, 12)
    logits = [reader(feature, torch.full((2, 5), value)).logit for value in (0.0, 9.0)]
    assert not torch.allclose(*logits)
    assert head.class_query is None


def test_level_probabilities_are_those_of_a_normal_law() -> None:
    generator = np.random.default_rng(0)
    scores, deviations = generator.uniform(0, 100, 200), generator.uniform(0.5, 40, 200)
    ours = level_probabilities(torch.tensor(scores), torch.tensor(deviations), BORDERS).numpy()
    limits = np.array([-np.inf, *BORDERS, np.inf])
    expected = np.diff(norm.cdf(limits, scores[:, None], deviations[:, None]), axis=1)
    assert ours == pytest.approx(expected, abs=1e-9)
    assert ours.sum(1) == pytest.approx(1, abs=1e-9)


def test_level_probabilities_in_single_precision_stay_probabilities() -> None:
    scores = torch.linspace(0, 100, 101)
    for deviation in (0.01, 1.0, 1000.0):
        rows = level_probabilities(scores, torch.full((101,), deviation), BORDERS)
        assert (rows >= 0).all()
        assert torch.allclose(rows.sum(-1), torch.ones(101), atol=1e-6)


def test_the_median_of_the_levels_lies_in_the_band_of_the_score() -> None:
    scores = torch.cat([torch.linspace(0, 100, 51), torch.tensor(BORDERS)])
    for deviation in (0.6, 12.0, 60.0):
        rows = level_probabilities(scores, torch.full_like(scores, deviation), BORDERS)
        band = torch.bucketize(scores, torch.tensor(BORDERS), right=True)
        below = torch.cat([torch.zeros(len(rows), 1), rows.cumsum(-1)], -1)
        at = torch.arange(len(rows))
        assert (below[at, band] <= 0.5 + 1e-6).all()
        assert (below[at, band + 1] >= 0.5 - 1e-6).all()
