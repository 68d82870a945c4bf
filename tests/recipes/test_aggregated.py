"""The recipes on the aggregated posterior, trained on digits: each must do to q(z) what it is for."""

import functools
import math

import pytest
import torch

import lambent
from lambent.config import settings_of_tokens
from lambent.data import DataOptions, training_sets
from lambent.errors import CombinationError
from lambent.evaluation.aggregated import AggregatedPosterior, surgery
from lambent.objectives import ELBO, TotalCorrelationRate
from lambent.objectives.tc import log_mixtures, stratified_log_weights, weighted_log_weights
from lambent.recipes import configure


@functools.cache
def trained(recipe, *tokens):
    epochs = 60 if recipe in ("wae", "aae") else 20
    tokens = ("hidden=[100]", f"epochs={epochs}", "batch_size=50", *tokens)
    return lambent.fit(recipe, "digits", quiet=True, **settings_of_tokens(tokens))


@functools.cache
def parts(recipe, *tokens):
    """The exact parts of the rate over the training set."""
    run = trained(recipe, *tokens)
    view = run.prepare("digits", "train")
    found = surgery(run.model, view.slice, len(view), samples=2)
    terms = {name: f"{term.value:.2f} ± {term.se:.2f}" for name, term in vars(found).items() if name != "n"}
    print(recipe, *tokens, terms)
    return found


def clearly_below(first, second):
    return first.value + 5 * (first.se**2 + second.se**2) ** 0.5 < second.value


def energy_distance(recipe, *tokens):
    """2 E|z - p| - E|z - z'| - E|p - p'| of codes and prior, which no penalty here uses; 0 where they agree."""
    run = trained(recipe, *tokens)
    codes = run.encode(run.prepare("digits", "train"), seed=1).double()
    prior = torch.randn(codes.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = len(codes) * (len(codes) - 1)
    within = [torch.cdist(a, a).sum() / pairs for a in (codes, prior)]
    found = (2 * torch.cdist(codes, prior).mean() - within[0] - within[1]).item()
    print(recipe, *tokens, f"energy distance {found:.4f}")
    return found


@pytest.mark.parametrize("recipe", ["tc-vae", "factor-vae"])
def test_the_total_correlation_falls(recipe):
    assert clearly_below(parts(recipe).total_correlation, parts("vae").total_correlation)


def test_the_mutual_information_is_charged_by_alpha():
    light, heavy = parts("tc-vae", "alpha=0", "beta=1"), parts("tc-vae", "alpha=3", "beta=1")
    assert clearly_below(heavy.mutual_information, light.mutual_information)


def covariance_error(recipe):
    run = trained(recipe)
    codes = run.encode(run.prepare("digits", "train"), seed=1)
    return (torch.cov(codes.T) - torch.eye(codes.shape[1])).square().sum().item()


def test_the_covariance_of_z_comes_to_the_identity():
    assert covariance_error("dip-vae") < 0.3 * covariance_error("vae")


def test_the_discrepancy_brings_q_to_the_prior():
    assert clearly_below(parts("info-vae").marginal_kl, parts("info-vae", "penalty=none").marginal_kl)


@pytest.mark.parametrize("recipe", ["wae", "aae"])
def test_the_codes_come_to_the_prior(recipe):
    assert energy_distance(recipe) < 0.5 * energy_distance(recipe, "penalty=none")


def estimates(log_weights, batch, repeats=10):
    """log of the estimate of q(z) over q(z) itself, for a draw of each digit, batches drawn as training does."""
    run = trained("tc-vae")
    x, _ = run.prepare("digits", "train").slice(0, 1437)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        q = run.model.posterior(run.model.as_input(x)).map_parameters(torch.Tensor.double)
        z = q.sample((1,), noise)
        exact = AggregatedPosterior((q,)).log_prob(z[0])
        found = []
        for members in (m for _ in range(repeats) for m in torch.randperm(1437, generator=noise).split(batch)):
            if len(members) == batch:
                part = q.map_parameters(lambda t, m=members: t[m])
                joint, _ = log_mixtures(part, z[:, members], log_weights(batch, 1437))
                found.append(joint[0] - exact[members])
    return torch.cat(found)


def test_estimates_of_q_against_the_exact_aggregated_posterior():
    """Stratified: unbiased for q(z), and log q(z) comes up to its truth with B. Weighted: far off, even at B = N."""
    bias = {}
    for name, weigh in (("mss", stratified_log_weights), ("mws", weighted_log_weights)):
        for batch in (10, 100, 500, 1437):
            log_ratio = estimates(weigh, batch)
            ratio, se = log_ratio.exp().mean().item(), log_ratio.exp().std().item() / math.sqrt(len(log_ratio))
            bias[name, batch] = log_ratio.mean().item()
            print(f"{name} B={batch}: q {ratio:.4f} ± {se:.4f}, log q {bias[name, batch]:+.3f} nats")
            if name == "mss":
                assert abs(ratio - 1) < 5 * se + 1e-6
            else:
                assert ratio < 0.5
    falling = [bias["mss", batch] for batch in (10, 100, 500, 1437)]
    assert falling == sorted(falling)
    assert abs(falling[-1]) < 1e-6


def test_a_run_that_seeks_no_bound_ends_with_its_last_weights():
    for recipe, chosen in (("wae", lambda rows: rows[-1]), ("vae", lambda rows: max(rows, key=_bound))):
        run = trained(recipe)
        assert run.step == chosen([row for row in run.history if "valid" in row])["step"]
    rows = [row for row in trained("wae").history if "valid" in row]
    assert max(rows, key=_bound) != rows[-1]


def _bound(row):
    return row["valid"]["bound"]


def test_the_critic_is_saved_with_the_model(tmp_path):
    tokens = ("latent=2", "hidden=[16]", "critic_hidden=[16]", "batch_size=200")
    whole = lambent.fit(
        "factor-vae", "digits", out=tmp_path / "a", quiet=True, **settings_of_tokens((*tokens, "epochs=3"))
    )
    state = whole.model.state_dict()
    assert any(name.startswith("critics.factor.critic.") for name in state)
    fresh = configure("factor-vae", tokens=tokens).model.build(whole.config, whole.shapes).state_dict()
    assert not torch.equal(
        state["critics.factor.critic.net.output.weight"], fresh["critics.factor.critic.net.output.weight"]
    )
    again = lambent.load(tmp_path / "a", device="cpu").model.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name].cpu(), again[name]) for name in state)


