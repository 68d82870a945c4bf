"""Diffusions as models: their bound on Gaussian data in evaluation, likelihoods by Bayes' rule, levels, codes, use."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn

import lambent
from lambent.config import settings_of_tokens
from lambent.data.sources import dataset_of
from lambent.draws import Ancestral, Detached, Given, Mode, Pathwise
from lambent.errors import ConfigError
from lambent.evaluation.bounds import bounds
from lambent.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    LogisticMixtureLikelihood,
    NoisyLikelihoodModule,
    NormalLikelihood,
)
from lambent.models.diffusion.model import Diffusion, DrawnTimesteps, Timesteps
from lambent.models.diffusion.timestep_losses import BINS, TimestepLosses
from lambent.networks.diffusion.schedules import schedule
from lambent.shapes import Shapes
from support import diffusion_truths as truth

Y = torch.tensor([[0.4, -0.2, 1.0]])
COPIES = 400


class Best(nn.Module):
    """The best denoiser of the Gaussian data, which remembers what it was shown; ``gain`` makes it worse."""

    def __init__(self):
        super().__init__()
        self.gain, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, z, gamma, condition):
        self.seen.append((z, gamma, condition))
        return self.gain * truth.best("eps")(z, gamma)


def gaussian(steps=None, importance="evaluation", sampling=100, low=truth.LOW, high=truth.HIGH):
    family, shapes = NormalLikelihood(scale="model"), Shapes((3,), 0)
    likelihood = NoisyLikelihoodModule(family, shapes, low / 2)
    return Diffusion(Best(), schedule("linear", low, high), likelihood, Timesteps(steps, "eps", sampling, importance))


def closed_form(steps):
    """The ELBO of Y."""
    y, chain = Y[0].double(), truth.chain("linear", steps)
    ends = truth.end_kl(truth.HIGH, y) + truth.reconstruction(truth.LOW)
    if steps is None:
        at, weight = truth.nodes(200)
        gamma = chain.schedule(at)[0].tolist()
        factors = 0.5 * (truth.HIGH - truth.LOW) * weight
        return -ends - sum(f * truth.error(g, Y.double()) for f, g in zip(factors.tolist(), gamma, strict=True))
    gamma = truth.gammas(chain, steps)
    return -ends - sum(truth.level_kl(s, t, y) for s, t in itertools.pairwise(gamma))


def measured(model, samples):
    """The evaluator's ELBO of many copies of Y."""
    return bounds(model, lambda a, b: (Y.expand(b - a, 3), None), COPIES, samples=samples, seed=1)


def planted(model):
    """Losses remembered that make levels as uneven as they get."""
    model.losses.squares.copy_(torch.linspace(4, -4, BINS).exp())
    model.losses.seen.fill_(1)
    return model


def check_bound(steps, samples, importance="evaluation"):
    found = measured(planted(gaussian(steps, importance)), samples).elbo
    assert abs(found.mean() - closed_form(steps)) < 5 * found.std() / math.sqrt(COPIES)
    return found.std().item()


@pytest.mark.parametrize("steps", [1, 10])
def test_evaluation_by_all_levels_gives_the_closed_form(steps):
    check_bound(steps, 2 * steps)


@pytest.mark.parametrize("steps", [10, None])
@pytest.mark.parametrize("importance", ["never", "evaluation", "always"])
def test_evaluation_by_some_levels_is_unbiased(steps, importance):
    check_bound(steps, 7, importance)


def test_dropped_weights_are_caught(monkeypatch):
    real = TimestepLosses.placed
    monkeypatch.setattr(TimestepLosses, "placed", lambda *a: (real(*a)[0], torch.ones_like(a[1])))
    with pytest.raises(AssertionError):
        check_bound(None, 7)


def test_rates_are_those_of_levels_and_end():
    found = measured(gaussian(10), 10)
    end = truth.end_kl(truth.HIGH, Y[0].double())
    assert found.names == ("levels", "end")
    assert found.rates[1].mean().item() == pytest.approx(end, rel=1e-5)
    torch.testing.assert_close(found.rates.sum(0), found.rate)
    assert (found.iwae, found.elbo_kind) == (None, "lower bound")


