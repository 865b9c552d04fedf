"""Measures the shipped file, and writes what is published about it; one command for all numbers.

    python benchmarks/publish.py --biq2021 BIQ2021 --livec ChallengeDB_release \
        --photographs CQ100/img --large wallpapers

Runs the scripts that have not measured the present weights with the present views (a result names
both), and writes

- `docs/results/`: each result as JSON, predictions for the rated sets as parquet, the scores of
  `examples/`;
- `docs/results.md`: every number beside the number to reach;
- the block between `<!-- results -->` marks of `README.md`;
- results and hash in `pfd_iqa_hf/hub/default_facts.json`, from which the model card is made.

`--only-write` measures nothing. Speed is measured by hand: see docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from measured_model import RESULTS, view_strategy
from pfd_iqa_hf.checkpoint import default_checkpoint, weights_sha256

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "docs" / "results"
FACTS = ROOT / "pfd_iqa_hf" / "hub" / "default_facts.json"
BEGIN, END = "<!-- results -->", "<!-- /results -->"
_PER_PICTURE = ("predictions", "rows", "pictures", "scores", "curve")

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Measurement:
    """One script's run.

    Args:
        name: Of its JSON file.
        words: Script and arguments; {biq2021} and so on are the folders given.
        own_views: Whether the script cuts views of its own, not the checkpoint's.
    """

    name: str
    words: str
    own_views: bool = False

    @property
    def command(self) -> str:
        """As the documents show it."""
        shown = {"biq2021": "BIQ2021", "livec": "ChallengeDB_release", "photographs": "CQ100/img"}
        shown |= {"large": "wallpapers", "results": "benchmarks/results"}
        return "python benchmarks/" + self.words.format(**shown)


MEASUREMENTS = (
    Measurement("authentic_biq2021", "authentic.py --dataset biq2021 --data-dir {biq2021}"),
    Measurement("authentic_livec", "authentic.py --dataset livec --data-dir {livec}"),
    Measurement("uncertainty_biq2021", "uncertainty.py {results}/authentic_biq2021.json"),
    Measurement("degradations", "degradations.py --photographs {photographs}"),
    Measurement("ladders", "ladders.py --photographs {photographs} --count 12"),
    Measurement(
        "composed_distortions", "composed_distortions.py --photographs {photographs} --count 12"
    ),
    Measurement("quality_map", "quality_map.py --photographs {photographs} --count 24"),
    Measurement(
        "invariance", "invariance.py --photographs {photographs} --count 24 --large {large}"
    ),
    Measurement("counterfactuals", "counterfactuals.py --photographs {photographs} --count 5"),
    Measurement(
        "content_leak",
        "content_leak.py --photographs {photographs} --dtype bfloat16",
        own_views=True,
    ),
    Measurement("unfamiliar", "unfamiliar.py --photographs {photographs}"),
    Measurement("boxes_alive", "boxes_alive.py --data-dir {biq2021} --count 100", own_views=True),
)


def main() -> None:
    """Measures what is stale, then writes everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("biq2021", "livec", "photographs", "large"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--only-write", action="store_true")
    parser.add_argument("--only", nargs="+", help="measure these alone", metavar="NAME")
    arguments = parser.parse_args()
    sha = weights_sha256(default_checkpoint())
    if not arguments.only_write:
        folders = {k: v for k, v in vars(arguments).items() if isinstance(v, Path)}
        measure_all(sha, folders | {"results": RESULTS}, arguments.only)
    publish(sha)


def measure_all(sha: str, folders: dict[str, Path], only: Sequence[str] | None) -> None:
    """Runs every script without a current result, if its folders are given."""
    for measurement in MEASUREMENTS:
        found = _load(RESULTS / f"{measurement.name}.json")
        if _is_current(measurement, found, sha) or (only and measurement.name not in only):
            continue
        try:
            words = measurement.words.format(**folders).split()
        except KeyError as error:
            print(f"{measurement.name}: not measured, --{error.args[0]} is not given")
            continue
        print(f"=== {measurement.command}", flush=True)
        subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]], check=True
        )


def publish(sha: str) -> None:
    """Writes documents from the results that are about the present weights."""
    PUBLISHED.mkdir(exist_ok=True)
    for measurement in MEASUREMENTS:
        result = _load(RESULTS / f"{measurement.name}.json")
        if not _is_current(measurement, result, sha):
            continue
        if "predictions" in result and measurement.name.startswith("authentic"):
            table = pa.Table.from_pylist(result["predictions"])
            pq.write_table(table, PUBLISHED / f"{measurement.name}.parquet", compression="zstd")
        short = {key: value for key, value in result.items() if key not in _PER_PICTURE}
        _write_json(PUBLISHED / f"{measurement.name}.json", short)
    _write_json(PUBLISHED / "examples.json", {"model_sha256": sha, "scores": example_scores()})
    results = published_results(sha)
    (ROOT / "docs" / "results.md").write_text(results_page(sha, results), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_block(readme.read_text("utf-8"), results), encoding="utf-8")
    facts = json.loads(FACTS.read_text("utf-8"))
    facts |= {"weights_sha256": sha, "results": facts_results(results)}
    facts["results_note"] = results_note(results)
    _write_json(FACTS, facts, indent=2)


