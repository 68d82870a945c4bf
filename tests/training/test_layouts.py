"""The optimiser moves each weight by its own gradient, whatever memory layout that gradient came in."""

import pytest
import torch
from torch import nn

from lambent import fit
from lambent.training import loop
from lambent.training.gradients import set_gradients

CONV = {
    "encoder": "conv",
    "decoder": "conv",
    "channels": [8, 8],
    "latent": 4,
    "batch_size": 50,
    "threads": 1,
    "monitor_examples": 0,
}


def fit_looking_at_layouts(monkeypatch):
    """Trains a convolutional model for 2 steps, whose optimiser looks at what it is given."""
    step, seen = torch.optim.AdamW.step, []

    def looking(self, *given):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            seen.append(p.grad.stride() == p.stride())
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", looking)
    fit("vae", "digits", steps=2, quiet=True, **CONV)
    assert all(seen), "a gradient came in another layout than its parameter's"


def stepped(fused):
    """A convolution of channels_last input after one step of Adam from gradients that `set_gradients` laid out."""
    torch.manual_seed(0)
    net = nn.Conv2d(6, 8, 3, padding=1)
    x = torch.randn(4, 6, 5, 5).to(memory_format=torch.channels_last)
    grads = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
    assert grads[0].stride() != net.weight.stride(), "this torch gives plain gradients: the test sees nothing"
    set_gradients(net.parameters(), grads)
    torch.optim.AdamW(net.parameters(), lr=0.1, fused=fused).step()
    return net.weight.detach()


def test_the_fused_step_is_the_plain_one():
    torch.testing.assert_close(stepped(fused=True), stepped(fused=False), rtol=0, atol=1e-6)


def test_expanded_gradients_get_memory_of_their_own():
    parameter = nn.Parameter(torch.zeros(3, 2))
    set_gradients([parameter], [torch.ones(()).expand(3, 2)])
    assert parameter.grad.stride() == parameter.stride()
    assert torch.equal(parameter.grad, torch.ones(3, 2))


def _as_they_come(parameters, grads):
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad


def test_a_training_hands_them_over_so(monkeypatch):
    fit_looking_at_layouts(monkeypatch)


def test_gradients_as_they_come_are_caught(monkeypatch):
    """The planted fault: it leaves conv models at a fraction of what they learn otherwise."""
    monkeypatch.setattr(loop, "set_gradients", _as_they_come)
    monkeypatch.setitem(globals(), "set_gradients", _as_they_come)
    with pytest.raises(AssertionError, match="another layout"):
        fit_looking_at_layouts(monkeypatch)
    with pytest.raises(AssertionError):
        test_the_fused_step_is_the_plain_one()