def test_the_training_sets_size_reaches_the_rate(monkeypatch):
    seen = []
    real = ELBO.sized

    def sized(self, n):
        seen.append(real(self, n).rate)
        return real(self, n)

    monkeypatch.setattr(ELBO, "sized", sized)
    lambent.fit("tc-vae", "digits", latent=2, train__steps=1, quiet=True)
    assert seen == [TotalCorrelationRate(n=len(training_sets("digits", options=DataOptions())[0]))]


@pytest.mark.parametrize(
    ("named", "tokens"),
    [
        ("rate=tc with posterior=delta", ("rate=tc", "posterior=delta")),
        ("rate=tc with model=chain", ("rate=tc", "model=chain")),
        ("penalty=mmd with draw=score", ("penalty=mmd", "draw=score", "baseline=none")),
        ("penalty=mmd with prior=flat", ("penalty=mmd", "prior=flat")),
        ("penalty=adversarial with prior=flat", ("penalty=adversarial", "prior=flat")),
        (
            "penalty=dip with posterior=bernoulli",
            ("penalty=dip", "posterior=bernoulli", "prior=bernoulli", "draw=straight-through"),
        ),
        (
            "penalty=factor with posterior=categorical",
            ("penalty=factor", "posterior=categorical", "prior=categorical", "draw=straight-through"),
        ),
        (
            "penalty=mmd with draw=enumerate",
            ("penalty=mmd", "posterior=categorical", "prior=categorical", "draw=enumerate"),
        ),
        (
            "penalty=l2 with posterior=autoregressive-bernoulli",
            ("penalty=l2", "posterior=autoregressive-bernoulli", "prior=bernoulli", "draw=score", "baseline=none"),
        ),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(named, tokens):
    with pytest.raises(CombinationError) as refused:
        configure("vae", tokens=tokens)
    assert str(refused.value).startswith(named)
    assert "; use " in str(refused.value)
