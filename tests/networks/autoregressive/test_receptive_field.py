"""A limited receptive field is exact: so many elements back and no further, with and without a map in front."""

import pytest
import torch

from lambent.networks import TransformerDecoder
from lambent.networks.autoregressive import transformer as transformer_module
from support.density_checks import SHAPE, density, masses


def net(receptive, layers, latent=0, event=(12,)):
    torch.manual_seed(layers)
    settings = TransformerDecoder(model_dim=8, heads=2, layers=layers, receptive_field=receptive)
    found = settings.build(latent, (2, *event)).double().eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return found


def reach(found, context=None):
    """(D, D): the largest derivative of an element's numbers by each input."""
    x = torch.randn(1, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: found(v, context, 0), x)
    return jacobian.reshape(2, 12, 12).abs().amax(0)


CASES = [(1, 1), (1, 3), (2, 3), (5, 1), (5, 2), (6, 3)]


@pytest.mark.parametrize(("receptive", "layers"), CASES)
def test_an_element_sees_so_many_before_it_and_no_more(receptive, layers):
    seen = reach(net(receptive, layers))
    for t in range(12):
        for s in range(12):
            assert (seen[t, s] != 0) == (0 < t - s <= receptive), (t, s)


@pytest.mark.parametrize("latent", [0, (3, 2, 2)])
@pytest.mark.parametrize(("receptive", "layers"), CASES)
def test_steps_from_the_cache_see_the_same(receptive, layers, latent):
    found, x = net(receptive, layers, latent), torch.randn(3, 12, dtype=torch.float64)
    context = torch.randn(3, 12, dtype=torch.float64) if latent else None
    whole, steps = found(x, context, 0), []

    def choose(element, numbers):
        steps.append(numbers)
        return x[:, element]

    found.unroll(3, context, 0, choose)
    assert torch.allclose(torch.stack(steps, 2), whole, atol=1e-12, rtol=0)


def test_a_map_in_front_is_seen_by_all():
    found = net(2, 2, (3, 2, 2))
    context, x = torch.randn(1, 12, dtype=torch.float64), torch.randn(1, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda c: found(x, c, 0), context)
    assert bool((jacobian.reshape(2, 12, 12).abs().amax(0) != 0).all())


def test_it_is_still_a_density():
    settings = TransformerDecoder(model_dim=8, heads=2, layers=2, receptive_field=3)
    assert masses(density(settings, shape=SHAPE)).exp().sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_window_off_by_one_is_caught(monkeypatch, more):
    windows = TransformerDecoder.windows

    def off(self):
        return [window + more * (i == 0) for i, window in enumerate(windows(self))]

    monkeypatch.setattr(TransformerDecoder, "windows", off)
    with pytest.raises(AssertionError):
        test_an_element_sees_so_many_before_it_and_no_more(5, 2)


def test_a_cache_that_forgets_the_front_is_caught(monkeypatch):
    def near(self, cache, place):
        return cache[:, :, max(0, place - self.window) : place + 1]

    monkeypatch.setattr(transformer_module.Attention, "_in_sight", near)
    with pytest.raises(AssertionError):
        test_steps_from_the_cache_see_the_same(5, 2, (3, 2, 2))
