"""Checks a built site: every local link leads somewhere, and no page loads anything from outside.

``python docs/check_links.py build/docs`` prints one line for each fault and exits with 1 if there are any.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
"""What a browser fetches by itself when it opens a page."""


class Page(HTMLParser):
    """The anchors of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects ids and references."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append((value, (tag, name) in LOADS))


def faults(site: Path) -> list[str]:
    """One line for each broken or outside reference of the pages under ``site``."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link, loaded in page.links:
            fault = _fault(link, loaded, path, pages)
            if fault:
                found.append(f"{path.relative_to(site.resolve())}: {link}: {fault}")
    sheets = (path for path in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", path.read_text("utf-8")))
    return [*found, *(f"{path.relative_to(site)}: loads from outside" for path in sheets)]


def _fault(link: str, loaded: bool, path: Path, pages: dict[Path, Page]) -> str | None:  # noqa: FBT001
    parts = urlsplit(link)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return "loaded from outside" if loaded else None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "no such anchor"
    return None


if __name__ == "__main__":
    lines = faults(Path(sys.argv[1]))
    print("\n".join(lines) or "all local links lead somewhere, and nothing is loaded from outside")
    sys.exit(bool(lines))
