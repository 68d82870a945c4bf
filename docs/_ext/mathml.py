"""Formulas as MathML, which browsers show by themselves: the site needs no script and loads nothing from outside."""

from __future__ import annotations

from typing import Any

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math.latex2mathml import tex2mathml


def _inline(translator: Any, node: math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _display(translator: Any, node: math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Registers the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
