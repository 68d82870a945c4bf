"""Low precision, corrected: unbiased whatever is lost in it, aligned in every kind of model, and no one else's."""

import copy
import math
import re
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import lambent
from lambent.cli.app import run as command
from lambent.draws import Pathwise
from lambent.errors import ConfigError, NumericsError
from lambent.evaluation import low_precision as module
from lambent.evaluation.bounds import bounds
from lambent.evaluation.low_precision import (
    Int8Linear,
    LowPrecision,
    LowPrecisionLikelihood,
    in_low_precision,
    require_tight,
)
from lambent.likelihoods import BernoulliLikelihood, LikelihoodModule
from lambent.models import VAE
from lambent.networks import MLPDecoder, MLPEncoder
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes

REPEATS, K = 3_000, 7
KINDS, PIXELS = 8, 12


def vae():
    """A VAE of 2 latents in float64 whose weights are large, so that samples differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes = Shapes((PIXELS,), 2)
        posterior = AmortisedPosteriorModule(NormalPosterior(), MLPEncoder((8,)).build((PIXELS,)), 2)
        likelihood = LikelihoodModule(BernoulliLikelihood(), MLPDecoder((8,)).build(2, (1, PIXELS)), shapes)
        with torch.no_grad():
            for weight in likelihood.parameters():
                weight.copy_(1.2 * torch.randn_like(weight))
        return VAE(NormalPriorModule(2), posterior, likelihood).double().eval()


def distorted(model, size=0.25):
    """The model with a p(x|z) that is far off, corrected by the true one."""
    found = in_low_precision(model, "bfloat16", K)
    likelihood = found.likelihood
    likelihood.arithmetic, likelihood.low = nullcontext, copy.deepcopy(model.likelihood)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in likelihood.low.parameters():
            weight.mul_(1 + size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return found


def examples():
    """8 kinds of binary vectors, (8, 12)."""
    return (torch.rand(KINDS, PIXELS, generator=torch.Generator().manual_seed(0)) < 0.5).double()


def quadrature(model, x):
    """p(x) and the ELBO of each x over 601 x 601 nodes."""
    line = torch.linspace(-30, 30, 601, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    area = (line[1] - line[0]) ** 2
    prior, q = model.prior(None), model.posterior(x, None)
    with torch.no_grad():
        log_px = torch.cat(
            [model.likelihood(part.unsqueeze(1).expand(-1, KINDS, -1)).log_prob(x) for part in z.split(9000)]
        )
        p = (log_px.exp() * prior.log_prob(z).exp().unsqueeze(1)).sum(0) * area
        log_q = q.log_prob(z.unsqueeze(1).expand(-1, KINDS, -1))
        elbo = (log_q.exp() * (log_px + prior.log_prob(z).unsqueeze(1) - log_q)).sum(0) * area
    return p, elbo


def estimated(model, seed=0):
    x = examples().repeat(REPEATS, 1)
    found = bounds(model, lambda a, b: (x[a:b], None), len(x), samples=K, seed=seed)
    return found.iwae.view(REPEATS, KINDS), found.elbo.view(REPEATS, KINDS)


def z_score(values, truth):
    """The largest over the 8 kinds."""
    return ((values.mean(0) - truth).abs() / (values.std(0) / math.sqrt(len(values)))).max().item()


def off(model):
    """How far p(x) and the ELBO of a distorted model are from the exact model's, in standard errors."""
    p, elbo = quadrature(model, examples())
    log_p, bound = estimated(distorted(model))
    return z_score(log_p.exp(), p), z_score(bound, elbo), (log_p.mean(0) - p.log()).max().item()


def test_p_and_the_elbo_keep_their_means_however_rough_the_arithmetic():
    model = vae()
    p, elbo, above = off(model)
    assert p < 5
    assert elbo < 5
    assert above < 0, "the mean of log p is a lower bound"


def test_what_loosens_the_bound_is_measured_and_refused_where_it_is_much():
    """log v = log w + normal noise of 0.3 or 0.8 nats for each sample."""
    for noise, loose in ((0.3, False), (0.8, True)):
        model, generator = distorted(vae(), 0.0), torch.Generator().manual_seed(0)
        add_noise(model.likelihood, noise, generator)
        x = examples().repeat(100, 1)
        found = bounds(model, lambda a, b: (x[a:b], None), len(x), samples=50)  # noqa: B023
        error_sd = found.log_px_error_var.mean().sqrt().item()
        # a sample is the likelier to be chosen by weight the more its noise raised it: by noise^2 nats at most
        most, error = math.hypot(noise, noise**2 / 2**0.5), 5 / math.sqrt(2 * len(x))
        assert (1 - error) * noise < error_sd < (1 + error) * most
        if loose:
            with pytest.raises(NumericsError, match=r"standard deviation of 0\.[789]\d* nats over samples"):
                require_tight("int8", error_sd)
        else:
            require_tight("int8", error_sd)
    with pytest.raises(NumericsError):
        require_tight("int8", math.nan)


