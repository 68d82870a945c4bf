"""A report as a reader without a browser sees it: elements, headings, tables, figures."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Figure:
    title: str = ""
    words: str = ""
    alt: str = ""
    drawn: list = field(default_factory=list)


class Page(HTMLParser):
    """Collects what the tests ask for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.figures, self.rows = [], [], [], []
        self.headings, self.sections = [], []
        self.style, self.text = "", ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "figure":
            self.figures.append(Figure())
        if tag in ("svg", "img") and "figure" in self.open:
            self.figures[-1].drawn.append(tag)
            self.figures[-1].alt = attributes.get("aria-label") or attributes.get("alt", "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "h2":
            self.sections.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        self.text += data
        if inside == "style":
            self.style += data
        elif inside == "h3":
            self.figures[-1].title += data
        elif inside == "figcaption":
            self.figures[-1].words += data
        elif inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif inside == "h2":
            self.sections[-1] += data
        elif inside in ("h1", "title"):
            self.headings.append(data)

    def row(self, name):
        """The cells beside the first cell that says ``name``."""
        return next(row[1:] for row in self.rows if row and row[0] == name)

    def figure(self, start):
        """The figure whose title starts so."""
        return next(figure for figure in self.figures if figure.title.startswith(start))


def numbers_in(text):
    """Every number of a text, true minus signs and thousands separators read."""
    plain = text.replace("−", "-").replace(",", "")
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", plain)]


def loads(page):
    """Everything on a page that a browser would fetch or run: nothing may be in it."""
    found = [tag for tag, _ in page.elements if tag in ("script", "link", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            value = value or ""
            if key.startswith("on"):
                found.append(f"{tag} {key}")
            if key in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                inside = value.startswith("#") if key.endswith("href") and tag != "image" else False
                if not inside and not value.startswith("data:image/png;base64,"):
                    found.append(f"{tag} {key}={value[:60]}")
            if re.search(r"url\((?!#)|javascript:", value):
                found.append(f"{tag} {key}={value[:60]}")
    if re.search(r"@import|url\(", page.style):
        found.append("style")
    return found
