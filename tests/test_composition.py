"""Every legal combination of registered parts trains and gives ordered bounds; every other is refused by name.

The parts come from the registry, so that a new one is tried against all others the day it registers.
"""

import dataclasses
import functools
import itertools
import math
import re

import pytest
import torch

from lambent.config import check, resolve
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.bounds import bounds
from lambent.evaluation.exact import exact_log_prob
from lambent.networks import AutoregressiveSettings, ConvEncoder
from lambent.networks.autoregressive.pixelcnn import MaskedImageSettings
from lambent.objectives import ELBO
from lambent.recipes import configure
from lambent.settings import options_of, registry
from lambent.shapes import Column, Shapes

B, LATENT = 24, 2
USUAL = {"prior": "normal", "posterior": "normal", "objective": "elbo", "draw": "pathwise", "model": "vae"}
USUAL_DRAWS = ("pathwise", "enumerate", "mixed", "straight-through")
COINS = {"prior": "bernoulli", "posterior": "bernoulli"}
NOTHING = {"model": "density", "prior": "none", "posterior": "none", "draw": "none", "objective": "log-likelihood"}
NOISE = {"model": "diffusion", "prior": "none", "posterior": "noising"}
COLUMNS = (
    Column("a", "numeric"),
    Column("b", "numeric"),
    Column("c", "count"),
    Column("d", "categorical", 3),
)
KINDS = ("prior", "posterior", "objective", "draw", "model")
"""All of these with each other; the likelihoods in turn, as they only ask something of the decoder."""
LIKELIHOODS = registry.names("likelihood")
KNOWN_LEGAL = 800
"""How many combinations there were when this was written; more parts give more."""
FLAT = ("text", "mixed")
"""Likelihoods of data that are no images."""
SMALL_DECODERS = {
    "made": {"hidden": (4,)},
    "nade": {"hidden_dim": 6},
    "lstm": {"hidden_dim": 6, "embedding": 3},
    "pixelcnn": {"channels": 4, "layers": 2},
    "gated-pixelcnn": {"channels": 4, "layers": 2},
    "transformer": {"model_dim": 8, "layers": 1, "heads": 2},
    "denoising-mlp": {"hidden_dim": 8, "blocks": 1},
    "draw-writer": {"hidden_dim": 4, "patch": 0},
}
SMALL = {
    "vq": {"codebook_size": 6, "embedding_dim": 2},
    "fsq": {"bins": (3, 4)},
    "pixelcnn": {"channels": 4, "layers": 2, "embedding": 3},
    "transformer": {"model_dim": 8, "layers": 1, "heads": 2},
    "diffusion": {"model_dim": 8, "layers": 1, "heads": 2},
    "autoregressive-flow": {"hidden": (4,)},
    "latent-diffusion": {"hidden_dim": 8, "blocks": 1, "eval_timesteps": 4, "sampling_steps": 3},
}
SMALL_MODELS = {"image-ladder": {"levels_per_scale": (1, 1), "spectral": 0.1}, "recurrent": {"glimpses": 2}}
SMALL_PARTS = {"prior": SMALL, "posterior": SMALL, "decoder": SMALL_DECODERS, "model": SMALL_MODELS}
"""Settings that keep a part's networks small."""


@pytest.fixture(autouse=True, scope="module")
def _quiet_generators():
    with torch.random.fork_rng(devices=[]):
        yield


@functools.cache
def data_of(likelihood):
    """Examples of 4 numbers that the likelihood scores, and the shapes they fix."""
    noise = torch.Generator().manual_seed(1)
    rand = torch.rand(B, 4, generator=noise)
    if likelihood == "mixed":
        whole = (3 * rand[:, 2:]).floor()
        return torch.cat([rand[:, :2], whole], 1), Shapes((4,), LATENT, columns=COLUMNS)
    data = {
        "bernoulli": (rand < 0.4).float(),
        "normal": torch.randn(B, 4, generator=noise),
        "discretised-logistic": (8 * rand).floor(),
        "logistic-mixture": (8 * rand).floor(),
        "pixel-mixture": (8 * rand).floor(),
        "categorical": (8 * rand).floor(),
    }
    return data.get(likelihood, (6 * rand).floor()), Shapes((4,), LATENT, levels=8)


LEFT_OUT = ("prior", "posterior", "draw", "rate", "penalty", "corruption", "encoder")
"""Sections that some structure doesn't have."""
NETWORKS = {
    "mlp": {"hidden": [4]},
    "draw-reader": {"units": 4, "patch": 0},
    "conv": {"channels": [3], "smallest": 1},
    **SMALL_DECODERS,
}


def names_of(kind):
    """The parts of a kind, and none where a structure may have no such part."""
    return [*registry.names(kind), *(["none"] if kind in LEFT_OUT else [])]


def part_of(kind, name):
    """A part at its defaults, but small; None for none."""
    small = SMALL_PARTS.get(kind, {}).get(name, {})
    return None if name == "none" else registry.find(kind, name)(**small)


@functools.cache
def base_of(model, flat):
    """The configuration of a structure's own defaults, its networks small."""
    structure = registry.find("model", model)
    found = {side: structure.sections[side].default for side in ("encoder", "decoder") if side in structure.sections}
    found |= {"decoder": "linear"} if found["decoder"] == "mlp" else {}
    networks = {side: {"name": name, **NETWORKS.get(name, {})} for side, name in found.items()}
    if model == "quantised" and not flat:
        networks["encoder"] = {"name": "conv", "channels": [3], "smallest": 2}
    return resolve("composed", {"model": {"name": model}, **networks})


def config_of(**names):
    """The configuration of the parts named, each at its defaults but for the number of latents."""
    parts = {kind: part_of(kind, name) for kind, name in names.items()}
    if "latent" in options_of(type(parts["model"])):
        parts["model"] = dataclasses.replace(parts["model"], latent=LATENT)
    base = base_of(names["model"], names.get("likelihood") in FLAT)
    return dataclasses.replace(base, **parts)


def shapes_of(config, likelihood):
    x, shapes = data_of(likelihood)
    images = isinstance(config.encoder, ConvEncoder) or isinstance(config.decoder, MaskedImageSettings)
    images = images or likelihood == "pixel-mixture"
    if images and likelihood not in FLAT:
        x, shapes = x.view(-1, 1, 2, 2), dataclasses.replace(shapes, event=(1, 2, 2))
    if "condition" not in type(config.prior).__name__.lower():
        return x, None, shapes
    condition = torch.eye(3)[torch.arange(B) % 3]
    return x, condition, dataclasses.replace(shapes, condition=3)


def built(config, likelihood):
    torch.manual_seed(0)
    x, condition, shapes = shapes_of(config, likelihood)
    model = config.model.build(config, shapes)
    model.likelihood.support.check(x)
    model.initialise(x, condition)
    return model, x, condition


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
        bound = config.prior is None or (config.prior.estimated and config.posterior.normalised)
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


@functools.cache
def combinations():
    """All, each with what is said against it (None where it is legal)."""
    found = [dict(zip(KINDS, names, strict=True)) for names in itertools.product(*map(names_of, KINDS))]
    return [(names, refusal(**names, likelihood="normal")) for names in found]


def legal():
    return [names for names, said in combinations() if said is None]


def refusal(**names):
    """None where the combination is legal, else what is said against it."""
    try:
        check(config_of(**names))
    except CombinationError as error:
        return str(error)
    return None


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