def add_noise(likelihood, size, generator):
    """Adds noise to every low-precision log p(x|z)."""
    forward = likelihood.forward

    def noisy(z, condition=None):
        found = forward(z, condition)
        log_prob, shift = found.log_prob, size * torch.randn(z.shape[:2], generator=generator)
        found.log_prob = lambda value: log_prob(value) + shift
        return found

    likelihood.forward = noisy


def no_correction(patch):
    zeros = lambda self, x, log_px, w, g: (torch.zeros_like(log_px[0]), torch.zeros_like(log_px[0]))  # noqa: E731
    patch.setattr(LowPrecision, "corrections", zeros)
    return (0, 1)


def weights_ignored_in_the_choice(patch):
    patch.setattr(module, "_drawn", lambda w, g: torch.randint(len(w), w.shape[1:], generator=g))
    return (0,)


def one_choice_for_both(patch):
    drawn = module._drawn
    patch.setattr(module.torch, "randint", lambda *a, **k: drawn(module.weights_of_this_call, k["generator"]))
    corrections = LowPrecision.corrections

    def noted(self, x, log_px, w, g):
        patch.setattr(module, "weights_of_this_call", w, raising=False)
        return corrections(self, x, log_px, w, g)

    patch.setattr(LowPrecision, "corrections", noted)
    return (1,)


def wrong_sign(patch):
    corrections = LowPrecision.corrections
    patch.setattr(LowPrecision, "corrections", lambda self, *a: tuple(-c for c in corrections(self, *a)))
    return (0, 1)


def another_sample_than_the_chosen(patch):
    forward = LowPrecisionLikelihood.forward

    def shifted(self, z, condition=None):
        found = forward(self, z, condition)
        again = found.again
        found.again = lambda chosen: again((chosen + 1) % len(z))
        return found

    patch.setattr(LowPrecisionLikelihood, "forward", shifted)
    return (0,)


FAULTS = [no_correction, weights_ignored_in_the_choice, one_choice_for_both, wrong_sign, another_sample_than_the_chosen]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    wrong = fault(monkeypatch)
    found = off(vae())
    assert all(found[which] > 5 for which in wrong)


def test_numbers_do_not_depend_on_the_pool():
    model, x = distorted(vae()), examples().repeat(20, 1)
    one, other = (bounds(model, lambda a, b: (x[a:b], None), len(x), samples=300, threads=t) for t in (1, 3))
    assert torch.equal(one.iwae, other.iwae)
    assert torch.equal(one.elbo, other.elbo)


SYSTEMS = {
    "vae": {"hidden": [16]},
    "cvae": {"hidden": [16]},
    "vae with convolutions": {"encoder": "conv", "decoder": "conv", "channels": [4, 8], "smallest": 4},
    "iwae-2layer-small": {},
    "lvae-small": {},
    "nvae-small": {},
    "draw-small": {},
    "pixelvae": {},
    "vae of levels": {"likelihood": "discretised-logistic", "binarize": "none", "hidden": [16]},
}


def built(name):
    """An untrained system on digits, whose last biases are moved so that p(x|z) depends on z."""
    run = lambent.fit(name.split(" ")[0], "digits", train__steps=0, threads=1, quiet=True, **SYSTEMS[name])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for weight in run.model.likelihood.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return run


