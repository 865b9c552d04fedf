"""How the page looks: fonts of the reader's own system, both themes, nothing from other hosts."""

from __future__ import annotations

from typing import Any

__all__ = ["CSS", "theme"]

_FONTS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Consolas", "DejaVu Sans Mono", "monospace"]


def theme() -> Any:
    """Gradio's plain theme with system fonts."""
    import gradio as gr
    from gradio.themes.utils.fonts import Font

    # Objects, because the theme takes bare names for fonts that it would have to bring along.
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        radius_size="lg",
        font=[Font(name) for name in _FONTS],
        font_mono=[Font(name) for name in _MONO],
    )


CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
.pfd-block, .pfd-block .html-container { padding: 0 !important; }
.pfd-head { padding: 1.2rem 0 .3rem; }
.pfd-head h1 { font-size: 1.7rem; font-weight: 700; margin: 0 0 .25rem; line-height: 1.2; }
.pfd-head p { margin: 0; color: var(--body-text-color-subdued); font-size: 1rem; }
.pfd-foot { color: var(--body-text-color-subdued); font-size: .85rem; padding: .4rem 0 1rem; }
.pfd-panel, .pfd-empty, .pfd-overlay {
    border: 1px solid var(--border-color-primary); border-radius: var(--block-radius);
    background: var(--block-background-fill); color: var(--body-text-color);
    padding: 1.1rem 1.3rem; margin: 0; }
.pfd-empty { min-height: 24rem; display: flex; align-items: center; justify-content: center;
    text-align: center; color: var(--body-text-color-subdued); }
.pfd-empty.pfd-flat { min-height: 7rem; }
.pfd-gauge { display: block; width: 100%; max-width: 25rem; margin: 0 auto; overflow: visible;
    color: var(--body-text-color); }
.pfd-gauge text { text-anchor: middle; fill: currentColor; font-family: var(--font); }
.pfd-number { font-size: 46px; font-weight: 700; }
.pfd-plus { font-size: 15px; opacity: .8; }
.pfd-tick { font-size: 11px; opacity: .7; }
.pfd-gauge .pfd-band { font-size: 13px; font-weight: 600; }
.pfd-span { opacity: .55; }
.pfd-needle { stroke: currentColor; stroke-width: 4; stroke-linecap: round; }
.pfd-needle-edge { stroke: var(--block-background-fill); stroke-width: 9; stroke-linecap: round; }
.pfd-file { text-align: center; color: var(--body-text-color-subdued); font-size: .88rem;
    margin: .7rem 0 0; overflow-wrap: anywhere; }
.pfd-note { text-align: center; font-size: .88rem; margin: .4rem 0 0; }
.pfd-small { font-size: .85rem; color: var(--body-text-color-subdued); margin: .2rem 0 .6rem; }
.pfd-columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr));
    gap: 1.2rem 1.6rem; margin-top: 1.1rem; }
.pfd-bars h3 { font-size: .8rem; font-weight: 600; margin: 0 0 .5rem;
    color: var(--body-text-color-subdued); }
.pfd-bars ul { list-style: none; margin: 0; padding: 0; }
.pfd-bars li { display: grid; grid-template-columns: 7.2rem 1fr 3.2rem; gap: .6rem;
    align-items: center; font-size: .88rem; padding: .14rem 0; margin: 0; }
.pfd-costs { margin-top: 1.1rem; }
.pfd-name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.pfd-value { text-align: right; font-variant-numeric: tabular-nums; }
.pfd-track { display: block; height: .55rem; border-radius: .3rem; overflow: hidden;
    background: var(--border-color-primary); }
.pfd-track > span { display: block; height: 100%; border-radius: .3rem; min-width: 2px;
    background: var(--body-text-color-subdued); }
.pfd-overlay { margin-top: .2rem; }
.pfd-overlay h3 { font-size: 1rem; font-weight: 600; margin: 0 0 .8rem; }
.pfd-stack { position: relative; width: fit-content; margin: 0 auto; line-height: 0; }
.pfd-stack img { display: block; max-width: 100%; max-height: 34rem; min-width: min(20rem, 100%);
    border-radius: calc(var(--block-radius) / 2); margin: 0; }
.pfd-stack .pfd-map { position: absolute; inset: 0; width: 100%; height: 100%; max-height: none;
    opacity: var(--strength); }
.pfd-overlay figcaption { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin-top: .9rem;
    justify-content: space-between; font-size: .88rem; }
.pfd-overlay label { display: flex; align-items: center; gap: .7rem; }
.pfd-overlay input { width: 11rem; accent-color: var(--color-accent); }
.pfd-overlay output { min-width: 3.2rem; font-variant-numeric: tabular-nums; }
.pfd-legend { display: flex; align-items: center; gap: .6rem; }
.pfd-scale { display: inline-block; width: 9rem; height: .6rem; border-radius: .3rem; }
.pfd-error { border-left: 4px solid #c2242e; }
.pfd-error h3 { font-size: 1rem; font-weight: 600; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.pfd-error p { margin: .2rem 0; overflow-wrap: anywhere; }
.pfd-verdict { font-size: 1.25rem; font-weight: 600; margin: 0 0 .6rem; }
.pfd-duel { display: grid; grid-template-columns: auto 1fr auto; gap: .8rem; align-items: center;
    font-variant-numeric: tabular-nums; font-weight: 600; }
.pfd-balance { display: block; height: .8rem; border-radius: .4rem; overflow: hidden;
    background: #f07f45; }
.pfd-balance > span { display: block; height: 100%; background: #3f6fc4; }
.pfd-card { min-width: 0; }
.pfd-table { width: 100%; border-collapse: collapse; font-size: .9rem; margin: 0; }
.pfd-table th { text-align: left; font-weight: 600; font-size: .8rem; padding: .3rem .5rem;
    color: var(--body-text-color-subdued); border: 0; }
.pfd-table td { padding: .35rem .5rem; vertical-align: middle; border: 0;
    border-top: 1px solid var(--border-color-primary); font-variant-numeric: tabular-nums; }
.pfd-table img { width: 56px; height: 42px; object-fit: cover; border-radius: .3rem; margin: 0; }
.pfd-path { overflow-wrap: anywhere; width: 32%; }
.pfd-score { min-width: 6.5rem; }
.pfd-score .pfd-track { margin-top: .25rem; }
.pfd-chip { border-radius: 1rem; padding: .1rem .6rem; font-size: .8rem;
    font-weight: 600; white-space: nowrap; }
.pfd-failed td { color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
@media (max-width: 640px) { .pfd-wide { display: none; } }
"""
