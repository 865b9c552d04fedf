"""The page's layout, and the named endpoints beside it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pfd_iqa_hf.demo.answers import (
    EMPTY,
    EMPTY_MANY,
    EMPTY_PAIR,
    ORDERS,
    PageAnswers,
    ProgramAnswers,
)
from pfd_iqa_hf.demo.assess import Assessor
from pfd_iqa_hf.demo.overlay import SLIDER_SCRIPT
from pfd_iqa_hf.demo.text import shown
from pfd_iqa_hf.demo.uploads import holds_address

__all__ = ["build_app"]

_HEAD = """<div class="pfd-head"><h1>How good does this photograph look?</h1>
<p>A score from 0 (worst) to 100 (best), without a reference picture.</p></div>"""


_NO_FILES = "the call holds something else than uploaded files: send them with `handle_file`"


class _LocalBlocks(gr.Blocks):
    """Takes sent files only: an address in a call would make this machine download it."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kw: Any) -> Any:
        """Refuse addresses and what was never uploaded, then go on as gradio does."""
        if holds_address(inputs):
            raise gr.Error(
                "addresses are not fetched: download the picture and send its file",
                print_exception=False,
            )
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kw)
        except gr.Error:  # a ValueError, too
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # A path outside of the upload cache, or no file at all.
            raise gr.Error(_NO_FILES, print_exception=False) from error


def build_app(assessor: Assessor) -> gr.Blocks:
    """The whole application, ready for `launch`.

    Args:
        assessor: Scores the pictures; the queue has its limits.
    """
    page, programs = PageAnswers(assessor), ProgramAnswers(assessor)
    # `preprocess=False` throughout: gradio would open pictures itself, and turn or re-encode them.
    # Its check that a file lies in the upload cache comes before and stays.
    scoring: dict[str, Any] = {
        "concurrency_limit": assessor.limits.concurrency,
        "concurrency_id": "scoring",
        "preprocess": False,
    }
    hidden: dict[str, Any] = {**scoring, "api_visibility": "private"}
    with _LocalBlocks(title="PFD-IQA: image quality", analytics_enabled=None) as blocks:
        _add_endpoints(programs, scoring)  # first, or the page's own events take their names
        _html(_HEAD)
        with gr.Tabs():
            with gr.Tab("One picture"):
                with gr.Row(equal_height=True):
                    with gr.Column(scale=5, min_width=320):
                        picture = _picture_input("Picture", 420)
                    with gr.Column(scale=6, min_width=320):
                        score = _html(EMPTY, elem_id="score")
                figure = _html("", elem_id="map", js_on_load=SLIDER_SCRIPT)
            with gr.Tab("Compare two"):
                with gr.Row():
                    first, second = (
                        _picture_input("Picture A", 300),
                        _picture_input("Picture B", 300),
                    )
                verdict = _html(EMPTY_PAIR, elem_id="verdict")
            with gr.Tab("Many pictures"):
                files = gr.File(label="Pictures", file_count="multiple", height=200)
                order = gr.Radio(
                    [("Worst first", "worst"), ("Best first", "best")],
                    value="worst",
                    show_label=False,
                    container=False,
                )
                table = _html(EMPTY_MANY, elem_id="many")
                rows = gr.State(time_to_live=600)
        _html(_foot(assessor))
        picture.change(page.assess, picture, [score, figure], **hidden)
        for side in (first, second):
            side.change(page.compare, [first, second], verdict, **hidden)
        files.change(page.assess_many, [files, order], [table, rows], **hidden)
        order.input(page.arrange, [rows, order], table, queue=False, api_visibility="private")
    blocks.queue(max_size=assessor.limits.queue_size, api_open=False)
    return blocks


def _html(value: str, **options: Any) -> gr.HTML:
    # Without gradio's style of running text, which draws frames around tables.
    return gr.HTML(value, apply_default_css=False, elem_classes="pfd-block", **options)


def _picture_input(label: str, height: int) -> gr.Image:
    # The type only matters to gradio's preprocessing, which is off.
    return gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        type="filepath",
        image_mode=None,
        height=height,
        buttons=[],
    )


def _add_endpoints(programs: ProgramAnswers, scoring: dict[str, Any]) -> None:
    """Components that are never seen describe the endpoints to clients and to the page's guide."""

    def file(label: str, **options: Any) -> gr.File:
        return gr.File(label=label, visible=False, **options)

    wish = gr.Radio(list(ORDERS), value="worst", label="order", visible=False)
    answer = gr.JSON(visible=False)
    button = gr.Button(visible=False)
    button.click(programs.assess, file("picture"), answer, api_name="assess", **scoring)
    button.click(
        programs.compare, [file("first"), file("second")], answer, api_name="compare", **scoring
    )
    several = file("pictures", file_count="multiple")
    button.click(programs.assess_many, [several, wish], answer, api_name="assess_many", **scoring)


def _foot(assessor: Assessor) -> str:
    limits = assessor.limits
    model = f"{shown(assessor.origin['model'])} ({assessor.origin['model_sha256']})"
    return (
        f'<p class="pfd-foot">Model: {model}. Pictures stay on this server, are deleted after '
        f"{limits.cache_seconds / 60:g} minutes and are sent to nobody. At most "
        f"{limits.max_file_bytes / (1 << 20):g} MB and {limits.max_pixels / 1e6:g} megapixels a "
        "picture. The score is about technical quality, not about taste.</p>"
    )
