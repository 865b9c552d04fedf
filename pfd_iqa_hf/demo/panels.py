"""What the page answers with: one picture, a comparison, a table of many, or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pfd_iqa_hf.demo.assess import Assessment
from pfd_iqa_hf.demo.gauge import band_colour, bars, gauge, ink_on
from pfd_iqa_hf.demo.text import percent, shown
from pfd_iqa_hf.modeling.picture_reading import PictureError

__all__ = ["Row", "Scale", "comparison_panel", "error_panel", "many_panel", "score_panel"]

Record = dict[str, Any]

_DISTORTIONS = 5
_LOW_RESOLUTION = "The picture had to be enlarged: its score is less certain than it says."
_UNFAMILIAR = (
    "This does not look like the photographs that the model was trained on: do not rely on the "
    "score."
)


@dataclass(frozen=True)
class Scale:
    """The model's bands.

    Attributes:
        names: From the worst to the best.
        borders: Scores between them, one less than names.
    """

    names: Sequence[str]
    borders: Sequence[float]


@dataclass(frozen=True)
class Row:
    """A line of the table of many pictures.

    Attributes:
        record: Of the picture; `error` says why it has no score.
        thumbnail: `data:` address of a small copy, empty where there is none.
    """

    record: Record
    thumbnail: str = ""


def score_panel(assessment: Assessment, scale: Scale) -> str:
    """Gauge, bars of levels and distortions, and what the picture is."""
    record = assessment.record
    middles = dict(zip(scale.names, _middles(scale.borders), strict=True))
    shares = {entry["label"]: entry["score"] for entry in record["levels"]}
    levels = [
        (name, shares[name], band_colour(middles[name], scale.borders))
        for name in reversed(scale.names)
    ]
    distortions = [
        ("no distortion" if entry["label"] == "none" else entry["label"], entry["score"], None)
        for entry in record["distortions"][:_DISTORTIONS]
    ]
    notes = [
        f'<p class="pfd-note">{note}</p>'
        for key, note in (("low_resolution", _LOW_RESOLUTION), ("unfamiliar", _UNFAMILIAR))
        if record.get(key)
    ]
    return (
        f'<div class="pfd-panel" data-score="{record["score"]!r}">'
        f"{gauge(record, scale.borders, record['name'])}"
        f'<p class="pfd-file">{_facts(record)}</p>{"".join(notes)}'
        f'<div class="pfd-columns">{bars("How people might rate it", levels)}'
        f"{bars('Faults it may have', distortions)}</div>{_costs(assessment)}</div>"
    )


def _costs(assessment: Assessment) -> str:
    """What costs how many points; nothing where nothing costs one."""
    dear = [entry for entry in assessment.costs or () if entry["points"] >= 1]
    if not dear:
        return ""
    lines = [
        f'<li><span class="pfd-name">{shown(entry["label"])}</span>'
        '<span class="pfd-track" aria-hidden="true">'
        f'<span style="width:{min(entry["points"], 100):.1f}%"></span></span>'
        f'<span class="pfd-value">{entry["points"]:.0f}</span></li>'
        for entry in dear
    ]
    return (
        '<section class="pfd-bars pfd-costs"><h3>What costs how many points</h3>'
        f"<ul>{''.join(lines)}</ul></section>"
    )


def comparison_panel(
    first: Assessment, second: Assessment, ranked: Record, scale: Scale, is_default: bool
) -> str:
    """Both gauges and a sentence with the probability."""
    cards = []
    for letter, assessment in (("A", first), ("B", second)):
        record = assessment.record
        cards.append(
            f'<div class="pfd-card">{gauge(record, scale.borders, f"Picture {letter}")}'
            f'<p class="pfd-file"><b>{letter}</b> {_facts(record)}</p></div>'
        )
    best = ranked["ranking"][0]
    probability = float(best["better_than_next"])
    gap = first.record["score"] - second.record["score"]
    share = probability if gap >= 0 else 1.0 - probability
    if gap == 0:
        verdict = "Neither looks better."
    else:
        sure = "probably" if probability >= 0.75 else "perhaps"
        sure = "almost certainly" if probability >= 0.95 else sure
        verdict = f"Picture {'A' if gap > 0 else 'B'} {sure} looks better."
    note = "" if is_default else "The probability was calibrated for the bundled checkpoint."
    return (
        f'<div class="pfd-panel" data-probability="{probability!r}">'
        f'<p class="pfd-verdict">{verdict}</p>'
        '<div class="pfd-duel" role="img" aria-label="'
        f'A looks better with {percent(share)}, B with {percent(1 - share)} probability">'
        f'<span>A {percent(share)}</span><span class="pfd-balance">'
        f'<span style="width:{100 * share:.1f}%"></span></span>'
        f"<span>B {percent(1 - share)}</span></div>"
        '<p class="pfd-small">Probability that people would prefer it, from both scores and their '
        f"uncertainties. {note}</p>"
        f'<div class="pfd-columns">{"".join(cards)}</div></div>'
    )


def many_panel(rows: Sequence[Row], order: str, scale: Scale) -> str:
    """A table, scored pictures by `order` (worst or best first), then those that have no score."""
    scored = sorted(
        (row for row in rows if row.record["error"] is None),
        key=lambda row: row.record["score"],
        reverse=order == "best",
    )
    failed = [row for row in rows if row.record["error"] is not None]
    lines = [_scored_line(place, row, scale) for place, row in enumerate(scored, start=1)]
    lines += [_failed_line(row) for row in failed]
    told = f"{len(scored)} scored" + (f", {len(failed)} could not be read" if failed else "")
    return (
        f'<div class="pfd-panel"><p class="pfd-small">{told}, {shown(order)} first</p>'
        '<table class="pfd-table"><thead><tr><th>#</th><th></th><th>File</th>'
        '<th>Score</th><th class="pfd-wide">±</th><th>Band</th>'
        '<th class="pfd-wide">Most likely fault</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def error_panel(error: PictureError) -> str:
    """Which picture, why, and what to do."""
    return (
        '<div class="pfd-panel pfd-error" role="alert">'
        f"<h3>{shown(error.source)} cannot be scored</h3>"
        f"<p>It {shown(_sentence(error.reason))}.</p>"
        f"<p>What to do: {shown(error.remedy)}.</p></div>"
    )


def _sentence(reason: str) -> str:
    # Reasons continue the picture's name ("is not a picture"); a few are sentences of their own.
    starts = ("is ", "cannot ", "has ", "does ", "was ", "may ", "took ")
    return reason if reason.startswith(starts) else f"cannot be used: {reason}"


def _scored_line(place: int, row: Row, scale: Scale) -> str:
    record = row.record
    colour = band_colour(record["score"], scale.borders)
    fault = next((e for e in record["distortions"] if e["label"] != "none"), None)
    told = "" if fault is None else f"{shown(fault['label'])} ({percent(fault['score'])})"
    return (
        f'<tr data-score="{record["score"]!r}"><td>{place}</td>'
        f'<td><img src="{row.thumbnail}" alt=""></td><td class="pfd-path">{shown(record["name"])}'
        f'</td><td class="pfd-score"><b>{record["score"]:.1f}</b>'
        f'<span class="pfd-track" aria-hidden="true"><span style="width:{record["score"]:.1f}%;'
        f'background:{colour}"></span></span></td>'
        f'<td class="pfd-wide">{record["uncertainty"]:.1f}</td>'
        f'<td><span class="pfd-chip" style="background:{colour};color:{ink_on(colour)}">'
        f'{shown(record["label"])}</span></td><td class="pfd-wide">{told}</td></tr>'
    )


def _failed_line(row: Row) -> str:
    return (
        f'<tr class="pfd-failed"><td>–</td><td></td><td class="pfd-path">'
        f'{shown(row.record["name"])}</td><td colspan="4">{shown(row.record["error"])}</td></tr>'
    )


def _facts(record: Record) -> str:
    return f"{shown(record['name'])}, {record['width']} × {record['height']} pixels"


def _middles(borders: Sequence[float]) -> list[float]:
    edges = [0.0, *borders, 100.0]
    return [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
