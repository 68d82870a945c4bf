"""C7 and C2: annealed importance sampling is unbiased for p(x) and varies less than plain weights; faults are seen."""

import pytest
import torch

import lambent.evaluation.ais as annealed
from exact.belief_nets import belief_net, pixels, two_layers
from exact.tiny import batch_of, ones, tiny
from exact.truths import LOG_P
from lambent.errors import CombinationError
from lambent.evaluation.ais import annealed_importance_sampling
from lambent.evaluation.exact import exact_log_prob
from support.statistics import z_score

NETS = {"one layer": belief_net, "two layers": two_layers}


def weights(model, x, copies, temperatures=8):
    """w / p(x) of one chain for each of ``copies`` of the examples, (copies * B,)."""
    with torch.no_grad():
        log_p = exact_log_prob(model)(x, None).repeat(copies)
    many = x.repeat(copies, 1)
    found = annealed_importance_sampling(model, batch_of(many), len(many), samples=1, temperatures=temperatures)
    return (found.log_p - log_p).exp()


def unbiased(name="one layer", seeds=range(0, 400, 20), copies=1500):
    for seed in seeds:
        ratio = weights(NETS[name](seed), pixels(seed), copies)
        assert abs(z_score(ratio, 1)) <= 5, f"seed {seed}: z = {z_score(ratio, 1)}"


@pytest.mark.parametrize("name", NETS)
def test_twenty_nets(name):
    unbiased(name)


def test_a_continuous_latent():
    """C2: p(x) in closed form."""
    n = 20_000
    found = annealed_importance_sampling(tiny("C2", n), batch_of(ones(n)), n, samples=1, temperatures=5)
    assert abs(z_score((found.log_p - LOG_P).exp(), 1)) <= 5


def test_one_temperature_is_importance_sampling_and_more_vary_less():
    plain, few, many = (weights(belief_net(40), pixels(40), 2000, t).var().item() for t in (1, 20, 200))
    assert plain > 1.5 * few > 2.25 * many


def _always(state, proposed, beta, generator):
    return proposed


def _other_temperature(state, proposed, beta, generator):
    return _accepted(state, proposed, 0.0, generator)


def _moved_one_way(name, value, q, step, generator):
    flat = value.clone()
    flat[..., 0] = 1
    return flat


_accepted = annealed._accepted


@pytest.mark.parametrize(
    ("target", "fault"),
    [("_accepted", _always), ("_accepted", _other_temperature), ("_moved", _moved_one_way)],
)
def test_planted_faults_are_seen(target, fault, monkeypatch):
    monkeypatch.setattr(annealed, target, fault)
    with pytest.raises(AssertionError, match="z = "):
        unbiased(copies=6000)


def test_categories_are_refused_by_name():
    from lambent.distributions import OneHotCategorical

    q = OneHotCategorical(torch.zeros(3))
    with pytest.raises(CombinationError, match="OneHotCategorical is neither binary nor continuous"):
        annealed._moved("z", torch.zeros(1, 1, 3), q, 0.5, torch.Generator())
