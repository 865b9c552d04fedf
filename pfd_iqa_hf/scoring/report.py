"""A run as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

from .records import Record
from .summary import Summary

__all__ = ["report_page"]

_COLOURS = ("#a50026", "#f46d43", "#d9b800", "#74add1", "#313695")
_BANDS = ("bad", "poor", "fair", "good", "excellent")
_STYLE = """
:root{--ink:#1c2330;--soft:#667085;--line:#e4e7ec;--paper:#fff;--ground:#f5f6f8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2d3442;
--paper:#171c26;--ground:#0f131a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:0 0 14px}
.soft{color:var(--soft)}
section{background:var(--paper);border:1px solid var(--line);border-radius:12px;
padding:20px;margin-top:20px}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px}
.numbers div{border:1px solid var(--line);border-radius:10px;padding:10px 14px}
.numbers b{display:block;font-size:24px;font-variant-numeric:tabular-nums}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:14px}
figure{margin:0;border:1px solid var(--line);border-radius:10px;overflow:hidden}
figure .frame{height:150px;background:var(--ground);display:flex;align-items:center;
justify-content:center;color:var(--soft);font-size:12px}
figure img{max-width:100%;max-height:150px;display:block}
figcaption{padding:8px 10px;font-size:12px;overflow-wrap:anywhere}
figcaption b{font-size:17px;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;padding:7px 10px 7px 0;border-top:1px solid var(--line);
vertical-align:top;overflow-wrap:anywhere}
th{border-top:0;color:var(--soft);font-weight:500}
td.count{text-align:right;font-variant-numeric:tabular-nums;padding-right:20px;width:1%}
svg text{fill:var(--soft);font-size:12px}svg line{stroke:var(--line)}
"""


def report_page(summary: Summary, facts: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        summary: What the run gave.
        facts: What it was made with, shown as a table; every value as text.
    """
    blocks = [_numbers(summary), _histogram(summary.histogram)]
    blocks.append(_pictures("Worst pictures", summary.worst))
    blocks.append(_pictures("Best pictures", summary.best))
    if summary.failed:
        blocks.append(_failures(summary.failures, summary.failed))
    blocks.append(_facts(facts))
    count = f"{summary.count:,} picture{'' if summary.count == 1 else 's'}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be loaded or run, whatever a file name tries.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
        f"<title>Image quality of {count}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body><main>\n<h1>Image quality of {count}</h1>\n"
        '<p class="soft" style="margin:0">Scores from 0 (worst) to 100 (best).</p>\n'
        + "\n".join(block for block in blocks if block)
        + "\n</main></body>\n</html>\n"
    )


def _numbers(summary: Summary) -> str:
    values = {
        "scored": f"{summary.scored:,}",
        "failed": f"{summary.failed:,}",
        "mean score": _number(summary.mean),
        "standard deviation": _number(summary.deviation),
        "lowest tenth up to": _number(summary.quantile(0.1)),
        "median": _number(summary.quantile(0.5)),
        "highest tenth from": _number(summary.quantile(0.9)),
    }
    cells = "".join(
        f'<div><b>{value}</b><span class="soft">{name}</span></div>'
        for name, value in values.items()
    )
    return f'<section><div class="numbers">{cells}</div></section>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _histogram(counts: Sequence[int]) -> str:
    """Bars as SVG, one for each five points, coloured by band."""
    width, height, left, top = 1060, 220, 10, 22
    highest = max(max(counts), 1)
    step = (width - 2 * left) / len(counts)
    parts = []
    for place, count in enumerate(counts):
        tall = (height - top) * count / highest
        x, y = left + place * step, height - tall
        colour = _COLOURS[place * len(_COLOURS) // len(counts)]
        span = f"{place * 5} to {place * 5 + 5}: {count:,}"
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{tall:.1f}" rx="3" '
            f'fill="{colour}"><title>{span}</title></rect>'
        )
        if count:
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{y - 5:.1f}" '
                f'text-anchor="middle">{count:,}</text>'
            )
    bands = len(_BANDS)
    for place, band in enumerate(_BANDS):
        x = left + (place + 0.5) * (width - 2 * left) / bands
        parts.append(f'<text x="{x:.1f}" y="{height + 34}" text-anchor="middle">{band}</text>')
    for place in range(bands + 1):
        x = left + place * (width - 2 * left) / bands
        anchor = "start" if place == 0 else "end" if place == bands else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{height + 17}" text-anchor="{anchor}">{place * 20}</text>'
        )
    parts.append(f'<line x1="{left}" x2="{width - left}" y1="{height}" y2="{height}"/>')
    return (
        "<section><h2>How the scores are spread</h2>"
        f'<svg viewBox="0 0 {width} {height + 40}" width="100%" role="img" '
        f'aria-label="Histogram of the scores">{"".join(parts)}</svg></section>'
    )


def _pictures(title: str, pictures: Sequence[tuple[Record, bytes | None]]) -> str:
    if not pictures:
        return ""
    figures = []
    for record, thumbnail in pictures:
        shown = thumbnail or _thumbnail_of_file(record["path"])
        path = _text(record["path"])
        if shown is None:
            frame = "no thumbnail kept"
        else:
            data = base64.b64encode(shown).decode()
            frame = f'<img alt="" src="data:image/jpeg;base64,{data}">'
        figures.append(
            f'<figure><div class="frame">{frame}</div><figcaption><b>{record["score"]:.1f}</b> '
            f'<span class="soft">{_text(record.get("label") or "")}</span><br>{path}</figcaption>'
            "</figure>"
        )
    return f'<section><h2>{title}</h2><div class="pictures">{"".join(figures)}</div></section>'


def _thumbnail_of_file(path: str) -> bytes | None:
    """Of a picture scored in an earlier go, if it is a file that still lies there."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (400, 400))
            picture.thumbnail((200, 200))
            file = io.BytesIO()
            ImageOps.exif_transpose(picture).convert("RGB").save(file, "JPEG", quality=80)
    except Exception:  # a page without one thumbnail is still a page
        return None
    return file.getvalue()


def _failures(failures: Sequence[Mapping[str, Any]], failed: int) -> str:
    rows = "".join(
        f'<tr><td class="count">{failure["count"]:,}</td><td>{_text(failure["reason"])}</td>'
        f'<td class="soft">{"<br>".join(_text(path) for path in failure["examples"])}</td></tr>'
        for failure in failures
    )
    return (
        f"<section><h2>{failed:,} without a score</h2><table>"
        f"<tr><th>pictures</th><th>reason</th><th>for example</th></tr>{rows}</table></section>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="soft" style="width:180px">{_text(name)}</td><td>{_text(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<section><h2>How it was made</h2><table>{rows}</table></section>"


def _text(value: Any) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