def published_results(sha: str) -> dict[str, dict[str, Any]]:
    """What lies in `docs/results` and is about these weights."""
    found = [(m, _load(PUBLISHED / f"{m.name}.json")) for m in MEASUREMENTS]
    return {m.name: result for m, result in found if _is_current(m, result, sha)}


def example_scores() -> dict[str, float]:
    """Score of every example photograph and degraded copy."""
    from transformers import pipeline

    import pfd_iqa_hf  # noqa: F401  registers the task

    build: Any = pipeline
    assess = build("image-quality-assessment", dtype="float32")
    files = sorted(path for path in (ROOT / "examples").glob("*/*.jpg"))
    names = [path.relative_to(ROOT / "examples").as_posix() for path in files]
    outputs = assess([str(path) for path in files])
    return {name: round(row["score"], 3) for name, row in zip(names, outputs, strict=True)}


def with_block(readme: str, results: dict[str, dict[str, Any]]) -> str:
    """The README with the present numbers between the marks."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    lines = ["| what | result | command |", "|---|---|---|"]
    lines += [f"| {what} | {number} | `{command}` |" for what, number, command in rows(results)]
    return before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after


def rows(results: dict[str, dict[str, Any]]) -> list[Row]:
    """What is said, its number, and the command; only of what was measured."""
    found: list[Row] = []
    for name, what, number in _ROWS:
        if name in results:
            command = next(m.command for m in MEASUREMENTS if m.name == name)
            found.append((what, number(results[name]), command))
    return found


def results_page(sha: str, results: dict[str, dict[str, Any]]) -> str:
    """`docs/results.md`."""
    lines = [
        "# Results",
        "",
        f"Of the bundled checkpoint (weights {sha}), written by `benchmarks/publish.py` from",
        "`docs/results/*.json`. Limits are the numbers that this project set out to reach.",
    ]
    for measurement in MEASUREMENTS:
        result = results.get(measurement.name)
        if result is None:
            continue
        lines += ["", f"## {measurement.name.replace('_', ' ')}", ""]
        lines += ["```bash", measurement.command, "```", ""]
        lines += ["| what | measured | to reach | |", "|---|---|---|---|"]
        lines += [_target_row(row) for row in _targets_of(result)]
    return "\n".join(lines) + "\n"


def facts_results(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Correlations with people's scores, as the model card lists them."""
    listed = []
    for name, dataset, split in (
        ("authentic_biq2021", "BIQ2021", "test"),
        ("authentic_livec", "LIVE In the Wild", "all"),
    ):
        if name not in results:
            continue
        result = results[name]
        for measure in ("srcc", "plcc"):
            row = {
                "dataset": dataset,
                "dataset_id": name.removeprefix("authentic_"),
                "split": split,
                "pictures": result["count"],
                "measure": measure,
                "value": round(result[measure], 3),
            }
            if measure == "srcc":
                row["lower"], row["upper"] = (round(v, 3) for v in result["srcc_interval_95"])
            if split == "all":
                row["note"] = "another data set than the one it was trained on"
            row["command"] = next(m.command for m in MEASUREMENTS if m.name == name)
            listed.append(row)
    return listed


def results_note(results: dict[str, dict[str, Any]]) -> str:
    """A sentence or two beside the table of the card."""
    precisions = {result.get("dtype") for result in results.values() if "srcc" in result}
    note = "Of these weights with their default views"
    note += ", in bfloat16." if precisions == {"bfloat16"} else "."
    if "authentic_biq2021" in results:
        biq = results["authentic_biq2021"]
        within, covered = biq["srcc_within_subset_mean"], 100 * biq["coverage_of_80_interval"]
        note += (
            f" Within BIQ2021's three subsets the mean SRCC is {_dot(within)}: the subset alone,"
        )
        note += (
            " read from the file name, gives .62. The 80 % interval (score ± 1.28 × uncertainty)"
        )
        note += f" holds the mean opinion of {covered:.1f} % of BIQ2021's test pictures"
        if "authentic_livec" in results:
            covered = 100 * results["authentic_livec"]["coverage_of_80_interval"]
            note += f" and of {covered:.1f} % of LIVE In the Wild's"
        note += "."
    return note


def _dot(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1)


def _interval(result: dict[str, Any]) -> str:
    low, high = result["srcc_interval_95"]
    return (
        f"{_dot(result['srcc'])} (95 % interval {_dot(low)} to {_dot(high)}) / "
        f"{_dot(result['plcc'])}"
    )


