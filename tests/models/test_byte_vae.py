"""Chains of bytes against sums over all their states, written with numpy; straight-through gradients by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
import torch

import lambent.models.chain as chain
import lambent.posteriors.bytes as family
from lambent.config import biases, check, resolve
from lambent.distributions import Categorical, RoundedPoint, rounded as rounded_module
from lambent.draws import Ancestral, Detached, Given, Mode, StraightThrough
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.ais import annealed_importance_sampling
from lambent.evaluation.bounds import bounds
from lambent.evaluation.exact import exact_log_prob
from lambent.objectives import ELBO, IWAE
from lambent.report import write_report
from lambent.runs.export import write_interpolations
from lambent.runs.fit import fit
from lambent.shapes import Shapes
from support.statistics import fails

PIXELS, SPREAD = 4, 60.0
PRIORS = ("none", "categorical", "normal")
X = np.array(list(itertools.product([0.0, 1.0], repeat=PIXELS)))
BYTES = np.arange(256.0)


def config(learned="categorical", model="chain", **settings):
    own = {
        "model": {"name": model, "latent": 1, **({"upper_latents": [1]} if model == "chain" else {})},
        "prior": {"name": "bytes", "learned": learned, "init_scale": SPREAD},
        "posterior": {"name": "bytes", "bytes_per_unit": SPREAD},
        "draw": {"name": "straight-through"},
        "encoder": {"name": "linear"},
        "decoder": {"name": "linear"},
    }
    return resolve("tested", own, settings)


def built(learned="categorical", model="chain", seed=0):
    """A model in float64 with weights of a size that makes everything depend on everything."""
    settings = config(learned, model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = settings.model.build(settings, Shapes((PIXELS,), 1)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn_like(parameter))
    return model


def arrays(linear):
    return linear.weight.detach().numpy(), linear.bias.detach().numpy()


def byte_log_mass(k, mean, scale):
    """Phi((k + 1/2 - m)/s) - Phi((k - 1/2 - m)/s), the ends with their tails."""
    high = np.where(k >= 255, np.inf, (k + 0.5 - mean) / scale)
    low = np.where(k <= 0, -np.inf, (k - 0.5 - mean) / scale)
    flip = low > 0
    high, low = np.where(flip, -low, high), np.where(flip, -high, low)
    with np.errstate(divide="ignore"):
        return np.log(st.norm.cdf(high) - st.norm.cdf(low))


def rounded_normal(k, mean, raw):
    inner = 1 / (1 + np.exp(-(raw * 12 / 35 + math.log(7 / 5))))
    return byte_log_mass(k, 127.5 + SPREAD * mean, SPREAD * np.exp(inner * 12 - 7))


def seen(z):
    """Bytes as networks see them."""
    return (np.asarray(z) - 127.5) / SPREAD


class Truth:
    """The two-level chain of `built` (or its one-level brother), with real numbers for bytes where asked."""

    def __init__(self, model, learned):
        self.learned, self.prior, self.levels = learned, model.prior, len(getattr(model, "posteriors", [0]))
        self.out = arrays(model.likelihood.decoder.output)
        first = model.posteriors[0] if self.levels == 2 else model.posterior
        self.up = [arrays(first.head)]
        if self.levels == 2:
            self.up.append(arrays(model.posteriors[1].head))
            self.down = arrays(model.conditionals[0].head)

    def log_prior(self, z):
        if self.learned == "normal":
            loc, raw = self.prior.loc.item(), self.prior.raw_scale.item()
            return rounded_normal(z, loc, raw)
        if self.learned == "none":
            return np.full(np.shape(z), -math.log(256))
        return sp.log_softmax(self.prior.logits.detach().numpy()[0])[np.round(z).astype(int)]

    def log_px(self, x, z1):
        weight, bias = self.out
        logits = seen(z1)[..., None] * weight[:, 0] + bias
        return (x * -np.logaddexp(0, -logits) + (1 - x) * -np.logaddexp(0, logits)).sum(-1)

    def log_joint(self, x, *z):
        return self.log_px(x, z[0]) + self.log_pz(*z)

    def log_pz(self, *z):
        if self.levels == 1:
            return self.log_prior(z[0])
        weight, bias = self.down
        above = seen(z[1])
        between = rounded_normal(z[0], above * weight[0, 0] + bias[0], above * weight[1, 0] + bias[1])
        return between + self.log_prior(z[1])

    def position(self, level, below):
        """The encoder's number before rounding, and its derivative by the affine map's output."""
        weight, bias = self.up[level]
        u = float((weight[0] * below).sum() + bias[0])
        bent = math.tanh(SPREAD * u / 127.5)
        return 127.5 * (1 + bent), SPREAD * (1 - bent**2)

    def codes(self, x):
        z1 = np.round(self.position(0, x)[0])
        return (z1,) if self.levels == 1 else (z1, np.round(self.position(1, seen(z1))[0]))

    def log_p(self):
        """Of all X, by summing 256 or 65,536 states."""
        states = np.meshgrid(*[BYTES] * self.levels, indexing="ij")
        log_pz1 = sp.logsumexp(self.log_pz(*states), tuple(range(1, self.levels)))  # sums the upper level out
        return np.array([sp.logsumexp(log_pz1 + self.log_px(x, BYTES)) for x in X])


def batch(start, stop):
    return torch.tensor(X)[start:stop], None


def elbos(model, samples=1, objective=None):
    x = torch.tensor(X)
    with torch.no_grad():
        return (objective or ELBO())(model(x, StraightThrough(samples)), x).value.numpy()


def bound_is_the_joint_at_the_codes():
    for learned in PRIORS:
        for kind in ("chain", "vae"):
            model = built(learned, kind)
            truth, found = Truth(model, learned), elbos(model)
            joint = np.array([truth.log_joint(x, *truth.codes(x)) for x in X])
            assert np.abs(found - joint).max() < 1e-9
            exact = truth.log_p()
            assert (found < exact).all()
            assert abs(np.exp(exact).sum() - 1) < 1e-9, "p(x) itself sums to 1"


def joint_sums_to_the_evidence():
    """The library's p(x|z) p(z1|z2) p(z2) over all 65,536 states."""
    model = built("normal")
    truth, grid = Truth(model, "normal"), torch.cartesian_prod(torch.arange(256.0), torch.arange(256.0)).double()
    x = torch.tensor(X[5])
    with torch.no_grad():
        z1, z2 = grid[:, :1].unsqueeze(1), grid[:, 1:].unsqueeze(1)
        trace = model(None, Given(values={"z1": z1, "z2": z2}))
        total = trace.log_px(x.unsqueeze(0)) + sum(latent.log_p.expand(65536, 1) for latent in trace.latents)
    assert torch.logsumexp(total, 0).item() == pytest.approx(truth.log_p()[5], abs=1e-9)
    assert (trace.latents[0].log_p.view(256, 256).exp().sum(0) - 1).abs().max() < 1e-12


