"""The autoregressive flow prior: its density, its draws, its order, and what importing its library does."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special as sp
import torch
from torch import nn

from lambent.distributions import Flow
from lambent.errors import ConfigError
from lambent.networks.flows import AutoregressiveTransforms
from lambent.priors import AutoregressiveFlowPrior
from lambent.shapes import Shapes
from support.distribution_checks import check_counts, check_integrates_to_one, check_uniform
from support.random_numbers import generator

KINDS = ("affine", "spline")


def built(kind, latent=2, seed=0, transforms=2):
    """Moved well away from N(0, I)."""
    torch.manual_seed(seed)
    settings = AutoregressiveFlowPrior(kind=kind, transforms=transforms, hidden=(8,))
    module = settings.build(Shapes((4,), latent)).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def plane(low=-8.0, high=8.0, n=300):
    axis = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1), (high - low) / n


def check_density(flow):
    """The integral over the plane, to what the kinks of the networks leave of the midpoint rule's digits."""
    points, width = plane()
    with torch.no_grad():
        check_integrates_to_one(lambda z: flow.log_prob(z), points.reshape(-1, 1, 2), width**2, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_integrates_to_one(kind):
    check_density(built(kind)())


class _NoLogDet(AutoregressiveTransforms):
    def forward(self, z):
        u, log_det = super().forward(z)
        return u, torch.zeros_like(log_det)


class _Inverted(AutoregressiveTransforms):
    def forward(self, z):
        u, log_det = super().forward(z)
        return u, -log_det


@pytest.mark.parametrize("fault", [_NoLogDet, _Inverted])
def test_a_wrong_volume_is_caught(fault):
    net = fault(2, 2, (8,)).double()
    net.load_state_dict(built("affine").net.state_dict())
    with pytest.raises(AssertionError, match="integrates to"):
        check_density(Flow(net, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent", [1, 2, 5])
def test_the_volume_is_the_jacobians(kind, latent):
    flow = built(kind, latent)()
    for z in 2 * torch.randn(5, latent, generator=generator(0), dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.net(v)[0], z)
        truth = torch.linalg.slogdet(jacobian).logabsdet - 0.5 * (flow.net(z)[0].square() + np.log(2 * np.pi)).sum()
        torch.testing.assert_close(flow.log_prob(z), truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_map_looks_at_elements_before_only(kind):
    flow = built(kind, 5, transforms=1)()
    z = torch.randn(5, generator=generator(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.net(v)[0], z)
    assert bool((jacobian.triu(1) == 0).all())
    assert bool((jacobian.tril(-1) != 0).any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent", [1, 4])
def test_draws_are_noise_that_the_map_undoes(kind, latent):
    flow = built(kind, latent)()
    z = flow.sample((5000,), generator(2))
    u = flow.net(z)[0].detach().numpy()
    check_uniform(sp.ndtr(u).ravel())
    np.testing.assert_allclose(u, torch.randn(5000, latent, generator=generator(2), dtype=torch.float64), atol=1e-7)


def check_cells(flow, sampler):
    """Draws fall into cells of the plane as often as the density's integrals over them say."""
    points, width = plane(-6, 6, 300)
    with torch.no_grad():
        mass = flow.log_prob(points).exp().numpy() * width**2
    mass = mass.reshape(20, 15, 20, 15).sum((1, 3)).ravel()
    z = sampler.sample((20_000,), generator(3)).numpy()
    inside = (np.abs(z) < 6).all(1)
    cell = ((z[inside] + 6) / 0.6).astype(int)
    counts = np.bincount(cell[:, 0] * 20 + cell[:, 1], minlength=400)
    check_counts(np.append(counts, (~inside).sum()), np.append(mass, 1 - mass.sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_density(kind):
    flow = built(kind)()
    check_cells(flow, flow)


def test_draws_of_another_flow_are_caught():
    flow = built("affine")()
    with pytest.raises(AssertionError, match="p ="):
        check_cells(flow, flow.map_parameters(lambda t: 1.2 * t))


def test_the_mean_is_that_of_its_draws_and_there_is_no_mode():
    flow = built("affine")()
    draws = flow.sample((20_000,), generator(5))
    error = draws.std(0) * (1 / 20_000 + 1 / 10_000) ** 0.5
    assert ((flow.mean - draws.mean(0)) / error).abs().max() < 5
    with pytest.raises(ConfigError, match="mode of a flow has no closed form; draw from it"):
        flow.mode  # noqa: B018


def test_held_fixed_it_still_moves_its_value():
    module = built("affine")
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    module().detach().log_prob(z).sum().backward()
    assert bool((z.grad != 0).all())
    assert all(p.grad is None for p in module.parameters())


CODE = """
import sys
import torch
base = torch.distributions.Distribution
before = base._validate_args, base.__dict__["arg_constraints"]
import lambent
assert "zuko" not in sys.modules, "imported with the library"
from lambent.priors import AutoregressiveFlowPrior
from lambent.shapes import Shapes
flow = AutoregressiveFlowPrior().build(Shapes((4,), 3))()
assert "zuko" in sys.modules
flow.log_prob(flow.sample((2,)))
assert (base._validate_args, base.__dict__["arg_constraints"]) == before and before[0]
try:
    torch.distributions.Normal(0.0, -1.0)
except ValueError:
    print("validated")
"""


def test_importing_its_library_leaves_torchs_validation_on():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "validated\n", done.stderr
