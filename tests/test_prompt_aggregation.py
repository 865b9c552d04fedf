"""The condition would not be the paper's weighted sum of prompts (5)."""

import pytest
import torch

from pfd_iqa_hf.modeling.prompt_aggregation import PromptAggregation, centred_prompts

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(3, 12, generator=generator).softmax(-1),
        torch.randn(3, 5, generator=generator).softmax(-1),
        centred_prompts(torch.randn(12, 6, generator=generator)),
        centred_prompts(torch.randn(5, 6, generator=generator)),
    )


def _expected(
    module: PromptAggregation, distortion: torch.Tensor, quality: torch.Tensor
) -> torch.Tensor:
    weight, bias = module.project.weight, module.project.bias
    tokens = [distortion @ weight.T + bias, quality @ weight.T + bias]
    return torch.stack(tokens, dim=1) + module.task_embedding


def _module(source: str, weights: str = "soft") -> PromptAggregation:
    torch.manual_seed(1)
    module = PromptAggregation(6, 8, source, weights)
    module.initialize_parameters()
    return module


def test_each_token_is_the_mean_prompt_of_its_task(inputs: Inputs) -> None:
    p_d, p_q, t_d, t_q = inputs
    mixtures = [
        torch.stack([sum(w * t for w, t in zip(row, prompts, strict=True)) for row in p])
        for p, prompts in ((p_d, t_d), (p_q, t_q))
    ]
    module = _module("both")
    out = module(*inputs)
    assert out.shape == (3, 2, 8)
    assert torch.allclose(out, _expected(module, *mixtures), atol=1e-6)


def test_one_source_leaves_the_other_token_without_prompts(inputs: Inputs) -> None:
    p_d, p_q, t_d, t_q = inputs
    nothing = torch.zeros(3, 6)
    for source, mixtures in (
        ("distortion", (p_d @ t_d, nothing)),
        ("quality", (nothing, p_q @ t_q)),
        ("none", (nothing, nothing)),
    ):
        module = _module(source)
        assert torch.allclose(module(*inputs), _expected(module, *mixtures), atol=1e-6)


def test_hard_weights_take_the_most_probable_prompt(inputs: Inputs) -> None:
    p_d, p_q, t_d, t_q = inputs
    module = _module("both", "hard")
    expected = _expected(module, t_d[p_d.argmax(-1)], t_q[p_q.argmax(-1)])
    assert torch.allclose(module(*inputs), expected, atol=1e-6)


def test_centring_tells_prompts_of_one_template_apart() -> None:
    generator = torch.Generator().manual_seed(2)
    alike = torch.ones(5, 6) + 0.01 * torch.randn(5, 6, generator=generator)
    prompts = centred_prompts(alike)
    assert torch.allclose(prompts.norm(dim=-1), torch.ones(5), atol=1e-5)
    direction = (alike - alike.mean(0))[0]
    assert torch.allclose(prompts[0], direction / direction.norm(), atol=1e-4)
    assert (prompts @ prompts.T - torch.eye(5)).max() < 0.9 < float((alike[0] @ alike[1]) / 6.1)