def gradient_is_the_chain_rule_with_rounding_left_out():
    for learned in ("none", "normal"):
        model = built(learned)
        truth, x = Truth(model, learned), X[9]
        estimate = ELBO()(model(torch.tensor(x).unsqueeze(0), StraightThrough()), torch.tensor(x).unsqueeze(0))
        wanted = [model.posteriors[0].head.bias, model.posteriors[1].head.bias, model.posteriors[0].head.weight]
        found = [-g for g in torch.autograd.grad(estimate.losses["all"], wanted)]
        z1, z2 = truth.codes(x)
        h = 1e-4
        by_z1 = (truth.log_joint(x, z1 + h, z2) - truth.log_joint(x, z1 - h, z2)) / (2 * h)
        by_z2 = (truth.log_joint(x, z1, z2 + h) - truth.log_joint(x, z1, z2 - h)) / (2 * h)
        slopes = [truth.position(0, x)[1], truth.position(1, seen(z1))[1]]
        through = by_z2 * slopes[1] * truth.up[1][0][0, 0] / SPREAD
        expected = (by_z1 + through) * slopes[0], by_z2 * slopes[1]
        assert abs(expected[0]) > 1e-3
        assert found[0].item() == pytest.approx(expected[0], rel=1e-5)
        assert found[1].item() == pytest.approx(expected[1], rel=1e-5, abs=1e-8)
        assert np.allclose(found[2].numpy()[0], expected[0] * x, rtol=1e-5)


CHECKS = (
    bound_is_the_joint_at_the_codes,
    joint_sums_to_the_evidence,
    gradient_is_the_chain_rule_with_rounding_left_out,
)


@pytest.mark.parametrize("checked", CHECKS, ids=lambda c: c.__name__)
def test_bytes(checked):
    checked()


def test_a_bound_of_k_samples_is_the_elbo_as_the_encoder_is_deterministic():
    for kind in ("chain", "vae"):
        model = built("categorical", kind)
        plain = elbos(model)
        for samples in (1, 3, 7):
            assert np.allclose(elbos(model, samples, IWAE()), plain, atol=1e-12)
        found = bounds(model, batch, len(X), samples=20, draw=StraightThrough().evaluating())
        assert np.allclose(found.iwae.numpy(), plain, atol=1e-12)
        assert np.allclose(found.elbo.numpy(), plain, atol=1e-12)
        assert (found.elbo_kind, found.iwae_kind) == ("lower bound", "lower bound")


def test_one_byte_is_summed_exactly():
    model = built("categorical", "vae")
    truth = Truth(model, "categorical")
    with torch.no_grad():
        found = exact_log_prob(model)(torch.tensor(X), None).numpy()
    assert np.allclose(found, truth.log_p(), atol=1e-10)
    assert exact_log_prob(built()) is None, "65,536 states are not summed unasked"


