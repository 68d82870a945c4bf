"""One HTML page without scripts and without anything from outside; all text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lambent.data.pictures import data_uri, png


@dataclass(frozen=True)
class Panel:
    """A figure with its numbers in words.

    Attributes:
        title: What is shown, plain text.
        words: The numbers of the figure in sentences, plain text.
        svg: A drawing (trusted markup of ours), or nothing.
        picture: An RGB array (height, width, 3), or nothing.
        alt: What one would say of the figure to someone who can't see it; the words follow it anyway.
        wide: Takes the whole width.
        texts: Lines of plain text to be shown as they are, or none.
    """

    title: str
    words: str
    svg: str = ""
    picture: np.ndarray | None = None
    alt: str = ""
    wide: bool = False
    texts: Sequence[str] = ()

    def html(self) -> str:
        """The panel as an HTML figure element."""
        width = " wide" if self.wide else ""
        return (
            f'<figure class="panel{width}"><h3>{escape(self.title)}</h3>{self._figure()}'
            f"<figcaption>{escape(self.words)}</figcaption></figure>"
        )

    def _figure(self) -> str:
        if self.texts:
            return f'<pre class="texts">{escape(chr(10).join(self.texts))}</pre>'
        if self.picture is None:
            return self.svg
        height, width = self.picture.shape[:2]
        source, alt = data_uri(png(self.picture)), escape(self.alt or self.title, quote=True)
        return f'<div class="sheet"><img src="{source}" alt="{alt}" width="{width}" height="{height}"></div>'


@dataclass(frozen=True)
class Section:
    """A heading, perhaps a sentence, and what belongs under it."""

    title: str
    panels: Sequence[Panel] = ()
    text: str = ""
    raw: str = ""
    """Markup made by `table` or `details`."""

    def html(self) -> str:
        """The section as an HTML section element."""
        text = f'<p class="lead">{escape(self.text)}</p>' if self.text else ""
        panels = "".join(panel.html() for panel in self.panels)
        grid = f'<div class="grid">{panels}</div>' if panels else ""
        return f"<section><h2>{escape(self.title)}</h2>{text}{self.raw}{grid}</section>"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, numbers: Sequence[int] = ()) -> str:
    """A table of plain text; the columns in ``numbers`` are aligned right."""

    def cell(tag: str, text: str, column: int, scope: str = "") -> str:
        number = ' class="number"' if column in numbers else ""
        return f"<{tag}{scope}{number}>{escape(text)}</{tag}>"

    top = "".join(cell("th", text, i, ' scope="col"') for i, text in enumerate(head))
    body = "".join(
        "<tr>"
        + cell("th", row[0], 0, ' scope="row"')
        + "".join(cell("td", text, i) for i, text in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    headed = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="table"><table>{headed}<tbody>{body}</tbody></table></div>'


def details(summary: str, inside: str) -> str:
    """Markup that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def page(title: str, subtitle: str, facts: str, sections: Sequence[Section], foot: str) -> str:
    """The whole HTML document, as text."""
    body = "".join(section.html() for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<header><p class="kicker">lambent report</p><h1>{escape(title)}</h1><p class="lead">{escape(subtitle)}</p>'
        f"{facts}</header>{body}<footer><p>{escape(foot)}</p></footer></main></body></html>\n"
    )


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root{color-scheme:light;--ink:#1c2126;--soft:#59626b;--line:#dfe3e6;--paper:#fff;--tint:#f6f7f8;--accent:#0072b2;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 var(--sans);-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
.kicker{margin:0;color:var(--accent);font-size:13px;font-weight:600;letter-spacing:.06em;text-transform:uppercase}
h1{margin:2px 0 6px;font-size:30px;line-height:1.2;font-weight:650;overflow-wrap:anywhere}
h2{margin:52px 0 12px;padding-top:14px;border-top:1px solid var(--line);font-size:21px;font-weight:650}
h3{margin:0 0 8px;font-size:15px;font-weight:600;line-height:1.35}
p{margin:0 0 12px}
.lead{color:var(--soft);max-width:46em}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:34px 36px;align-items:start}
.panel{margin:0;min-width:0}
.wide{grid-column:1/-1}
figcaption{margin-top:8px;color:var(--soft);font-size:14px;line-height:1.45;max-width:46em}
.panel>svg{display:block;width:100%;height:auto;max-width:540px;overflow:visible}
.wide>svg{max-width:none}
svg text{font-family:var(--sans)!important}
svg *{stroke-linejoin:round}
.sheet img{display:block;max-width:min(100%,720px);height:auto}
.texts{margin:0;padding:12px 14px;background:var(--tint);white-space:pre-wrap;overflow-wrap:anywhere;
font:13.5px/1.5 ui-monospace,Menlo,Consolas,"Liberation Mono",monospace}
.table{overflow-x:auto}
table{border-collapse:collapse;font-size:15px;font-variant-numeric:tabular-nums}
th,td{padding:6px 22px 6px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;font-weight:400}
thead th{color:var(--soft);font-size:13px;border-bottom-color:#b9c0c6}
tbody th{color:var(--soft);white-space:nowrap}
td{overflow-wrap:break-word}
.number{text-align:right;white-space:nowrap}
details{margin:0 0 12px}
summary{cursor:pointer;color:var(--accent);padding:4px 0}
details table{font-size:13.5px}
details td{min-width:14em;overflow-wrap:anywhere}
code{font-family:ui-monospace,Menlo,Consolas,"Liberation Mono",monospace;font-size:.92em}
footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--line);color:var(--soft);font-size:13px}
@media(max-width:560px){main{padding:24px 16px 40px}h1{font-size:24px}h2{margin-top:38px;font-size:19px}
th,td{padding-right:14px}table{font-size:14px}}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}.panel{break-inside:avoid}}
"""
