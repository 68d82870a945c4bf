"""Coins so many that their logarithms are taken of products: the same number as one by one, and its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions import Bernoulli, discrete
from lambent.distributions.discrete import FACTORS, FEW


def numbers(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coins(seed: int, *shape: int) -> Tensor:
    return (numbers(seed, *shape) > 0).double()


def one_by_one(logits: Tensor, value: Tensor, dims: int) -> Tensor:
    """From probabilities in log space, in float64."""
    logits, value = torch.broadcast_tensors(logits.double(), value.double())
    terms = torch.where(value > 0.5, F.logsigmoid(logits), F.logsigmoid(-logits))
    return terms.flatten(-dims).sum(-1) if dims else terms


def check(logits: Tensor, value: Tensor, dims: int, tolerance: float) -> None:
    found = Bernoulli(logits, dims).log_prob(value)
    truth = one_by_one(logits, value, dims)
    assert found.shape == truth.shape
    assert found.dtype == logits.dtype
    assert ((found.double() - truth).abs() / (1 + truth.abs())).max() <= tolerance


@pytest.fixture
def all_many(monkeypatch):
    """Few coins go the way of many."""
    monkeypatch.setattr(discrete, "FEW", 0)


SHAPES = [(1, FACTORS), (3, 5), (2, 2 * FACTORS), (2, FACTORS + 1), (4, 3 * FACTORS - 1), (3, 1)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 5e-7)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_events_of_any_size(all_many, shape, dtype: torch.dtype, tolerance: float):
    check(numbers(0, *shape).to(dtype), coins(1, *shape), 1, tolerance)


def test_the_number_does_not_hang_on_how_many_there_are():
    logits, value = numbers(0, 5, FEW // 4).float(), coins(1, 5, FEW // 4)
    whole = Bernoulli(logits).log_prob(value)
    parts = torch.cat([Bernoulli(part).log_prob(x) for part, x in zip(logits.split(1), value.split(1), strict=True)])
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("logits", "value", "dims"),
    [
        ((3, 4, 2, 7), (4, 2, 7), 2),
        ((4, 7), (5, 4, 7), 1),
        ((7,), (2, 3, 7), 1),
        ((1, 4, 7), (3, 4, 7), 1),
        ((4,), (3, 4), 0),
    ],
    ids=str,
)
def test_values_and_logits_broadcast(all_many, logits, value, dims: int):
    check(numbers(0, *logits), coins(1, *value), dims, 1e-14)
    live = [numbers(0, *logits).requires_grad_(), torch.sigmoid(numbers(2, *value)).requires_grad_()]

    def score(a: Tensor, b: Tensor) -> Tensor:
        return Bernoulli(a, dims).log_prob(b)

    assert torch.autograd.gradcheck(score, live)
    assert torch.autograd.gradgradcheck(score, live)


def test_the_gradient_at_once_is_the_one_to_be_derived_again(all_many):
    logits, value = numbers(0, 4, 300).requires_grad_(), coins(1, 4, 300)
    weights = numbers(2, 4)
    total = (weights * Bernoulli(logits).log_prob(value)).sum()
    (again,) = torch.autograd.grad(total, logits, create_graph=True)
    (once,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(once, again.detach(), rtol=1e-12, atol=1e-14)
    truth = weights.unsqueeze(-1) * (value - torch.sigmoid(logits.detach()))
    torch.testing.assert_close(once, truth, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [0.0, 1e-3, 20.0, 1e4, 1e30])
def test_logits_of_any_size(all_many, size: float):
    """784 confident and right coins cost nothing, as many wrong ones 784 logits; equal chances 784 log 2.

    Within what the docstring grants: a factor's and a product's rounding, 2^-24 each, an element.
    """
    right = coins(1, 3, 784).float()
    logits = size * (2 * right - 1)
    check(logits, right, 1, 784 * 2**-23)
    check(-logits, right, 1, 784 * 2**-23)


@pytest.mark.parametrize("fault", ["groups too long", "a group left out", "the remainder left out"])
def test_planted_faults_are_caught(all_many, monkeypatch, fault: str):
    right = discrete._log_product

    def faulty(factors: Tensor, dims: int) -> Tensor:
        flat = factors.flatten(-dims)
        if fault == "groups too long":  # the product is below what a float32 can hold
            return flat.prod(-1).log()
        if fault == "a group left out":
            return right(flat[..., FACTORS:], 1)
        return right(flat[..., : flat.shape[-1] - flat.shape[-1] % FACTORS], 1)

    monkeypatch.setattr(discrete, "_log_product", faulty)
    with pytest.raises(AssertionError):
        check(numbers(0, 2, 10 * FACTORS + 9, scale=0.1).float(), coins(1, 2, 10 * FACTORS + 9), 1, 5e-7)
