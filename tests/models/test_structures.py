"""The structures: a user's modules in any place, conditions that reach every part, items that stand alone."""

import math

import pytest
import torch
from torch import nn

import lambent
from lambent.draws import Ancestral, Enumerate, Given, Mode, Pathwise
from lambent.likelihoods import BernoulliLikelihood, LikelihoodModule, NormalLikelihood
from lambent.models import VAE, Mixture, chain
from lambent.networks import LinearDecoder, MLPDecoder, MLPEncoder, UserDecoder, UserEncoder
from lambent.objectives import ELBO, IWAE, L1Penalty
from lambent.posteriors import AmortisedPosteriorModule, GaussianCorruption, MaskingCorruption, NormalPosterior
from lambent.priors import CategoricalPriorModule, ConditionalNormalPriorModule, MixturePriorModule, NormalPriorModule
from lambent.shapes import Shapes
from support.random_numbers import generator

ZERO = torch.zeros(())


def vae(condition=0, prior=None, encoder=None, decoder=None, penalties=None, corruption=None):
    torch.manual_seed(0)
    shapes = Shapes((1, 4, 4), 2, condition)
    encoder = (encoder or MLPEncoder((8,))).build(shapes.event, condition)
    decoder = (decoder or MLPDecoder((8,))).build(2, (1, *shapes.event), condition)
    posterior = AmortisedPosteriorModule(NormalPosterior(), encoder, 2)
    posterior = posterior if corruption is None else corruption.wrap(posterior)
    return VAE(
        prior or NormalPriorModule(2), posterior, LikelihoodModule(BernoulliLikelihood(), decoder, shapes), penalties
    )


def images(n=6):
    return (torch.rand(n, 1, 4, 4, generator=generator()) < 0.4).float()


def test_a_users_modules_on_both_sides_are_trained_in_place():
    encoder = nn.Sequential(nn.Conv2d(1, 3, 2, stride=2), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 16))
    model, x = vae(encoder=UserEncoder(encoder), decoder=UserDecoder(decoder)), images()
    loss = IWAE()(model(x, Pathwise(5)), x).losses["all"]
    loss.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in (*encoder.parameters(), *decoder.parameters()))
    expected = decoder(torch.ones(1, 2)).view(1, 1, 4, 4)
    torch.testing.assert_close(model(None, Given(values={"z": torch.ones(1, 1, 2)})).px.logits[0], expected)


class Sides(nn.Module):
    """A whole prior, posterior or likelihood of one's own: anything whose forward returns a distribution."""

    def __init__(self, make):
        super().__init__()
        self.make, self.scale = make, nn.Parameter(torch.tensor(0.5))

    def forward(self, *context):
        return self.make(self.scale, *context)


def test_a_users_conditionals_from_torch_distributions():
    """Neither needs anything of ours: torch's distributions, with their event dimensions declared."""
    independent = torch.distributions.Independent
    model = VAE(
        Sides(lambda s, c: independent(torch.distributions.Laplace(torch.zeros(2), s.exp()), 1)),
        Sides(lambda s, x, c: independent(torch.distributions.Normal(x[:, :2], s), 1)),
        Sides(lambda s, z, c: independent(torch.distributions.Normal(s * z.repeat(1, 1, 2), 1.0), 1)),
    )
    x = torch.randn(6, 4, generator=generator())
    elbo = ELBO()(model(x, Pathwise(4000, generator())), x)
    # the evidence of a Normal posterior and a Laplace prior by hand: E log p - E log q, term by term
    m, s, b = x[:, :2], 0.5, math.exp(0.5)
    folded = s * math.sqrt(2 / math.pi) * torch.exp(-((m / s) ** 2) / 2) + m * torch.erf(m / (s * math.sqrt(2)))
    log_p = (-folded / b - math.log(2 * b)).sum(1)
    entropy = 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(s))
    squares = ((x - 0.5 * m.repeat(1, 2)) ** 2 + 0.25 * s**2).sum(1)
    log_px = -0.5 * squares - 2 * math.log(2 * math.pi)
    assert float((elbo.value - (log_p + entropy + log_px)).abs().max()) < 0.15
    elbo.losses["all"].backward()
    assert all(bool(p.grad.abs() > 0) for p in model.parameters())


