"""A short soak of the demo: the script that measures the long one works and finds nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason='needs the extra "demo"')

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "demo_soak.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the server's memory from /proc")
def test_many_clients_lose_nothing_and_memory_stays_flat(tiny_checkpoint: Path) -> None:
    result = subprocess.run(
        [sys.executable, SCRIPT, "--model", tiny_checkpoint, "--clients", "8", "--seconds", "12"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    facts = json.loads(result.stdout)
    assert facts["wrong_or_mixed_up"] == [] and facts["lost"] == []
    assert facts["right"] >= 6 and facts["refused_with_reason"] >= 2
    assert facts["tracebacks_in_log"] == 0
    growth = facts["memory_mb_last_third"] - facts["memory_mb_second_third"]
    assert growth < 100, "MB in a few seconds"
