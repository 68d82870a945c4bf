"""The Python in the documents runs as it stands, page by page, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SHORTER = [(r"epochs=\d+", "epochs=1"), (r"samples=\d{3,}", "samples=10"), (r"range\(\d{3,}\)", "range(3)")]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


RUN = [page for page in PAGES if blocks(page) and page.name != "extending.md"]
"""extending.md holds files, not scripts, and has a test of its own."""


@pytest.mark.parametrize("page", RUN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page):
        for pattern, shorter in SHORTER:
            block = re.sub(pattern, shorter, block)
        exec(compile(block, str(page), "exec"), names)
