"""What the documents add trains, and what they list is what there is."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import lambent
from lambent.recipes import configure
from lambent.settings import registry

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_prior_that_the_guide_adds_trains_and_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "guide_prior.py").write_text(blocks("docs/extending.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("guide_prior")
        run = lambent.fit("vae", prior="laplace", spread=0.5, latent=2, epochs=2, quiet=True)
    finally:
        registry.parts["prior"].pop("laplace", None)
    assert run.model.prior().base_dist.scale[0] == 0.5
    found = run.evaluate(samples=50)
    assert found.elbo.value < found.iwae.value


def test_the_page_of_systems_lists_every_recipe_and_part():
    text = (ROOT / "docs/systems.md").read_text()
    missing = [name for name in lambent.recipe_names() if f"`{name}`" not in text]
    for kind in ("prior", "posterior", "likelihood", "objective", "rate", "draw", "schedule", "encoder"):
        missing += [f"{kind} {name}" for name in registry.names(kind) if f"`{name}`" not in text]
    assert not missing


SAID = {
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
    told = {name: last for first, last in rows for name in re.findall(r"`([^`]+)`", first) if last}
    named = {name: registry.name_of("likelihood", configure(name).likelihood) for name in lambent.recipe_names()}
    wrong = {name: own for name, own in named.items() if name in told and SAID[own].lower() not in told[name].lower()}
    assert len(told.keys() & named.keys()) > 50
    assert not {name: own for name, own in wrong.items() if told[name] != "frozen"}
