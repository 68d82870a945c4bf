"""Every legal combination of registered parts trains and gives ordered bounds; every other is refused by name.

The parts come from the registry, so that a new one is tried against all others the day it registers.
"""

import itertools
import math
import re

import pytest
import torch

from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.bounds import bounds
from lambent.evaluation.exact import exact_log_prob
from lambent.networks import AutoregressiveSettings
from lambent.networks.autoregressive.pixelcnn import MaskedImageSettings
from lambent.objectives import ELBO
from lambent.recipes import configure
from lambent.settings import registry
from support.composition import FLAT, KINDS, B, built, combinations, config_of, legal, names_of, refusal

USUAL = {"prior": "normal", "posterior": "normal", "objective": "elbo", "draw": "pathwise", "model": "vae"}
USUAL_DRAWS = ("pathwise", "enumerate", "mixed", "straight-through")
COINS = {"prior": "bernoulli", "posterior": "bernoulli"}
NOTHING = {"model": "density", "prior": "none", "posterior": "none", "draw": "none", "objective": "log-likelihood"}
NOISE = {"model": "diffusion", "prior": "none", "posterior": "noising"}
LIKELIHOODS = registry.names("likelihood")
KNOWN_LEGAL = 800
"""How many combinations there were when this was written; more parts give more."""


@pytest.fixture(autouse=True, scope="module")
def _quiet_generators():
    with torch.random.fork_rng(devices=[]):
        yield


def train(model, config, x, condition, steps=3):
    """The training step: for each group of parameters, the gradient of its loss."""
    objective, groups = config.objective, {"all": [*model.parameters()], **model.groups()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        trace, seen = objective.observe(model, x, config.drawing.at(step), condition)
        estimate = objective.at(step)(trace, seen)
        assert estimate.value.shape == (len(x),)
        assert not estimate.value.requires_grad
        for name, loss in estimate.losses.items():
            assert math.isfinite(loss.item())
            gradients = torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True)
            for parameter, gradient in zip(groups[name], gradients, strict=True):
                parameter.grad = gradient
        optimizer.step()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    return estimate


def assert_ordered(model, config, x, condition):
    """ELBO <= IWAE-50 <= exact, by paired differences, to 5 standard errors (and float32's digits)."""
    draw = config.drawing.evaluating()
    found = bounds(
        model, lambda a, b: (x[a:b], None if condition is None else condition[a:b]), B, samples=50, draw=draw
    )
    assert bool(torch.isfinite(found.elbo).all())
    if not config.has_latents:
        with torch.inference_mode():
            assert torch.allclose(found.elbo, exact_log_prob(model)(x, condition).double(), rtol=1e-6)
        assert (found.elbo_kind, found.rate.abs().max().item(), found.iwae) == ("exact", 0.0, None)
        return 0
    if found.iwae is None:
        density = config.posterior is None or config.posterior.normalised
        bound = config.prior is None or (config.prior.estimated and density)
        assert found.elbo_kind == ("lower bound" if bound else "not a bound")
        return 0
    assert_below(found.elbo, found.iwae)
    if config.deterministic:
        assert torch.allclose(found.elbo, found.iwae, rtol=1e-5)
    exact = exact_log_prob(model)
    if exact is None:
        return 0
    with torch.inference_mode():
        assert_below(found.iwae, exact(x, condition))
    return 1


def assert_below(lower, higher):
    difference = (higher - lower).double()
    slack = 5 * difference.std().item() / math.sqrt(B) + 1e-5 * higher.abs().mean().item()
    assert difference.mean().item() >= -slack


def test_the_ordering_would_be_seen_to_fail():
    config = config_of(**dict(USUAL, likelihood="bernoulli"))
    model, x, _ = built(config, "bernoulli")
    found = bounds(model, lambda a, b: (x[a:b], None), B, samples=50)
    with pytest.raises(AssertionError):
        assert_below(found.iwae, found.elbo)


