"""The page of systems lists what there is."""

from __future__ import annotations

import re
from pathlib import Path

import lambent
from lambent.recipes import configure
from lambent.settings import registry

ROOT = Path(__file__).parents[2]


def test_the_page_of_systems_lists_every_recipe_and_part():
    text = (ROOT / "docs/systems.md").read_text()
    missing = [name for name in lambent.recipe_names() if f"`{name}`" not in text]
    for kind in registry.parts.keys() - {"data", "train"}:
        missing += [f"{kind} {name}" for name in registry.names(kind) if f"`{name}`" not in text]
    assert not missing


TITLES = {
    "bernoulli": "Bernoulli",
    "normal": "Normal",
    "discretised-logistic": "discretised logistic",
    "logistic-mixture": "mixture of logistics",
    "pixel-mixture": "mixture of logistics per pixel",
    "categorical": "categorical",
    "text": "text",
}


def test_the_table_of_systems_names_their_likelihoods():
    """In the last column, where it isn't empty."""
    rows = re.findall(r"^\| (`[^|]*) \|.*\| ([^|]*) \|$", (ROOT / "docs/systems.md").read_text(), re.MULTILINE)
    listed = {name: last for first, last in rows for name in re.findall(r"`([^`]+)`", first) if last}
    actual = {name: registry.name_of("likelihood", configure(name).likelihood) for name in lambent.recipe_names()}
    both = listed.keys() & actual.keys()
    wrong = {name for name in both if TITLES[actual[name]].lower() not in listed[name].lower()}
    assert len(both) > 50
    assert not {name for name in wrong if listed[name] != "frozen"}


def test_the_page_of_the_api_lists_every_public_name():
    text = (ROOT / "docs/api/lambent.md").read_text()
    assert [name for name in lambent.__all__ if f"`{name}`" not in text and f":: {name}\n" not in text] == []
