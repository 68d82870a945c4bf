"""Texts as lines of a file: what would break or hide a line is escaped, so that each stays on one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Cs")
"""Controls, marks that change the direction of others, separators of lines, halves of characters."""


def escaped(text: str) -> str:
    r"""The text on one line: newlines as \n, other controls and invisible marks as \u and their number.

    >>> print(escaped("two\nlines, a \\ and a bell\a"))
    two\nlines, a \\ and a bell\u0007
    """
    return "".join(_SHORT.get(c) or (_number(c) if unicodedata.category(c) in _HIDDEN else c) for c in text)


def unescaped(line: str) -> str:
    r"""The text that `escaped` made ``line`` of.

    >>> unescaped(escaped("a\\n\nb\u2028")) == "a\\n\nb\u2028"
    True
    """
    found, at = [], 0
    back = {short[1]: c for c, short in _SHORT.items()}
    while at < len(line):
        mark = line[at + 1 : at + 2] if line[at] == "\\" else ""
        digits = {"u": 4, "U": 8}.get(mark, 0)
        found.append(chr(int(line[at + 2 : at + 2 + digits], 16)) if digits else back.get(mark, line[at]))
        at += 2 + digits if mark else 1
    return "".join(found)


def page_of(groups: Sequence[Sequence[str]]) -> bytes:
    """Lines, groups of several with an empty one between them, as UTF-8."""
    between = "\n" if any(len(group) > 1 for group in groups) else ""
    return between.join("".join(f"{escaped(text)}\n" for text in group) for group in groups).encode()


def _number(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}"