def test_illegal_combinations_are_refused_by_name_with_what_would_do():
    refused = [(names, said) for names, said in combinations() if said is not None]
    for names, said in refused:
        named = [kind for kind in KINDS if f"{kind}={names[kind]}" in said]
        assert named, f"{names} is refused without a name: {said}"
        assert "; use " in said or "leave " in said, said
    assert len(refused) + KNOWN_LEGAL <= len(combinations())


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("prior=categorical with posterior=normal", {"prior": "categorical"}),
        ("model=mixture with prior=normal", {"posterior": "none", "model": "mixture", "draw": "enumerate"}),
        ("model=vae with posterior=none", {"posterior": "none", "prior": "categorical", "draw": "enumerate"}),
        ("model=mixture with posterior=normal", {"model": "mixture", "prior": "categorical"}),
        ("objective=iwae with prior=flat", {"objective": "iwae", "prior": "flat"}),
        ("objective=iwae with posterior=delta", {"objective": "iwae", "posterior": "delta"}),
        ("draw=dreg with objective=elbo", {"draw": "dreg"}),
        ("draw=enumerate with posterior=normal", {"draw": "enumerate"}),
        ("draw=pathwise with posterior=bernoulli", {"prior": "bernoulli", "posterior": "bernoulli"}),
        ("draw=detached with objective=elbo", {"draw": "detached"}),
        ("draw=score with objective=wake-sleep", {"draw": "score", "objective": "wake-sleep"}),
        ("draw=enumerate with objective=miwae", {**COINS, "draw": "enumerate", "objective": "miwae"}),
        ("draw=rebar with model=chain", {**COINS, "draw": "rebar", "model": "chain"}),
        ("draw=dreg with model=chain", {"draw": "dreg", "objective": "iwae", "model": "chain"}),
        ("draw=dreg with model=ladder", {"draw": "dreg", "objective": "iwae", "model": "ladder"}),
        ("draw=rebar with model=ladder", {**COINS, "draw": "rebar", "model": "ladder"}),
        ("model=vae with posterior=residual-normal", {"posterior": "residual-normal"}),
        ("model=chain with posterior=merged-normal", {"posterior": "merged-normal", "model": "chain"}),
        (
            "draw=gumbel with posterior=autoregressive-bernoulli",
            {"prior": "bernoulli", "posterior": "autoregressive-bernoulli", "draw": "gumbel"},
        ),
        ("model=discrete-continuous with posterior=bernoulli", {**COINS, "model": "discrete-continuous"}),
        ("draw=pathwise with model=discrete-continuous", {"model": "discrete-continuous"}),
        ("draw=mixed with posterior=normal", {"draw": "mixed"}),
        ("objective=wake-sleep with prior=flat", {"objective": "wake-sleep", "draw": "detached", "prior": "flat"}),
        ("model=chain with penalty=l1", {"model": "chain", "penalty": "l1"}),
        ("model=vae with decoder=draw-writer", {"decoder": "draw-writer"}),
        ("model=vae with encoder=draw-reader", {"encoder": "draw-reader"}),
        ("model=recurrent with decoder=linear", {"model": "recurrent", "decoder": "linear"}),
        ("model=recurrent with encoder=mlp", {"model": "recurrent", "encoder": "mlp"}),
        ("model=recurrent with posterior=bernoulli", {**COINS, "model": "recurrent", "draw": "score"}),
        ("model=recurrent with likelihood=mixed", {"model": "recurrent", "likelihood": "mixed"}),
        ("model=recurrent with likelihood=text", {"model": "recurrent", "likelihood": "text"}),
        ("model=vae with prior=none", {"prior": "none"}),
        ("model=mixture with prior=bernoulli", {**COINS, "posterior": "none", "model": "mixture"}),
        ("model=vae with draw=none", {"draw": "none"}),
        ("model=density with prior=normal", {"model": "density"}),
        ("model=density with posterior=normal", {**NOTHING, "posterior": "normal"}),
        ("model=density with draw=pathwise", {**NOTHING, "draw": "pathwise"}),
        ("model=density with objective=iwae", {**NOTHING, "objective": "iwae"}),
        ("model=density with decoder=mlp", {**NOTHING, "decoder": "mlp"}),
        ("model=vae with decoder=denoising-mlp", {"decoder": "denoising-mlp"}),
        ("model=density with decoder=denoising-mlp", {**NOTHING, "decoder": "denoising-mlp"}),
        ("model=diffusion with decoder=mlp", {**NOISE, "decoder": "mlp"}),
        ("model=diffusion with posterior=normal", {**NOISE, "posterior": "normal"}),
        ("model=vae with posterior=noising", {"posterior": "noising"}),
        ("model=diffusion with prior=sphere", {**NOISE, "prior": "sphere"}),
        ("model=diffusion with encoder=mlp", {**NOISE, "encoder": "mlp"}),
        ("model=diffusion with draw=detached", {**NOISE, "draw": "detached"}),
        ("model=diffusion with objective=iwae", {**NOISE, "objective": "iwae"}),
        ("model=diffusion with likelihood=text", {**NOISE, "likelihood": "text"}),
        ("model=diffusion with likelihood=mixed", {**NOISE, "likelihood": "mixed"}),
        ("model=diffusion with rate=tc", {**NOISE, "rate": "tc"}),
        ("model=vae with rate=snr-weighted", {"rate": "snr-weighted"}),
        ("model=diffusion with penalty=l1", {**NOISE, "penalty": "l1"}),
        ("schedule=alternating with model=diffusion", {**NOISE, "schedule": "alternating"}),
        ("model=vae with posterior=vq", {"prior": "uniform", "posterior": "vq", "draw": "straight-through"}),
        ("model=quantised with posterior=normal", {"model": "quantised", "prior": "uniform"}),
        ("model=quantised with prior=normal", {"posterior": "vq", "draw": "straight-through", "model": "quantised"}),
        ("prior=normal with posterior=von-mises-fisher", {"posterior": "von-mises-fisher"}),
        ("schedule=two-stage with model=density", {**NOTHING, "schedule": "two-stage"}),
        ("decoder=made with likelihood=mixed", {**NOTHING, "likelihood": "mixed"}),
        ("model=density with penalty=l1", {**NOTHING, "penalty": "l1"}),
        ("model=density with corruption=gaussian", {**NOTHING, "corruption": "gaussian"}),
        ("model=density with rate=beta", {**NOTHING, "rate": "beta"}),
        ("schedule=alternating with model=density", {**NOTHING, "schedule": "alternating"}),
        ("objective=iwae with rate=beta", {"objective": "iwae", "rate": "beta"}),
        ("rate=level-warm-up with model=vae", {"rate": "level-warm-up"}),
        (
            "rate=kl-balancing with model=discrete-continuous",
            {"rate": "kl-balancing", "model": "discrete-continuous", "draw": "mixed"},
        ),
        (
            "model=mixture with penalty=l1",
            {"model": "mixture", "posterior": "none", "prior": "categorical", "draw": "enumerate", "penalty": "l1"},
        ),
    ],
)
def test_what_must_be_refused(named, names):
    said = refusal(**{**USUAL, **names})
    assert said is not None
    assert said.startswith(named)


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ("draw.baseline=leave-one-out needs draw.samples >= 2", ["draw.baseline=leave-one-out"]),
        ("None against 5 classes a variable", ["posterior=categorical", "prior=categorical", "posterior.classes=5"]),
        (
            "latent=200 is no multiple of classes=7",
            ["posterior=categorical", "prior=categorical", "prior.classes=7", "posterior.classes=7"],
        ),
        ("2^200 states are too many to sum", ["draw=enumerate"]),
        ("2^30 states are too many to sum", ["draw=enumerate", "model=chain", "latent=20"]),
        ("draw=enumerate takes every state once", ["draw=enumerate", "latent=4", "draw.samples=2"]),
    ],
)
def test_settings_that_do_not_go_together_are_refused(said, tokens):
    with pytest.raises(CombinationError, match=re.escape(said)):
        configure("nvil", tokens=tuple(tokens))


