"""Run transformers' own common tests on PFD-IQA: `pytest -m conformance tests`."""

from pathlib import Path

import pytest

from .common_tests import use_cache

_FOLDER = Path(__file__).parent
# Marks that transformers' tests carry.
_FOREIGN_MARKERS = (
    "accelerate_tests",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "flash_attn_test",
    "generate",
    "is_agent_test",
    "is_expert_parallel_test",
    "is_fsdp_test",
    "is_pipeline_test",
    "is_staging_test",
    "is_tensor_parallel_test",
    "is_training_test",
    "order",
    "slow",
    "torch_compile_test",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: transformers' own tests run on this model")
    cache = getattr(config, "cache", None)
    if cache is not None:
        use_cache(cache.mkdir("transformers-common-tests"))
    for marker in _FOREIGN_MARKERS:
        config.addinivalue_line("markers", f"{marker}: used by transformers' tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Collecting downloads the suite: not for a run that leaves it out.
    left_out = "not conformance" in config.option.markexpr
    return True if left_out and collection_path.name.startswith("test_") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.conformance)
