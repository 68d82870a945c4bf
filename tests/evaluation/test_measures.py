"""Measurements beside `evaluate`, against exact values, from a run and from the command line."""

import json
import math

import pytest
import torch

import lambent
from lambent.cli.app import run as command
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.measures import compare_samples


@pytest.fixture(scope="module")
def ppca(tmp_path_factory):
    out = tmp_path_factory.mktemp("measures") / "run"
    return lambent.fit("em-ppca", "digits", latent=2, epochs=20, out=out, quiet=True)


@pytest.fixture(scope="module")
def few(ppca):
    return ppca.prepare().dataset.head(20)


@pytest.fixture(scope="module")
def exact(ppca, few):
    return ppca.evaluate(few, samples=1).log_likelihood.value


@pytest.mark.parametrize(("method", "samples", "near"), [("importance", 200, 0.05), ("ais", 20, 0.3)])
def test_estimates_of_log_p_are_at_most_the_exact_one_and_near_it(ppca, few, exact, method, samples, near):
    found = ppca.measure(method, few, samples=samples)
    value = found.quantities["log_likelihood"]
    assert value.kind == "lower bound"
    assert exact - near < value.value < exact + near
    assert 0 < found.quantities["effective_samples"].value <= samples


def test_sampling_the_prior_misses_the_posterior_and_says_so(ppca, few, exact):
    found = ppca.measure("prior", few, samples=500)
    assert found.quantities["log_likelihood"].value < exact + 0.05
    assert found.quantities["effective_samples"].value < 250


def test_the_parts_of_the_rate_are_the_rate(ppca, few):
    parts = {name: q.value for name, q in ppca.measure("surgery", few, samples=50).quantities.items()}
    assert parts["rate"] == pytest.approx(parts["mutual_information"] + parts["marginal_kl"], abs=1e-9)
    assert parts["marginal_kl"] == pytest.approx(parts["total_correlation"] + parts["dimension_wise_kl"], abs=1e-9)
    assert parts["mutual_information"] <= math.log(20)


def test_samples_like_the_data_are_near_it_and_others_far():
    noise = torch.Generator().manual_seed(0)
    real, same, far = (torch.randn(300, 4, generator=noise) + shift for shift in (0.0, 0.0, 10.0))
    near, apart = (compare_samples(real, made, name="normal").quantities for made in (same, far))
    assert near["frechet_distance"].value < 0.2
    assert apart["frechet_distance"].value == pytest.approx(4 * 10.0**2, rel=0.1)
    assert min(near["precision"].value, near["recall"].value) > 0.8
    assert apart["precision"].value == apart["recall"].value == 0


def test_samples_of_a_run_are_compared_with_its_data(ppca):
    found = ppca.measure("sample-quality", samples=50)
    assert (found.n, found.samples) == (50, 50)
    assert 0 <= found.quantities["recall"].value <= 1


def test_models_that_a_method_does_not_exist_for_are_refused():
    made = lambent.fit("made", "digits", hidden=[8], epochs=0, quiet=True)
    for method in ("importance", "prior", "ais", "surgery"):
        with pytest.raises(CombinationError, match=r"this one has none: its log p\(x\) is exact"):
            made.measure(method)
    with pytest.raises(ConfigError, match="method=aiss: expected one of importance, prior, ais, surgery"):
        made.measure("aiss")


@pytest.mark.parametrize("method", ["importance", "surgery", "sample-quality"])
def test_the_command_line_prints_the_same_numbers(ppca, method, capsys):
    arguments = ["evaluate", str(ppca.folder.path), "--method", method, "--samples", "40"]
    assert command([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = ppca.measure(method, samples=40)
    assert found == json.loads(json.dumps(expected.to_dict()))
    assert command(arguments) == 0
    assert capsys.readouterr().out == f"{expected}\n"