@pytest.mark.parametrize("place", range(len(LIKELIHOODS)), ids=LIKELIHOODS)
def test_every_legal_combination_trains_and_its_bounds_are_ordered(place):
    """Each with the likelihood whose turn it is; and the usual objectives with all likelihoods."""
    likelihood, exact = LIKELIHOODS[place], 0
    for i, names in enumerate(legal()):
        usual = names["objective"] == "elbo" and names["draw"] in USUAL_DRAWS
        if i % len(LIKELIHOODS) != place and not usual:
            continue
        names = {**names, "likelihood": likelihood}
        if refusal(**names) is not None:
            assert names["model"] in ("density", "diffusion", "recurrent")
            continue
        if likelihood in FLAT and names["prior"] == "pixelcnn":  # codes come in a row then
            continue
        if likelihood in FLAT and names["model"] == "image-ladder":  # they are no images
            continue
        config = config_of(**names)
        model, x, condition = built(config, likelihood)
        train(model, config, x, condition)
        exact += assert_ordered(model, config, x, condition)
    assert exact >= 2


ORDERED = [n for n in registry.names("decoder") if issubclass(registry.find("decoder", n), AutoregressiveSettings)]


@pytest.mark.parametrize("decoder", ORDERED)
def test_every_autoregressive_network_is_a_density_of_every_likelihood(decoder):
    for likelihood in registry.names("likelihood"):
        names = {**NOTHING, "likelihood": likelihood, "decoder": decoder}
        if refusal(**names) is not None:
            assert f"decoder={decoder} with likelihood={likelihood}" in refusal(**names)
            continue
        config = config_of(**names)
        if isinstance(config.decoder, MaskedImageSettings) and likelihood in FLAT:
            with pytest.raises(ConfigError, match="use decoder=made"):
                built(config, likelihood)
            continue
        model, x, condition = built(config, likelihood)
        first = train(model, config, x, condition, steps=1).value.mean()
        assert train(model, config, x, condition, steps=60).value.mean() > first
        assert_ordered(model, config, x, condition)


def test_every_part_takes_part_in_a_legal_combination():
    assert len(legal()) >= KNOWN_LEGAL
    for kind in KINDS:
        assert {names[kind] for names in legal()} == set(names_of(kind))


def pairs():
    usual = [n for n in legal() if n["objective"] == "elbo" and n["draw"] in USUAL_DRAWS]
    return [{**names, "likelihood": "normal"} for names in usual]


@pytest.mark.parametrize("kind", ["rate", "penalty", "corruption"])
def test_every_rate_penalty_and_corruption_with_every_prior_and_posterior(kind):
    tried = 0
    for names, name in itertools.product(pairs(), names_of(kind)):
        names = {**names, kind: name}
        said = refusal(**names)
        if said is not None:
            assert f"{kind}={name}" in said, said
            continue
        config = config_of(**names)
        model, x, condition = built(config, "normal")
        estimate = train(model, config, x, condition)
        model.eval()
        with torch.no_grad():
            torch.manual_seed(2)
            modified = config.objective.at(3)(model(x, config.draw, condition), x)
            torch.manual_seed(2)
            unmodified = ELBO()(model(x, config.draw, condition), x)
        assert torch.equal(modified.value, unmodified.value), "the reported number is not the plain bound"
        assert modified.kind == unmodified.kind == estimate.kind
        tried += 1
    assert tried >= 16 * len(registry.names(kind))