def test_every_level_is_taken_for_each_example_and_with_its_condition():
    model, steps, batch = gaussian(5), 5, 4
    condition = torch.arange(batch).float().unsqueeze(1)
    x = (3 * condition).expand(batch, 3)
    model.eval()
    for start, samples in ((0, 3), (3, 6), (9, 1)):
        model(x, Pathwise(samples, start=start, total=10), condition)
    z, gamma, given = (torch.cat(parts) for parts in zip(*model.denoiser.seen, strict=True))
    taken = {(c.item(), round(g.item(), 3)) for c, g in zip(given, gamma, strict=True)}
    assert len(gamma) == 10 * batch
    assert len(taken) == steps * batch
    signal = torch.sigmoid(-gamma).sqrt().unsqueeze(1)
    assert ((z - signal * 3 * given).abs() < 5).all()  # each example with its own condition: noise is at most 5


def test_gradient_vanishes_at_the_best_denoiser():
    """Of the training loss, with levels drawn evenly or by their losses: z-scores over batches."""
    for importance in ("never", "always"):
        model = planted(gaussian(None, importance)).train()
        slopes = []
        for seed in range(200):
            noise = torch.Generator().manual_seed(seed)
            x = truth.MEAN + torch.randn(32, 3, generator=noise).double() @ torch.linalg.cholesky(truth.COVARIANCE).T
            trace = model(x.float(), Pathwise(generator=noise))
            slopes.append(torch.autograd.grad(trace.rate.mean(), model.denoiser.gain)[0])
        values = torch.stack(slopes)
        assert values.mean().abs() < 5 * values.std() / math.sqrt(200)


def test_mode_needs_no_denoiser():
    model = gaussian()
    trace = model(Y, Mode())
    assert model.denoiser.seen == []
    torch.testing.assert_close(trace.px.mean, Y.unsqueeze(0))
    with pytest.raises(ConfigError, match="only reports a rate"):
        _ = trace.rate


def test_code_comes_back_and_is_standard_normal():
    model, noise = gaussian(None, sampling=300, high=6.0).eval(), torch.Generator().manual_seed(0)
    x = (
        truth.MEAN + torch.randn(1000, 3, generator=noise).double() @ torch.linalg.cholesky(truth.COVARIANCE).T
    ).float()
    code = model.encode(x, Mode())
    assert (model.decode(code).mean[0] - x).abs().max() < 0.05
    assert code.mean((0, 1)).abs().max() < 5 / math.sqrt(1000)
    assert (code[0].T @ code[0] / 1000 - torch.eye(3)).abs().max() < 5 * math.sqrt(2 / 1000) + 0.02
    drawn = model.encode(x[:5], Detached(generator=noise))
    assert (model.decode(drawn).mean[0] - x[:5]).std() > 0.01
    torch.testing.assert_close(model(None, Given(values={"end": code})).px.mean, model.decode(code).mean)


def test_noise_of_a_low_level_leaves_most_of_an_example():
    model, draw = gaussian().eval(), Ancestral(generator=torch.Generator().manual_seed(0), steps=50)
    x = Y.expand(500, 3)
    off = [(model.from_level(x, top, draw).mean[0] - x).square().mean().item() for top in (0.05, 0.4, 0.7, 1.0)]
    assert off[0] < 0.01
    assert off == sorted(off)


def bayes(noisy, values, gamma):
    """P(value|noisy) of equally likely values, (..., values)."""
    normal = torch.distributions.Normal(noisy.double().unsqueeze(-1), math.exp(gamma / 2))
    return normal.log_prob(values.double()).softmax(-1)


