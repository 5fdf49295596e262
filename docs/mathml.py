"""Formulas as MathML, written when the site is built: every browser draws it, and no script has to be fetched.

A hook of mkdocs. pymdownx.arithmatex marks the formulas; latex2mathml translates them.
"""

from __future__ import annotations

import html
import re
from typing import Any

import latex2mathml.converter

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """Translates the formulas of a page.

    Args:
        content: The page's HTML.

    Returns:
        The same with `<math>` where formulas were marked.
    """
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    is_block = match["block"] is not None
    formula = html.unescape(match["block"] if is_block else match["inline"]).strip()
    mathml = latex2mathml.converter.convert(formula, display="block" if is_block else "inline")
    return f'<div class="formula">{mathml}</div>' if is_block else mathml
