"""Docstrings as they are written: formulas such as ``|x - y|`` and (K, B, *latent) are text, not markup."""

from __future__ import annotations

import re
from typing import Any

MARKUP = re.compile(r"(``.*?``|`[^`]*`_?|:\w+(?: [^:`]*)?:(?=\s|$))|(?<!\\)(\*+|\||(?<=\w)_(?!\w))")
"""Code, names and field lists, which stay; and what reStructuredText would take for markup."""


def _escape(line: str) -> str:
    return MARKUP.sub(lambda match: match[1] or "".join(f"\\{character}" for character in match[2]), line)


COLON = "\ue000"


def hide_colons(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keeps napoleon from reading "How it is done: by hand" of an attribute as its type and description."""
    if what in ("attribute", "property", "data"):
        lines[:] = [line.replace(":", COLON) for line in lines]


def plain(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escapes in place what is no markup, except in doctests."""
    doctest = False
    for i, line in enumerate(lines):
        doctest = line.lstrip().startswith(">>>") or (doctest and bool(line.strip()))
        lines[i] = (line if doctest else _escape(line)).replace(COLON, ":")


def setup(app: Any) -> dict[str, bool]:
    """One before, one after napoleon (priority 500), which reads the sections of the docstring."""
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", plain, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