def _target(name: str) -> Callable[[dict[str, Any]], str]:
    """Text of the first target whose name begins so."""

    def text(result: dict[str, Any]) -> str:
        return next(_number(row) for row in _targets_of(result) if row["name"].startswith(name))

    return text


def _targets_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.get("targets") or []
    if "caught" in result:
        return _shares(result["false_alarms"], "false alarms", 0.02) + _shares(
            result["caught"], "caught"
        )
    if "pairs" in result:
        pairs, maps = result["pairs"]["overall"], result["map"]["overall"]
        return [
            {"name": "two or more levels apart", "value": pairs["two_or_more_levels"]},
            {"name": "neighbouring levels", "value": pairs["neighbours"]},
            {"name": "untouched over levels 2 to 4", "value": pairs["clean_over_level_2_to_4"]},
            {"name": "spoilt quadrant is the lowest of the map", "value": maps["found"]},
        ]
    if found or "srcc" not in result:
        return found
    kept = {"srcc": "SRCC", "plcc": "PLCC", "plcc_after_logistic4": "PLCC after logistic fit"}
    kept |= {"krcc": "KRCC", "srcc_within_subset_mean": "SRCC within subsets, mean"}
    rows = [
        {"name": kept[key], "value": result[key]} for key in kept if result.get(key) is not None
    ]
    rows.append({"name": "RMSE, points", "value": result["rmse"]})
    share = {"name": "80 % interval covers", "share": True}
    return [*rows, {**share, "value": result["coverage_of_80_interval"]}]


def _shares(parts: dict[str, Any], what: str, most: float | None = None) -> list[dict[str, Any]]:
    rows = []
    for name, part in parts.items():
        row = {"name": f"{what}, {name}", "value": part["share"], "share": True, "most": most}
        if most is not None:
            row["holds"] = part["share"] <= most
        rows.append(row)
    return rows


def _number(row: dict[str, Any], key: str = "value") -> str:
    value = row.get(key)
    if value is None:
        return "–"
    if row.get("share"):
        return f"{100 * value:.1f} %"
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def _target_row(row: dict[str, Any]) -> str:
    sides = [f"≥ {_number(row, 'least')}"] if row.get("least") is not None else []
    sides += [f"≤ {_number(row, 'most')}"] if row.get("most") is not None else []
    verdict = {True: "holds", False: "**does not hold**"}.get(row.get("holds"), "")  # type: ignore[arg-type]
    name = row["name"].strip().replace("|", "\\|")
    return f"| {name} | {_number(row)} | {', '.join(sides)} | {verdict} |"


def _is_current(measurement: Measurement, result: dict[str, Any], sha: str) -> bool:
    """Whether a result is of these weights, as shipped and as the shown command measures them."""
    dtype = "bfloat16" if "--dtype bfloat16" in measurement.words else "float32"
    views = view_strategy(default_checkpoint())
    return (
        result.get("model_sha256") == sha
        and result.get("dtype") == dtype
        and (measurement.own_views or result.get("view_strategy") == views)
    )


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _write_json(path: Path, content: dict[str, Any], indent: int = 1) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


_ROWS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("authentic_biq2021", "BIQ2021, official test split (2,000 pictures), SRCC / PLCC", _interval),
    (
        "authentic_biq2021",
        "the same, mean SRCC within its three subsets",
        lambda result: _dot(result["srcc_within_subset_mean"]),
    ),
    (
        "authentic_livec",
        "LIVE In the Wild, all 1,162 pictures, never trained on, SRCC / PLCC",
        _interval,
    ),
    (
        "ladders",
        "milder degradation scores above one two or more levels stronger, 20 types",
        _target("20 types, two or more"),
    ),
    ("ladders", "the same, neighbouring levels", _target("20 types, neighbours")),
    ("ladders", "degradation named first, of 11 groups and none", _target("distortion type named")),
    (
        "composed_distortions",
        "two degradations at once: both among the first three named",
        _target("both groups"),
    ),
    (
        "counterfactuals",
        "the degradation that was applied is what costs most, levels 3 to 5",
        _target("applied group costs most"),
    ),
    (
        "content_leak",
        "what the photograph's content explains of a feature falls by denoising, relative",
        _target("content falls"),
    ),
    (
        "quality_map",
        "a degraded quadrant is the lowest of the quality map",
        _target("degraded quadrant"),
    ),
    (
        "uncertainty_biq2021",
        "80 % interval covers, BIQ2021 test",
        _target("80 % interval covers, all"),
    ),
    (
        "uncertainty_biq2021",
        "RMSE falls when the 20 % most uncertain are put aside, by",
        _target("RMSE cut"),
    ),
    ("invariance", "mirrored: mean change in points", _target("mirrored: mean")),
    (
        "invariance",
        "half size against full, large photographs: SRCC",
        _target("half size against full: SRCC"),
    ),
)


if __name__ == "__main__":
    main()
