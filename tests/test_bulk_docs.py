"""What docs/scoring.md shows works as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from exported_models import ExportedModel
from PIL import Image

from pfd_iqa_cli.main import run

DOCS = (Path(__file__).parents[1] / "docs" / "scoring.md").read_text("utf-8")
# What needs a network, or a name that only stands for one.
ELSEWHERE = ("s3://", "https://", "datasets:my")


def _rows() -> list[str]:
    cells = [
        line.split(" | ")[1] for line in DOCS.splitlines() if "| `" in line and "score" in line
    ]
    commands = [cell.replace("\\|", "|").strip() for cell in cells if "pfd-iqa score" in cell]
    return [re.sub(r"^`([^`]*)`.*", r"\1", command) for command in commands]


def _code(word: str) -> str:
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", DOCS, re.S) if word in b]
    return str(block)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the table of inputs names."""
    root = tmp_path_factory.mktemp("docs")
    for folder in ("photos", "more", "shards"):
        (root / folder).mkdir()
    for number, name in enumerate(["a.jpg", "photos/b.jpg", "more/c.png"]):
        Image.new("RGB", (40, 30), (50 * number, 90, 10)).save(root / name)
    data = (root / "a.jpg").read_bytes()
    (root / "list.csv").write_text("file,mos\na.jpg,1\nphotos/b.jpg,2\n")
    pq.write_table(pa.table({"image": [data, data]}), root / "shard.parquet")
    with tarfile.open(root / "shards" / "0.tar", "w") as archive:
        archive.add(root / "a.jpg", "cat.jpg")
    av = pytest.importorskip("av")
    with av.open(str(root / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for number in range(15):
            frame = np.full((48, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return root


def test_the_commands_for_each_input(inputs: Path, exported_model: ExportedModel) -> None:
    commands = [command for command in _rows() if not any(e in command for e in ELSEWHERE)]
    assert len(commands) == 6
    program = shlex.join([sys.executable, "-m", "pfd_iqa_cli"])
    model = f"--backend onnx --model {exported_model('fp32').path} --format jsonl"
    counts = []
    for command in commands:
        line = command.replace("pfd-iqa", program) + f" {model}"
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=inputs,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, (command, result.stderr)
        counts.append(result.stdout.count('"error": null'))
    assert counts == [3, 1, 2, 2, 1, 2]


def test_the_commands_of_runs_and_how_they_go_on(
    inputs: Path,
    exported_model: ExportedModel,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(inputs / "photos", tmp_path / "photos" / "deep")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", DOCS, re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    # tests/test_ray_engine.py runs what these two do.
    joins = [command for command in commands if "--engine ray" in command]
    assert [command.partition(" --engine ray")[2] for command in joins] == [
        *("", " --ray-address auto --resume")
    ]
    commands = [command for command in commands if command not in joins]
    explained = [command for command in commands if "--explain" in command]
    commands = [command for command in commands if command not in explained]
    assert len(commands) == len(explained) == 2
    for command in explained:  # a model file cannot tell
        (tmp_path / "a.jpg").write_bytes((inputs / "a.jpg").read_bytes())
        words = shlex.split(command, comments=True)[1:]
        assert run([*words, "--model", str(tiny_checkpoint)]) == 0, command
    assert '"costs"' in Path("costs.jsonl").read_text("utf-8")
    for command in commands:
        model = ["--backend", "onnx", "--model", str(exported_model("fp32").path)]
        assert run([*shlex.split(command)[1:], *model]) == 0, command
    assert {"manifest.json", "part-00000.parquet", "summary.json"} == set(os.listdir("scores"))
    assert "b.jpg" in Path("report.html").read_text("utf-8")
    # The line that the document reads all parts with.
    (line,) = re.findall(r"`(pyarrow\.dataset\.dataset\([^`]*)`", DOCS)
    assert eval(line, {"pyarrow": pa}).to_table().num_rows == 1


def test_the_sums_of_a_billion_pictures() -> None:
    begin = "| `--quality standard`, PyTorch, float32"
    (row,) = [line for line in DOCS.splitlines() if line.startswith(begin)]
    rate = float(row.split("|")[2])
    core_hours, days = (cell.split("=")[1] for cell in row.split("|")[3:5])
    hours = float(core_hours.replace(",", ""))
    assert hours == pytest.approx(1e9 / (3600 * rate), rel=0.01)
    assert float(days.split()[0]) == pytest.approx(hours / 24_000, abs=0.05)
    measured = re.search(r"the pipeline (\d\.\d+)", DOCS)
    assert measured is not None and rate == pytest.approx(float(measured[1]) / 2, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dataset.map", "accelerate"])
def test_the_recipes_run(recipe: str, inputs: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    paths = [str(inputs / name) for name in ("a.jpg", "photos/b.jpg", "more/c.png")] * 2
    tiny = f'"image-quality-assessment", model={str(tiny_checkpoint)!r}'
    code = _code(recipe).replace('"image-quality-assessment"', tiny)
    if recipe == "dataset.map":
        pytest.importorskip("datasets")
        before = (
            "from datasets import Dataset, Image\n"
            f"dataset = Dataset.from_dict({{'image': {paths!r}}}).cast_column('image', Image())\n"
        )
        code = before + code.replace("num_proc=4", "num_proc=2")
        code += "\nprint(len(scored['score']), min(scored['score']) >= 0)\n"
        command = [sys.executable]
    else:
        pytest.importorskip("accelerate")
        code = f"paths = {paths!r}\n" + code
        code += "\nif state.is_main_process:\n"
        code += f"    print(len(everything), [r['path'] for r in everything] == {paths!r})\n"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    script = tmp_path / "recipe.py"
    script.write_text(code)
    result = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "6 True"