@pytest.mark.parametrize("gamma", [-13.3, -2.0, 3.0])
def test_likelihood_of_discrete_data_is_bayes_rule(gamma):
    noisy = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    log_noise = torch.tensor(gamma / 2)
    coins = NoisyLikelihoodModule(BernoulliLikelihood(), Shapes((4,), 0), gamma / 2).through(noisy, log_noise)
    expected = bayes(noisy, torch.tensor([-1.0, 1.0]), gamma)[..., 1].float()
    torch.testing.assert_close(coins.mean, expected, rtol=1e-4, atol=1e-6)
    levels = NoisyLikelihoodModule(CategoricalLikelihood(bits=3), Shapes((4,), 0), gamma / 2).through(noisy, log_noise)
    values = torch.linspace(-1, 1, 8)
    # where two levels are as likely as each other, float32 says which by the 5th digit of e^13.3
    rtol, atol = 1e-3, 0.05 if gamma < -10 else 1e-5
    expected = bayes(noisy, values, gamma).float()
    torch.testing.assert_close(levels.logits.softmax(-1), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("gamma", [-10.0, -3.0])
@pytest.mark.parametrize("scale", ["model", "dimension", "element"])
def test_likelihood_of_numbers_is_as_wide_as_the_noise(gamma, scale):
    noisy = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).clamp(-0.9, 0.9)
    spread = math.exp(gamma / 2)
    for family, logistic in (
        (NormalLikelihood(scale=scale), 1),
        (DiscretisedLogisticLikelihood(8, scale), math.sqrt(3) / math.pi),
    ):
        px = NoisyLikelihoodModule(family, Shapes((4,), 0), gamma / 2).through(noisy, torch.tensor(gamma / 2))
        torch.testing.assert_close(px.loc, noisy)
        expected = torch.full_like(px.log_scale, spread * logistic)
        torch.testing.assert_close(px.log_scale.exp(), expected, rtol=1e-4, atol=0)
    mixed = NoisyLikelihoodModule(LogisticMixtureLikelihood(8, 3), Shapes((4,), 0), gamma / 2).through(
        noisy, torch.tensor(gamma / 2)
    )
    one = DiscretisedLogisticLikelihood(8, "element")
    alone = NoisyLikelihoodModule(one, Shapes((4,), 0), gamma / 2).through(noisy, torch.tensor(gamma / 2))
    x = ((noisy[0] + 1) * 127.5).round()
    torch.testing.assert_close(mixed.log_prob(x), alone.log_prob(x), rtol=1e-4, atol=1e-3)


def trained(draw=None):
    model = gaussian(10).train()
    return model, model(Y.expand(64, 3), draw or Pathwise(generator=torch.Generator().manual_seed(0)))


def test_losses_by_level_are_those_of_the_training():
    model, trace = trained()
    drawn = trace.latents[0]
    assert isinstance(drawn, DrawnTimesteps)
    model.update_buffers(trace, lambda total: total)
    found = model.pop_metrics()["noise_levels"]
    cell = (drawn.position.flatten() * 10).long()
    assert found["nats"] == pytest.approx([drawn.losses.flatten()[cell == i].mean().item() / 10 for i in range(10)])
    assert sum(found["nats"]) == pytest.approx(drawn.known["kl"].mean().item(), rel=0.2)
    assert found["gamma"] == pytest.approx(torch.linspace(truth.LOW, truth.HIGH, 11).tolist())
    assert model.pop_metrics() == {}
    mean = model.losses.squares[model.losses.seen > 0].mean()
    assert mean == pytest.approx(drawn.losses.square().mean().item(), rel=0.3)


def test_losses_by_level_are_of_the_whole_cell_wherever_levels_are_drawn():
    """Drawn where they cost most, even inside a cell: what a cell adds to the bound is the closed form all the same."""
    model, noise = gaussian(importance="always").train(), torch.Generator().manual_seed(0)
    model.losses.squares.copy_(100.0 ** -(torch.arange(BINS) % 5))
    model.losses.seen.fill_(1)
    with torch.no_grad():
        trace = model(Y.expand(200_000, 3), Pathwise(generator=noise))
    drawn = trace.latents[0]
    model.update_buffers(trace, lambda total: total)
    found = torch.tensor(model.pop_metrics()["noise_levels"]["nats"], dtype=torch.float64)
    (at, share), schedule_ = truth.nodes(20), truth.chain("linear").schedule
    gammas = schedule_((torch.arange(10, dtype=torch.float64).unsqueeze(1) + at) / 10)[0]
    errors = torch.tensor([[truth.error(g, Y.double()) for g in row] for row in gammas.tolist()])
    exact = 0.05 * (truth.HIGH - truth.LOW) * (errors.double() * share).sum(1)
    each = (drawn.weight * drawn.losses).flatten()
    cell = (drawn.position.flatten() * 10).long()
    se = torch.stack([each[cell == i].square().sum().sqrt() / len(each) for i in range(10)])
    assert ((found - exact).abs() < 5 * se).all()


