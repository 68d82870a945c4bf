"""Links between the documents lead somewhere; so do those of a built site."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#another) [c](page.md#one-thing) [d](gone.md) ![e](gone.png)\n")
    assert broken(page) == ["#another", "gone.md", "gone.png"]


def test_the_check_of_a_built_site_finds_broken_and_outside_references(tmp_path):
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs/check_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = tmp_path / "index.html"
    page.write_text('<h1 id="top"></h1><a href="#top"></a><a href="index.html#top"></a><a href="https://x.org"></a>')
    assert module.faults(tmp_path) == []
    page.write_text('<a href="#top"></a><img src="a.png"><script src="https://x.org/a.js"></script>')
    (tmp_path / "a.css").write_text("@import url(//x.org/a.css)")
    faults = module.faults(tmp_path)
    assert [line.split(": ")[-1] for line in faults] == [
        "no such anchor",
        "no such file",
        "loaded from outside",
        "loads from outside",
    ]