def first(run, model, samples=20):
    """x and the trace of the first 3 examples."""
    x, condition = run.prepare(None).slice(0, 3)
    draw = Pathwise(samples=samples).using(torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return x, model(x, draw, condition)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_computed_again_is_the_chosen_sample_of_its_own_example(name):
    """With nothing rough in it, nothing is left to correct; a sample later there would be."""
    run = built(name)
    model = in_low_precision(run.model, "bfloat16", 20)
    model.likelihood.arithmetic = nullcontext
    x, trace = first(run, model)
    with torch.inference_mode():
        log_px = trace.log_px(x).double()
        missed = trace.px.corrections(x, log_px, log_px, torch.Generator().manual_seed(0))
    assert torch.stack(missed).abs().max() < 2e-3
    assert (log_px - log_px.roll(1, 0)).abs().max() > 0.1


@pytest.mark.parametrize("name", ["vae", "vae with convolutions", "pixelvae", "lvae-small"])
def test_bfloat16_is_used_and_loses_little(name):
    run = built(name)
    (x, exact), (_, found) = (first(run, in_low_precision(run.model, p, 20)) for p in ("float32", "bfloat16"))
    with torch.inference_mode():
        lost = (exact.log_px(x) - found.log_px(x)).abs() / exact.log_px(x).abs()
    assert 1e-5 < lost.max() < 0.05
    assert torch.equal(exact.latents[0].value, found.latents[0].value), "q and its draws are as they were"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_run_is_evaluated_to_the_same_numbers_and_left_as_it_was(precision):
    run = lambent.fit("vae", "digits", latent=4, hidden=[32], epochs=3, threads=1, quiet=True)
    likelihood, state = run.model.likelihood, copy.deepcopy(run.model.state_dict())
    exact, found = (run.evaluate(samples=200, threads=1, precision=p) for p in ("float32", precision))
    assert found.precision == found.to_dict()["precision"] == precision
    assert "precision" not in exact.to_dict()
    for name in ("elbo", "iwae_200", "distortion"):
        gain = found.each[name] - exact.each[name]
        assert gain.abs().max() > 0
        assert abs(gain.mean()) < 5 * gain.std() / math.sqrt(len(gain))
    assert torch.allclose(found.each["rate"], exact.each["rate"], atol=1e-5), "in closed form, of features in float32"
    assert abs(found.effective - exact.effective) < 0.05 * exact.effective
    assert run.model.likelihood is likelihood
    assert all(torch.equal(value, state[name]) for name, value in run.model.state_dict().items())


def test_whole_numbers_pass_an_int8_map_unchanged():
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(50, 20)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, (20, 50), generator=generator))
        layer.weight[:, 0] = 127
    h = torch.randint(-127, 128, (30, 50), generator=generator).float()
    h[0, 0] = -127
    assert torch.equal(Int8Linear(layer)(h), layer(h))
    half, quarter = copy.deepcopy(layer), torch.tensor([[0.25], [0.5]]).repeat(10, 1)
    with torch.no_grad():
        half.weight.mul_(quarter)
    assert torch.equal(Int8Linear(half)(h / 4), half(h / 4))
    assert torch.equal(Int8Linear(layer)(torch.zeros(3, 50)), layer.bias.expand(3, -1))


REFUSED = {
    "none": ("vae", {"hidden": [8]}, "float16", "expected one of float32, bfloat16, int8"),
    "another decoder": (
        "vae",
        {"encoder": "linear", "decoder": "made"},
        "int8",
        "found MADE on cpu; use precision=bfloat16",
    ),
    "no weights": ("ae", {"hidden": [8]}, "bfloat16", "importance samples: found none"),
    "all summed": ("gmm", {}, "bfloat16", "importance samples: found none"),
    "some summed": ("vae", {"model": "discrete-continuous", "draw": "mixed", "hidden": [8]}, "bfloat16", "found none"),
    "no latents": ("made", {"hidden": [8]}, "bfloat16", "importance samples: found none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_there_is_nothing_to_compute_in_is_refused(name):
    recipe, settings, precision, message = REFUSED[name]
    run = lambent.fit(recipe, "digits", steps=0, threads=1, quiet=True, **settings)
    with pytest.raises(ConfigError, match=message):
        run.evaluate(samples=5, precision=precision)


def test_the_command_says_what_it_computed_in(tmp_path, capsys):
    out = str(tmp_path / "run")
    lambent.fit("vae", "digits", hidden=[8], latent=2, steps=2, threads=1, quiet=True, out=out)
    assert command(["evaluate", out, "--samples", "20", "--precision", "int8", "--threads", "1"]) == 0
    assert re.search(
        r"K = 20, in int8 \(error of log p\(x\|z\): sd 0\.\d+ nats\), corrected by samples in float32",
        capsys.readouterr().out,
    )
    assert command(["evaluate", out, "--precision", "int8", "--samples", "2"]) == 2
    assert "found 2, expected 3 or more" in capsys.readouterr().err
    assert command(["evaluate", out, "--precision", "half"]) == 2
    assert "precision=half" in capsys.readouterr().err