def test_losses_are_summed_over_processes_and_fillers_left_out():
    alone, trace = trained()
    alone.update_buffers(trace, lambda total: total)
    twice, _ = trained()
    twice.update_buffers(trace, lambda total: 2 * total)
    torch.testing.assert_close(twice.losses.squares, alone.losses.squares)
    torch.testing.assert_close(twice.losses.sums, 2 * alone.losses.sums)
    filler, _ = trained()
    filler.update_buffers(trace, lambda total: total, counted=False)
    assert not filler.losses.seen.any()


def test_loss_at_levels_has_the_rate_as_its_mean():
    model = gaussian().eval()
    positions = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    with torch.no_grad():
        found = model.loss_at(Y, positions, generator=torch.Generator().manual_seed(0)).squeeze(1).double()
    y = Y[0].double()
    exact = -closed_form(None) - truth.end_kl(truth.HIGH, y) - truth.reconstruction(truth.LOW)
    assert abs(found.mean() - exact) < 5 * found.std() / math.sqrt(1000)


@pytest.fixture(scope="module")
def run():
    tokens = ("model=diffusion", "posterior=noising", "posterior.gamma_min=-4", "encoder=none", "decoder=denoising-mlp")
    sizes = (
        "decoder.hidden_dim=32",
        "decoder.blocks=1",
        "model.predict=v",
        "posterior.noise_schedule=learned",
        "train.steps=60",
    )
    return lambent.fit(
        "vae",
        "digits",
        quiet=True,
        **settings_of_tokens((*tokens, *sizes, "train.lr=3e-3", "model.sampling_steps=300")),
    )


def test_run_of_a_diffusion_is_used_like_any_other(run):
    found = run.evaluate("digits", samples=4)
    assert (found.iwae, found.active_units, set(found.rates)) == (None, 0, {"levels", "end"})
    assert found.bits_per_dim == pytest.approx(-found.elbo.value / 64 / math.log(2))
    view = run.prepare(dataset_of("digits", run.config.data, "test").head(4))
    code = run.encode(view)
    assert code.shape == (4, 64)
    assert (run.decode(code).round() == view.batch(torch.arange(4))).float().mean() > 0.98
    lines = run.interpolate(code[:1], code[1:2], steps=3)
    torch.testing.assert_close(lines[0, 0], run.decode(code[:1])[0])
    assert "noise_levels" in run.history[-1]["valid"]


def test_samples_visit_as_many_levels_as_asked_for(run):
    seen = []
    hook = run.model.denoiser.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    few = run.sample(3, seed=1, steps=7, noise=0.0, mean=True)
    hook.remove()
    assert len(seen) == 7
    torch.testing.assert_close(few, run.sample(3, seed=1, steps=7, noise=0.0, mean=True))
    assert not torch.equal(few, run.sample(3, seed=1, steps=7, noise=1.0, mean=True))
    for wrong in ({"steps": 0}, {"noise": 1.5}):
        with pytest.raises(ConfigError, match="expected"):
            run.sample(1, **wrong)


def test_steps_of_a_model_without_levels_are_refused():
    config = lambent.fit("vae", "digits", steps=1, latent=2, quiet=True)
    for asked in ({"steps": 5}, {"noise": 0.0}):
        with pytest.raises(ConfigError, match="only a diffusion has levels to visit"):
            config.sample(1, **asked)


def test_more_steps_than_levels_are_refused(run):
    model = gaussian(10)
    finite = dataclasses.replace(run, model=model)
    with pytest.raises(ConfigError, match="use at most 10"):
        finite.model(None, Ancestral(batch=1, steps=11))