def test_the_condition_reaches_prior_posterior_and_likelihood():
    prior = ConditionalNormalPriorModule(3, 2, 4)
    nn.init.normal_(prior.net[-1].weight)
    model, x, c = vae(3, prior), images(), torch.eye(3)[torch.arange(6) % 3]
    z = model(x, Pathwise(4, generator()), c).latents[0]
    other = model(x, Pathwise(4, generator()), c.roll(1, 0)).latents[0]
    assert not torch.allclose(z.p.mean, other.p.mean)
    assert not torch.allclose(z.q.mean, other.q.mean)
    same = Given(values={"z": z.value})
    assert not torch.allclose(model(x, same, c).px.logits, model(x, same, c.roll(1, 0)).px.logits)
    assert model(None, Ancestral(), c).px.batch_shape == (1, 6)


def test_conditions_belong_to_their_examples():
    """With K samples of B examples, each example's terms are those it has alone."""
    prior = ConditionalNormalPriorModule(3, 2, 4)
    nn.init.normal_(prior.net[-1].weight)
    model, x, c = vae(3, prior), images(), torch.eye(3)[torch.arange(6) % 3]
    z = torch.randn(4, 6, 2, generator=generator())
    together = model(x, Given(values={"z": z}), c).log_weight(x)
    for i in range(6):
        alone = model(x[i : i + 1], Given(values={"z": z[:, i : i + 1]}), c[i : i + 1]).log_weight(x[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_items_do_not_depend_on_their_batch():
    """B12: encoding and decoding a batch, one by one, and shuffled."""
    model, x = vae().eval(), images(20)
    order = torch.randperm(20, generator=generator())
    codes = model(x, Mode()).latents[0].value[0]
    alone = torch.cat([model(x[i : i + 1], Mode()).latents[0].value[0] for i in range(20)])
    torch.testing.assert_close(codes, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(codes[order], model(x[order], Mode()).latents[0].value[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(x, images(20))


@pytest.mark.parametrize(
    "model", [vae(), vae(prior=MixturePriorModule(3, 2, 1.0)), vae(3, ConditionalNormalPriorModule(3, 2, 4))]
)
def test_groups_share_nothing_and_miss_nothing(model):
    groups = model.groups()
    assert set(groups) == {"generative", "inference"}
    listed = [id(p) for params in groups.values() for p in params]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in groups["inference"]} == {id(p) for p in model.posterior.parameters()}


@pytest.mark.parametrize("x", [images().bool(), images().to(torch.uint8), images().double(), images().to(torch.int64)])
def test_any_number_type_of_data_gives_the_same_bound(x):
    model = vae()
    torch.testing.assert_close(
        ELBO()(model(x, Pathwise(2, generator())), x).value,
        ELBO()(model(images(), Pathwise(2, generator())), images()).value,
    )


def test_a_model_in_float64_computes_in_float64():
    model, x = vae().double(), images()
    estimate = IWAE()(model(x, Pathwise(2, generator())), x)
    assert estimate.value.dtype == torch.float64


def test_penalties_see_the_latent():
    model, x = vae(penalties={"l1": L1Penalty(2.0)}), images()
    trace = model(x, Pathwise(3, generator()))
    torch.testing.assert_close(trace.penalties["l1"], 2 * trace.latents[0].value.abs().sum(-1))


@pytest.mark.parametrize("corruption", [GaussianCorruption(0.5), MaskingCorruption(0.5)])
def test_corruption_is_for_training_alone(corruption):
    model, x = vae(corruption=corruption), images()
    assert not torch.equal(model.train()(x, Mode()).latents[0].value, model(x, Mode()).latents[0].value)
    clean = model.posterior.posterior(x).mean
    assert torch.equal(model.eval()(x, Mode()).latents[0].value[0], clean)
    assert model.training is False


def test_how_much_corruption_corrupts():
    torch.manual_seed(0)
    x = torch.ones(100_000)
    moved = GaussianCorruption(0.5).apply(x)
    assert abs(moved.std().item() - 0.5) < 0.01
    assert abs(moved.mean().item() - 1) < 0.01
    masked = MaskingCorruption(0.25).apply(x)
    assert abs((masked == 0).float().mean().item() - 0.25) < 0.01
    assert bool(((masked == 0) | (masked == 1)).all())


def mixture(states=3, family=None):
    torch.manual_seed(0)
    shapes = Shapes((2,), states)
    family = family or NormalLikelihood(sigma=0.5)
    likelihood = LikelihoodModule(family, LinearDecoder().build(states, family.out_shape(shapes)), shapes)
    prior = CategoricalPriorModule(states)
    nn.init.normal_(prior.logits)
    nn.init.normal_(likelihood.decoder.output.weight)
    return Mixture(prior, likelihood)


def test_a_mixtures_posterior_is_bayes_rule():
    model, x = mixture(), torch.randn(5, 2, generator=generator())
    trace = model(x, Enumerate())
    centres = model.likelihood.decoder(torch.eye(3)).squeeze(1)
    density = torch.distributions.Independent(torch.distributions.Normal(centres, 0.5), 1)
    joint = model.prior.logits.log_softmax(0) + density.log_prob(x.unsqueeze(1))
    torch.testing.assert_close(trace.latents[0].q.log_probs, joint.log_softmax(1))
    torch.testing.assert_close(model.log_prob(x), joint.logsumexp(1))
    best = model(x, Mode()).latents[0].value[0]
    assert torch.equal(best.argmax(1), joint.argmax(1))


def test_a_mixture_generates_by_its_weights():
    model = mixture()
    trace = model(None, Ancestral(batch=20_000, generator=generator()))
    shares = trace.latents[0].value[0].mean(0)
    weights = model.prior.logits.detach().softmax(0)
    assert float(((shares - weights) / (weights * (1 - weights) / 20_000).sqrt()).abs().max()) < 5
    assert trace.px.batch_shape == (1, 20_000)
    chosen = model(None, Given(values={"z": torch.eye(3).unsqueeze(1)})).px.mean[:, 0]
    torch.testing.assert_close(chosen, model.likelihood.decoder(torch.eye(3)).squeeze(1))


class ConditionalWeights(nn.Module):
    """p(z|c): a prior with a batch of its own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, condition):
        from lambent.distributions import OneHotCategorical

        return OneHotCategorical(self.net(condition))


def test_a_mixture_whose_weights_depend_on_a_condition():
    torch.manual_seed(0)
    model = mixture()
    model.prior = ConditionalWeights()
    x, c = torch.randn(5, 2, generator=generator()), torch.randn(5, 2, generator=generator(1))
    model.likelihood.decoder.condition = 0
    original = model.likelihood.forward
    model.likelihood.forward = lambda z, condition=None: original(z)
    trace = model(x, Enumerate(), c)
    centres = model.likelihood.decoder(torch.eye(3)).squeeze(1)
    density = torch.distributions.Independent(torch.distributions.Normal(centres, 0.5), 1).log_prob(x.unsqueeze(1))
    expected = (model.prior.net(c).log_softmax(1) + density).logsumexp(1)
    torch.testing.assert_close(IWAE()(trace, x).value, expected)
    torch.testing.assert_close(ELBO()(trace, x).value, expected)
    torch.testing.assert_close(model.log_prob(x, c), expected)


def test_linear_models_know_their_evidence():
    from lambent.evaluation.exact import exact_log_prob

    torch.manual_seed(0)
    shapes = Shapes((2, 3), 2)
    for family in (NormalLikelihood(sigma=0.7), NormalLikelihood("model", 0.7), NormalLikelihood("dimension", 0.7)):
        likelihood = LikelihoodModule(family, LinearDecoder().build(2, family.out_shape(shapes)), shapes)
        if likelihood.own is not None:
            nn.init.normal_(likelihood.own)
        model = VAE(NormalPriorModule(2), nn.Identity(), likelihood)
        x = torch.randn(5, 2, 3, generator=generator())
        px = likelihood(torch.zeros(1, 1, 2))
        weight = likelihood.decoder.output.weight.double()
        covariance = weight @ weight.T + torch.diag(px.variance.double().flatten())
        truth = torch.distributions.MultivariateNormal(px.mean.double().flatten(), covariance).log_prob(
            x.double().flatten(1)
        )
        torch.testing.assert_close(exact_log_prob(model)(x, None), truth, rtol=1e-6, atol=1e-6)
    assert exact_log_prob(vae()) is None
    other = VAE(MixturePriorModule(2, 2, 1.0), nn.Identity(), likelihood)
    assert exact_log_prob(other) is None
    curved = LikelihoodModule(NormalLikelihood(), MLPDecoder((3,)).build(2, (1, 2, 3)), shapes)
    assert exact_log_prob(VAE(NormalPriorModule(2), nn.Identity(), curved)) is None


@pytest.mark.parametrize("seed", [0, 2])
def test_a_chain_starts_without_a_level_that_costs_thousands_of_nats(seed, monkeypatch):
    def bound_after_a_few_steps():
        run = lambent.fit("vae", model="chain", latent=5, upper_latents=[3], lr=3e-3, seed=seed, epochs=1, quiet=True)
        return run.history[-1]["valid"]["bound"]

    assert bound_after_a_few_steps() > -50
    monkeypatch.setattr(chain, "_flattened", lambda level: level)
    assert bound_after_a_few_steps() < -60