def test_draws_give_bytes():
    model = built("normal")
    x = torch.tensor(X)
    with torch.no_grad():
        for trace in (model(x, Mode()), model(x, Detached(2)), model(None, Ancestral(batch=500)), model(None, Mode())):
            for latent in trace.latents:
                assert torch.equal(latent.value, latent.value.round())
                assert 0 <= latent.value.min() <= latent.value.max() <= 255
        codes = [Truth(model, "normal").codes(row) for row in X]
        assert np.array_equal(model.code(model(x, Mode()))[0, :, 0].numpy(), [c[0] for c in codes])


def test_what_is_refused_and_what_is_said():
    said = {
        "draw=pathwise with posterior=bytes: bytes latents; use draw=straight-through": {"draw": {"name": "pathwise"}},
        "draw=score with posterior=bytes": {"draw": {"name": "score"}},
        "draw=gumbel with posterior=bytes": {"draw": {"name": "gumbel"}},
        "draw=enumerate with posterior=bytes": {"draw": {"name": "enumerate"}},
        "prior=normal with posterior=bytes: continuous against bytes latents; use prior=bytes": {
            "prior": {"name": "normal"}
        },
        "objective=sleep with posterior=bytes": {"objective": {"name": "sleep"}},
        "draw=straight-through with objective=wake-sleep": {"objective": {"name": "wake-sleep"}},
        "rate=tc with posterior=bytes": {"rate": {"name": "tc"}},
        **{f"penalty={p} with posterior=bytes": {"penalty": {"name": p}} for p in ("l1", "l2", "mmd", "dip")},
    }
    for message, layer in said.items():
        with pytest.raises(CombinationError) as error:
            check(config(model="vae", **layer))
        assert str(error.value).startswith(message)
    check(config())
    assert "straight-through" in biases(config())[0]
    with pytest.raises(CombinationError, match="RoundedPoint is neither binary nor continuous"):
        annealed_importance_sampling(built(), batch, 16, samples=2, temperatures=3)


def test_a_trained_run_encodes_to_bytes_and_is_reported(tmp_path):
    run = fit("byte-vae", "digits", epochs=1, latent=2, upper_latents=[1], out=tmp_path / "run", quiet=True)
    z = run.encode("digits")
    assert torch.equal(z, z.round())
    assert torch.equal(z, run.encode("digits", seed=3))
    assert run.decode(z[:3]).shape == run.sample(3).shape == (3, 1, 8, 8)
    found = run.evaluate(samples=3)
    assert found.elbo.value == pytest.approx(found.iwae.value, abs=1e-4)
    with pytest.raises(ConfigError, match="between discrete latents there is nothing to decode"):
        write_interpolations(run, "digits", tmp_path / "x.npz")
    write_report(run, tmp_path / "report.html", data="digits")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def _without_tails(real):
    def forward(ctx, value, loc, log_scale, levels):
        return real(ctx, value.clamp(1e-9, levels - 1 - 1e-9), loc, log_scale, levels)

    return staticmethod(forward)


def _narrow(real):
    def forward(ctx, value, loc, log_scale, levels):
        wide = real(ctx, 2 * value - 2 * loc, 0 * loc, log_scale + math.log(2), 10**6)
        return torch.where((value > 0) & (value < levels - 1), wide, real(ctx, value, loc, log_scale, levels))

    return staticmethod(forward)


FAULTS = {
    "the ends' bins without their tails": (rounded_module._LogMass, "forward", _without_tails),
    "bins of half the width": (rounded_module._LogMass, "forward", _narrow),
    "log 256 missing": (
        Categorical,
        "log_prob",
        lambda real: lambda self, z: real(self, z) + math.log(256) * z.shape[-1],
    ),
    "networks see the bytes themselves": (family, "unit", lambda real: lambda z, spread: z),
    "no gradient through the rounding": (
        RoundedPoint,
        "_sample",
        lambda real: lambda self, *a: real(self, *a).detach(),
    ),
    "the point's log density counted": (
        RoundedPoint,
        "log_prob",
        lambda real: lambda self, z: real(self, z) + math.log(256),
    ),
    "p of the lower level given nothing": (
        chain.MarkovChain,
        "_scored",
        lambda real: (
            lambda self, level, latents, c: real(
                self, level, [latents[0], *(_blank(z) for z in latents[1:])] if level == 0 else latents, c
            )
        ),
    ),
}


def _blank(latent):
    return type(latent)(latent.name, latent.value.detach() * 0, latent.p, latent.q)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, monkeypatch):
    owner, attribute, make = FAULTS[name]
    monkeypatch.setattr(owner, attribute, make(getattr(owner, attribute)))
    assert any(fails(checked) for checked in CHECKS)
