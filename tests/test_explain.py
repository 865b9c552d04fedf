"""`pfd-iqa score --explain`: what each distortion takes from the score, in every kind of output."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_models import awake_model, tiny_config

from pfd_iqa_cli.main import run
from pfd_iqa_cli.table import print_table
from pfd_iqa_hf import PfdIqaImageProcessor
from pfd_iqa_hf.demo.assess import Assessment
from pfd_iqa_hf.demo.panels import Scale, score_panel
from pfd_iqa_hf.scoring.folder import FolderScorer, load_pipeline
from pfd_iqa_hf.scoring.records import RECORD_FIELDS, make_record

COSTS = [{"label": "noise", "points": 14.2}, {"label": "blur", "points": 1.0}]
COSTS += [{"label": "color", "points": 0.9}]


@pytest.fixture(scope="module")
def folder(photograph: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(photograph).save(folder / "a.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_records_have_the_pipelines_costs(
    format: str, folder: Path, short_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / f"scores.{format}"
    model = ("--model", str(short_checkpoint), "--device", "cpu")
    assert run(["score", str(folder), "--explain", *model, "-o", str(output)]) == 1
    records: list[dict[str, Any]]
    if format == "parquet":
        records = pq.read_table(output).to_pylist()
    elif format == "jsonl":
        records = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        records = list(csv.DictReader(io.StringIO(output.read_text())))
        records = [{**r, "costs": json.loads(r["costs"] or "null")} for r in records]
    assert all(tuple(record) == (*RECORD_FIELDS, "costs") for record in records)
    scored, broken = records
    assert broken["costs"] is None and broken["error"]
    assess = load_pipeline(str(short_checkpoint), device="cpu")
    expected = assess(str(folder / "a.png"), explain=True)["costs"]
    assert [entry["label"] for entry in scored["costs"]] == [e["label"] for e in expected]
    points = [entry["points"] for entry in expected]
    np.testing.assert_allclose([e["points"] for e in scored["costs"]], points, atol=0.01)


def test_the_tables_have_one_readable_line() -> None:
    result = {"score": 50.0, "label": "fair", "uncertainty": 9.0}
    result["levels"] = result["distortions"] = [{"label": "none", "score": 1.0}]
    records = [
        make_record(name, {}, {**result, "costs": costs}, (8, 8), extra=("costs",))
        for name, costs in (("a", COSTS), ("b", COSTS[2:]))
    ]
    records.append(make_record("c", {}, error="is broken", extra=("costs",)))
    stream = io.StringIO()
    print_table(records, stream)
    assert "noise costs 14 points, blur 1" in stream.getvalue()
    assert "nothing costs a point" in stream.getvalue()
    plain = io.StringIO()
    print_table([make_record("a", {}, result, (8, 8))], plain)
    assert "points" not in plain.getvalue()


def test_the_page_lists_what_costs_a_point() -> None:
    scale = Scale(["bad", "poor", "fair", "good", "excellent"], [20, 40, 60, 80])
    result = {"score": 50.0, "label": "fair", "uncertainty": 9.0, "distortions": []}
    result["levels"] = [{"label": name, "score": 0.2} for name in scale.names]
    record = {"name": "a", **make_record("a", {}, result, (8, 8))}
    small = Image.new("RGB", (8, 8))
    page = score_panel(Assessment(record, small, None, COSTS), scale)
    assert "What costs how many points" in page and ">noise<" in page and ">14<" in page
    assert ">blur<" in page and ">color<" not in page
    for costs in (None, COSTS[2:]):
        page = score_panel(Assessment(record, small, None, costs), scale)
        assert "What costs" not in page


def test_what_cannot_explain_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(folder / "a.png")
    onnx = ("--backend", "onnx", "--model", "x.onnx")
    assert run(["score", picture, "--explain", *onnx]) == 64
    assert "cannot tell what distortions cost" in capsys.readouterr().err
    awake_model(tiny_config(denoiser="none")).save_pretrained(tmp_path)
    PfdIqaImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no prior discovery or no denoiser"):
        FolderScorer(str(tmp_path), "cpu", explain=True)
