"""Priors as their settings build them, against torch's distributions."""

import pytest
import torch
from torch import distributions as td, nn

from lambent.distributions import StandardNormal
from lambent.errors import CombinationError, ConfigError
from lambent.priors import CodePriorSettings, ConditionalNormalPrior, MixturePrior
from lambent.settings import registry
from lambent.shapes import Shapes

SHAPES = Shapes((4,), 3, condition=2)
CONDITION = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, -2.0]])
Z = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def built(name, **settings):
    torch.manual_seed(0)
    return registry.find("prior", name)(**settings).build(SHAPES)


def test_standard_normal():
    prior = built("normal").double()(CONDITION)
    torch.testing.assert_close(prior.log_prob(Z), td.Normal(0.0, 1.0).log_prob(Z).sum(-1))
    assert not list(built("normal").parameters())
    assert not built("normal").state_dict()


def test_mixture_is_the_mixture_of_its_parameters():
    module = built("mixture", components=4).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    prior = module(CONDITION)
    # the scales are those of a bounded parametrisation: read them back from the distribution
    parts = td.Independent(td.Normal(module.loc, prior.log_scale.exp()), 1)
    truth = td.MixtureSameFamily(td.Categorical(logits=module.logits), parts)
    torch.testing.assert_close(prior.log_prob(Z), truth.log_prob(Z))
    assert bool((prior.log_scale.sign() == module.raw_scale.sign()).all())


def test_a_mixture_starts_with_equal_weights_unit_scales_and_the_spread_asked_for():
    torch.manual_seed(0)
    prior = MixturePrior(components=4000, init_scale=3.0).build(SHAPES)()
    assert torch.equal(prior.logits, torch.zeros(4000))
    torch.testing.assert_close(prior.log_scale, torch.zeros(4000, 3), atol=1e-6, rtol=0)
    assert abs(prior.loc.std().item() - 3) < 0.15


def test_conditional_normal_starts_at_the_standard_normal_and_follows_its_condition():
    module = built("conditional-normal").double()
    z, condition = Z[:, :, :], CONDITION.double()
    torch.testing.assert_close(module(condition).log_prob(z), StandardNormal((3,)).log_prob(z))
    nn.init.normal_(module.net[-1].weight)
    prior = module(condition)
    assert prior.batch_shape == (3,)
    for i in range(3):
        alone = module(condition[i : i + 1]).log_prob(z[:, i : i + 1])
        torch.testing.assert_close(prior.log_prob(z)[:, i : i + 1], alone)
    assert not torch.allclose(prior.mean[0], prior.mean[1])


def test_a_conditional_prior_without_a_condition_is_refused():
    with pytest.raises(ConfigError, match=r"prior=conditional-normal needs a condition.*data\.condition=labels"):
        ConditionalNormalPrior().build(Shapes((4,), 3))


def test_categorical_is_a_softmax_of_one_hot_states():
    module = built("categorical").double()
    nn.init.normal_(module.logits)
    states = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(module(CONDITION).log_prob(states), module.logits.log_softmax(0))


def test_flat_has_no_density_and_says_so():
    prior = built("flat")(CONDITION)
    assert prior.normalised is False
    assert torch.equal(prior.log_prob(Z), torch.zeros(5, 3, dtype=torch.float64))
    with pytest.raises(ConfigError, match="prior=flat"):
        prior.sample()


OF_CODES = [n for n in registry.names("prior") if issubclass(registry.find("prior", n), CodePriorSettings)]
PRIORS = [name for name in registry.names("prior") if name not in ("none", *OF_CODES)]


@pytest.mark.parametrize("name", OF_CODES)
def test_a_prior_over_codes_is_of_a_model_of_codes_only(name):
    with pytest.raises(CombinationError, match="use model=quantised"):
        built(name)


@pytest.mark.parametrize("name", PRIORS)
def test_settings_say_truly_whether_it_is_a_density_and_of_what(name):
    settings = registry.find("prior", name)()
    prior = settings.build(SHAPES)(CONDITION)
    assert settings.normalised == prior.normalised
    assert (settings.latent_kind in ("one-hot", "binary")) == bool(prior.has_enumerate_support)
    assert prior.event_shape == (3,)
    assert prior.batch_shape in ((), (3,))


@pytest.mark.parametrize("name", PRIORS)
def test_every_parameter_is_trained(name):
    module = built(name)
    for weight in (p for p in module.parameters() if p.dim() > 1 and not p.any()):  # behind a 0 nothing has a gradient
        nn.init.normal_(weight)
    if not list(module.parameters()):
        return
    values = torch.eye(3)[torch.tensor([0, 2, 0])] if name == "categorical" else Z[0].float()
    values = values.abs().round() if name == "bytes" else values
    module(CONDITION).log_prob(values).sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in module.parameters())
