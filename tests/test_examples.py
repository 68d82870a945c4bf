"""The examples run, and what they print is what the library says elsewhere."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quickstart_trains_to_something(capsys):
    run = example("quickstart").main(epochs=10)
    found = run.evaluate(samples=500)
    assert f"{found.iwae.value:8.3f}" in capsys.readouterr().out
    assert -27 < found.elbo.value < found.iwae.value < -20


def test_a_users_own_networks_learn():
    run = example("own_network").main(epochs=6)
    untrained = example("own_network").main(epochs=0)
    assert run.evaluate(samples=1).elbo.value > untrained.evaluate(samples=1).elbo.value + 1


def test_every_combination_of_parts_beats_coding_levels_without_a_model():
    bits = example("any_parts").main(epochs=5)
    assert len(bits) == 6
    assert all(0 < b < math.log2(17) for b in bits.values())


def test_estimates_of_the_evidence_fail_as_the_figure_shows(tmp_path):
    rows = example("estimating_evidence").main(examples=40, samples=200, out=tmp_path / "figure.svg")
    short = {(row.latent, row.proposal): row.short.mean().item() for row in rows}
    assert abs(short[1, "prior"]) < 0.1
    assert short[50, "prior"] > 50 > 5 > short[50, "best diagonal Normal"] > 0.1
    assert all(abs(value) < 1e-3 for (_, proposal), value in short.items() if proposal == "exact posterior")
    assert max(row.estimate.se.max().item() for row in rows) <= 1
    assert "<svg" in (tmp_path / "figure.svg").read_text()


def test_the_score_functions_variance_grows_with_the_distance_and_pathwise_stays():
    found = example("gradient_estimators").main(repetitions=100)
    assert all(4 < variance["pathwise"] < 13 for variance in found.values())
    scores = [variance["score baseline=none"] for variance in found.values()]
    assert scores[0] < scores[1] / 3 < scores[2] / 9
    assert found[7.0]["score baseline=running-mean"] < scores[2] / 3
