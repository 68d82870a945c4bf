"""The networks that do nothing do it exactly, and the posterior behind the one is the same for every x."""

import pytest
import torch

from lambent.errors import ConfigError, ShapeError
from lambent.networks import ConstantEncoder, IdentityDecoder
from lambent.posteriors import NormalPosterior
from lambent.posteriors.base import AmortisedPosteriorModule

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def test_a_posterior_behind_no_features_is_one_distribution_that_learns():
    torch.manual_seed(0)
    posterior = AmortisedPosteriorModule(NormalPosterior(), ConstantEncoder().build((3,)), 2)
    assert sum(p.numel() for p in posterior.parameters()) == 4
    with torch.no_grad():
        posterior.head.bias.copy_(torch.tensor([1.0, -2.0, 0.0, 0.0]))
    q = posterior(torch.randn(5, 3))
    assert torch.equal(q.mean, torch.tensor([1.0, -2.0]).expand(5, 2))
    (slope,) = torch.autograd.grad(q.mean.sum(), posterior.head.bias)
    assert torch.equal(slope, torch.tensor([5.0, 5.0, 0.0, 0.0]))


def test_its_start_does_not_hang_on_chance():
    heads = [AmortisedPosteriorModule(NormalPosterior(), ConstantEncoder().build((3,)), 2).head for _ in range(2)]
    assert all(torch.equal(head.bias, torch.zeros(4)) for head in heads)


def test_the_identity_gives_its_latent_in_the_datas_shape():
    z = torch.randn(4, 6)
    assert torch.equal(IdentityDecoder().build(6, (1, 2, 3))(z), z.view(4, 1, 2, 3))


def test_what_they_refuse():
    with pytest.raises(ConfigError, match=r"decoder=identity: latent=5 for 6 numbers of an example; use latent=6"):
        IdentityDecoder().build(5, (1, 2, 3))
    with pytest.raises(ShapeError, match="condition of a network"):
        ConstantEncoder().build((3,))(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ShapeError, match="condition of a network"):
        IdentityDecoder().build(3, (1, 3), 2)(torch.zeros(2, 3), None)
