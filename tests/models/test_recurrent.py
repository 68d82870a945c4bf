"""DRAW against its equations written out for one example at a time, against quadrature, and in training."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lambent
from lambent.config import settings_of_tokens
from lambent.distributions import Normal
from lambent.draws import Ancestral, Given, Pathwise
from lambent.evaluation.bounds import bounds
from lambent.models import Recurrent
from lambent.networks.recurrent.draw import Reader, Writer
from lambent.objectives import ELBO
from lambent.recipes import configure
from lambent.shapes import Shapes

SETTINGS = ("model=recurrent", "encoder=draw-reader", "decoder=draw-writer", "hidden_dim=5")


def model_of(*tokens, event=(1, 4, 4), seed=0, spread=0.5, steps=3, latent=2):
    config = configure("vae", tokens=(*SETTINGS, f"model.glimpses={steps}", f"latent={latent}", *tokens))
    model = config.model.build(config, Shapes(event, config.model.latent)).double()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
    return model


def binary(n, event=(1, 4, 4)):
    return (torch.rand(n, *event, generator=torch.Generator().manual_seed(3)) < 0.4).double()


def lstm(cell, inputs, h, c):
    """Hochreiter & Schmidhuber's cell with a forget gate, from torch's own layout of the weights."""
    sums = cell.weight_ih @ inputs + cell.bias_ih + cell.weight_hh @ h + cell.bias_hh
    i, f, g, o = sums.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def by_equations(model, x, z):
    """KL of every step and log p(x|z) for one example x and its latents z, in order of their steps."""
    read, write, u = model.reader, model.writer, model.reader.features
    h_enc, c_enc = read.cell.start.split(u)
    h_dec, c_dec = write.cell.start.split(write.features)
    canvas, rates = model.likelihood.decoder.bias.clone(), []
    for value in z:
        error = x - torch.sigmoid(canvas).view(x.shape)
        pair = torch.cat([x, error])
        seen = pair.flatten() if read.window is None else read.window.read(h_dec[None], pair[None]).flatten()
        h_enc, c_enc = lstm(read.cell.cell, torch.cat([seen, h_dec]), h_enc, c_enc)
        mean, raw = (model.posterior.head.weight @ h_enc + model.posterior.head.bias).chunk(2)
        log_scale = 12 * torch.sigmoid(12 / 35 * raw + math.log(7 / 5)) - 7
        rates.append(0.5 * (mean**2 + torch.exp(2 * log_scale) - 1 - 2 * log_scale).sum())
        h_dec, c_dec = lstm(write.cell.cell, value, h_dec, c_dec)
        stroke = write.paint.weight @ h_dec + write.paint.bias
        if write.window is not None:
            stroke = write.window.write(h_dec[None], stroke.view(1, *write.patch)).flatten()
        canvas = canvas + stroke
    signs = 2 * x.flatten() - 1
    return torch.stack(rates), nn.functional.logsigmoid(signs * canvas).sum()


@torch.no_grad()
def as_written(*tokens):
    """Raises AssertionError unless every term, of 3 samples of 4 examples, is that of the equations."""
    model, x = model_of(*tokens), binary(4)
    trace = model(x, Pathwise(3, torch.Generator().manual_seed(1)))
    for k in range(3):
        for b in range(4):
            z = [latent.value[k, b] for latent in reversed(trace.latents)]
            rates, log_px = by_equations(model, x[b], z)
            found = torch.stack([latent.kl.expand(3, 4)[k, b] for latent in reversed(trace.latents)])
            assert (found - rates).abs().max() < 1e-6  # the error image is float32
            assert (trace.log_px(x)[k, b] - log_px).abs() < 1e-10


WINDOWS = [("patch=0",), ("encoder.patch=2", "decoder.patch=3")]


@pytest.mark.parametrize("tokens", WINDOWS, ids=["whole images", "windows"])
def test_every_term_is_that_of_the_papers_equations(tokens):
    as_written(*tokens)


def forgets(patch):
    real = Reader.forward
    patch.setattr(Reader, "forward", lambda self, state, *rest: real(self, 0 * state, *rest))


def replaces(patch):
    real = Writer.forward
    empty = lambda self, state: torch.cat([state[:, : 2 * self.features], 0 * self.canvas(state)], 1)  # noqa: E731
    patch.setattr(Writer, "forward", lambda self, state, *rest: real(self, empty(self, state), *rest))


def blind(patch):
    real = Reader.forward
    patch.setattr(Reader, "forward", lambda self, s, h, error, x, c: real(self, s, h, x, x, c))


def unaware(patch):
    real = Reader.forward
    patch.setattr(Reader, "forward", lambda self, s, h, *rest: real(self, s, 0 * h, *rest))


@pytest.mark.parametrize("plant", [forgets, replaces, blind, unaware])
def test_faults_are_caught(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        as_written("patch=0")


def test_generation_runs_the_same_steps_as_inference():
    model, x = model_of(*WINDOWS[1]), binary(4)
    trace = model(x, Pathwise(3, torch.Generator().manual_seed(1)))
    replayed = model(None, Given(values={z.name: z.value for z in trace.latents}))
    assert torch.equal(replayed.log_px(x), trace.log_px(x))
    assert torch.equal(model.decode(model.code(trace)).log_prob(x), trace.log_px(x))
    drawn = model(None, Ancestral(2000, torch.Generator().manual_seed(0), batch=2))
    z = torch.stack([latent.value for latent in drawn.latents])
    assert z.shape == (3, 2000, 2, 2)
    assert z.mean().abs() * math.sqrt(z.numel()) < 5
    assert (z.var() - 1).abs() * math.sqrt(z.numel() / 2) < 5


@torch.no_grad()
def test_the_bounds_against_quadrature_over_all_latents():
    """Two steps of one latent: p(x) by 80 x 80 nodes; over all x it sums to 1, and weights have it as their mean."""
    model = model_of("patch=0", event=(3,), spread=1.0, steps=2, latent=1)
    model.posterior.head.weight.mul_(0.2)
    model.posterior.head.bias.copy_(torch.tensor([0.0, 0.3]))  # wider than the prior, so that weights are bounded
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    nodes, mass = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(80))
    mass = mass / mass.sum()
    px = model.decode(torch.cartesian_prod(nodes, nodes).unsqueeze(1).expand(-1, 8, -1))
    log_p = torch.logsumexp(px.log_prob(x) + mass.outer(mass).flatten().log().unsqueeze(1), 0)
    assert abs(log_p.exp().sum().item() - 1) < 1e-12
    many = x.repeat(200, 1)
    found = bounds(model, lambda a, b: (many[a:b], None), len(many), samples=100)
    ratio = torch.exp(found.iwae - log_p.repeat(200)).view(200, 8)
    se = ratio.std(0) / math.sqrt(200)
    assert ((ratio.mean(0) - 1).abs() / se).max() < 5
    assert se.max() < 0.05
    over = found.iwae.view(200, 8) - log_p
    assert bool((over.mean(0) <= 5 * over.std(0) / math.sqrt(200)).all())
    assert found.elbo.mean() < found.iwae.mean()


def test_the_gradient_is_that_of_differences_along_random_directions():
    model, x = model_of(*WINDOWS[1]), binary(4)
    noise = torch.Generator()

    def loss():
        return ELBO()(model(x, Pathwise(2, noise.manual_seed(5))), x).losses["all"]

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        way = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        with torch.no_grad():
            sides = []
            for step in (1e-3, -2e-3):
                parameter.add_(step * way)
                sides.append(loss().item())
            parameter.add_(1e-3 * way)
        slope = (sides[0] - sides[1]) / 2e-3
        assert gradient.abs().max() > 0
        assert slope == pytest.approx((gradient * way).sum().item(), rel=2e-3, abs=2e-3)


def test_groups_hold_every_parameter_once():
    model = model_of(*WINDOWS[1])
    groups = model.groups()
    together = [id(p) for group in groups.values() for p in group]
    assert sorted(together) == sorted(id(p) for p in model.parameters())
    trace = model(binary(4), Pathwise())
    for z in trace.latents:
        assert isinstance(z.q, Normal)
    generated = trace.px.log_prob(binary(4)).sum()
    missing = torch.autograd.grad(generated, groups["inference"], allow_unused=True, retain_graph=True)
    assert all(g is not None for g in missing)


def test_training_on_digits_raises_the_bound_and_its_rate():
    tokens = ("patch=0", "model.glimpses=3", "hidden_dim=64", "epochs=4", "lr=0.01", "lr_schedule=constant")
    run = lambent.fit("draw-small", "digits", quiet=True, **settings_of_tokens(tokens))
    assert isinstance(run.model, Recurrent)
    first, *_, last = [line["valid"] for line in run.history if "valid" in line]
    found = run.evaluate(samples=20)
    print(f"bound {first['bound']:.2f} to {last['bound']:.2f} nats, rate {first['rate']:.2f} to {last['rate']:.2f}")
    assert last["bound"] > first["bound"] + 0.5
    assert last["rate"] > first["rate"] + 1
    assert found.elbo.value < found.iwae.value
