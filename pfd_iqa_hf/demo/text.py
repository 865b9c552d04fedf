"""Words and numbers as text of the page."""

from __future__ import annotations

from html import escape

__all__ = ["percent", "shown"]

# The page's components read these as templates, wherever the text comes from.
_TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def shown(text: str) -> str:
    """HTML that shows `text` as it is, between tags or in an attribute; names of files are wild."""
    return escape(text).translate(_TEMPLATE_SIGNS)


def percent(share: float) -> str:
    """A share as HTML text, never rounded to a certainty that it is not."""
    if 0 < share < 0.005:
        return "&lt;1 %"
    if 0.995 < share < 1:
        return "&gt;99 %"
    return f"{100 * share:.0f} %"
