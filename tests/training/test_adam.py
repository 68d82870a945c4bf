"""Our way round torch's Adam takes the same steps to the last bit, whoever has a gradient, and from any state."""

import copy

import pytest
import torch
from torch import nn

from lambent.training import adam
from lambent.training.adam import take_step
from lambent.training.optimizer_state import optimizer_tensors, restore_optimizer


def optimizer_of(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.03, fused=True)


def gradients(net: nn.Module, step: int, *, some: bool) -> None:
    """Seeded gradients; with ``some``, whether a parameter has one depends on the step."""
    generator = torch.Generator().manual_seed(step)
    for i, parameter in enumerate(net.parameters()):
        has = not some or (step + i) % 3 != 0
        parameter.grad = torch.randn(parameter.shape, generator=generator) if has else None


def run(take, steps: int, some, restarted: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 2), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last))
    optimizer = optimizer_of(net)
    for step in range(steps):
        gradients(net, step, some=some(step))
        optimizer.param_groups[0]["lr"] = 3e-3 / (1 + step)
        take(optimizer)
        if step == restarted:
            stored = {k: v.clone() for k, v in optimizer_tensors(optimizer, net.named_parameters()).items()}
            net = copy.deepcopy(net)
            optimizer = optimizer_of(net)
            restore_optimizer(optimizer, net.named_parameters(), stored)
    return {**dict(net.named_parameters()), **optimizer_tensors(optimizer, net.named_parameters())}


def check(take, some=lambda step: False, restarted: int | None = None) -> None:
    """Weights, moments and counts after 12 steps are torch's own."""
    truth, found = run(torch.optim.AdamW.step, 12, some), run(take, 12, some, restarted)
    assert truth.keys() == found.keys()
    for name, tensor in truth.items():
        assert torch.equal(tensor, found[name]), name


PATTERNS = {
    "all have gradients": lambda step: False,
    "some have": lambda step: True,
    "first all, then some": lambda step: step >= 5,
    "first some, then all": lambda step: step < 5,
    "in turn": lambda step: step % 2 == 0,
}


@pytest.mark.parametrize("some", PATTERNS.values(), ids=PATTERNS)
def test_steps_are_those_of_torch(some):
    check(take_step, some)


@pytest.mark.parametrize("restarted", [0, 4, 11])
def test_a_restored_state_goes_on_alike(restarted: int):
    check(take_step, restarted=restarted)
    check(take_step, PATTERNS["in turn"], restarted)


def test_one_count_serves_those_that_step_together():
    net = nn.Linear(3, 2)
    optimizer = optimizer_of(net)
    for step in range(3):
        gradients(net, step, some=False)
        take_step(optimizer)
    first, second = (optimizer.state[p]["step"] for p in net.parameters())
    assert first is second
    assert first.item() == 3


def test_without_gradients_nothing_moves():
    net = nn.Linear(3, 2)
    before = copy.deepcopy(net.state_dict())
    take_step(optimizer_of(net))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def shared_by_all(states, *, everyone: bool):
    for state in states:
        state["step"] = states[0]["step"]
    return [states[0]["step"]]


def one_for_each(states, *, everyone: bool):
    return [state["step"] for state in states]


@pytest.mark.parametrize("fault", [shared_by_all, one_for_each])
def test_counts_kept_wrongly_are_caught(monkeypatch, fault):
    """A count shared with a parameter that rests; a shared count that moves once for each of its parameters."""
    right = adam._counts
    patched = (
        fault
        if fault is shared_by_all
        else lambda s, *, everyone: (right(s, everyone=everyone), fault(s, everyone=everyone))[1]
    )
    monkeypatch.setattr(adam, "_counts", patched)
    with pytest.raises(AssertionError):
        check(take_step, PATTERNS["in turn"])
