"""Bernoulli and categorical distributions, parameterised by logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import event_sum, full_precision, joint_shape, split_shape
from lambent.errors import ConfigError

_MAX_ENUMERATED_BITS = 20
FEW = 2**17
"""Number of logits up to which torch's own operation is the fastest; beyond it, logarithms take most of the time."""

FACTORS = 112
"""How many numbers between 1/2 and 1 are multiplied before a logarithm is taken: 2^-112 is a float32."""


class Bernoulli(Distribution):
    """Independent Bernoulli variables: log p(x) = sum_d x_d l_d - log(1 + exp l_d), in nats, for logits of any size.

    Args:
        logits: l, (*batch, *event).
        event_dims: Number of trailing dimensions that form the event.

    >>> Bernoulli(torch.tensor([20.0])).log_prob(torch.tensor([0.0]))
    tensor(-20.)
    """

    has_enumerate_support = True

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits, self.event_dims = full_precision(logits), event_dims
        super().__init__(*split_shape(self.logits.shape, event_dims, "Bernoulli"))

    @property
    def mean(self) -> Tensor:
        """The probabilities sigmoid(l), (*batch, *event)."""
        return self.logits.sigmoid()

    @property
    def mode(self) -> Tensor:
        """The most probable value of each variable: 1 where l > 0, else 0."""
        return (self.logits > 0).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance sigmoid(l) sigmoid(-l)."""
        return self.logits.sigmoid() * self.logits.neg().sigmoid()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value`` in nats; relaxed values in 0..1 are accepted too."""
        value = value.to(self.logits.dtype)
        if self.logits.numel() > FEW:
            return _BernoulliLogProb.apply(self.logits, value, self.event_dims)
        logits = self.logits
        if value.shape != logits.shape:
            logits, value = torch.broadcast_tensors(logits, value)
        return -event_sum(F.binary_cross_entropy_with_logits(logits, value, reduction="none"), self.event_shape)

    def entropy(self) -> Tensor:
        """Entropy in nats, of the batch shape."""
        log_p = F.logsigmoid(self.logits)
        return event_sum(
            self.mean.neg() * log_p - self.logits.neg().sigmoid() * (log_p - self.logits), self.event_shape
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 - torch's signature
        """All 2^D values, (2^D, *batch, *event).

        Raises:
            ConfigError: there are more than 20 variables.
        """
        variables = self.event_shape.numel()
        if variables > _MAX_ENUMERATED_BITS:
            raise ConfigError(f"2^{variables} states of binary variables are too many to enumerate; at most 2^20")
        bits = torch.arange(variables, device=self.logits.device)
        values = (torch.arange(2**variables, device=self.logits.device).unsqueeze(-1) >> bits) & 1
        values = values.to(self.logits.dtype).reshape(-1, *([1] * len(self.batch_shape)), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return torch.bernoulli(self.mean.expand(shape), generator=generator)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Bernoulli:
        """The same family at ``fn`` of the logits."""
        return Bernoulli(fn(self.logits), self.event_dims)


class _BernoulliLogProb(torch.autograd.Function):
    """sum_d x_d l_d - log(1 + exp l_d) over the event, as x l - max(l, 0) + log prod sigmoid |l|.

    Written by hand because its derivative, x - sigmoid(l), is one pass where autograd's is three; the logarithm of a
    product, because a multiplication costs a tenth of a logarithm, and rounds by 1.2e-7 nats an element at most in
    float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, dims: int) -> Tensor:
        ctx.save_for_backward(logits, value)
        ctx.dims, ctx.whole = dims, joint_shape(logits, value) == logits.shape
        short = logits.relu() if ctx.whole else logits.relu().expand(joint_shape(logits, value)).clone()
        short.addcmul_(value, logits, value=-1)
        return _log_product(logits.abs().sigmoid_(), dims) - (short.flatten(-dims).sum(-1) if dims else short)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        logits, value = ctx.saved_tensors
        needs_logits, needs_value, _ = ctx.needs_input_grad
        grad = grads[0].view(*grads[0].shape, *[1] * ctx.dims)
        if torch.is_grad_enabled() or not ctx.whole:
            to_logits = (grad * (value - logits.sigmoid())).sum_to_size(logits.shape) if needs_logits else None
        else:  # in place in the sigmoid's memory: no second derivative is asked for
            to_logits = logits.sigmoid().sub_(value).mul_(-grad) if needs_logits else None
        return to_logits, (grad * logits).sum_to_size(value.shape) if needs_value else None, None


def _log_product(factors: Tensor, dims: int) -> Tensor:
    """Log of the product of numbers in 1/2..1 over the last ``dims`` dimensions."""
    if not dims:
        return factors.log_()
    flat = factors.flatten(-dims)
    rest = flat.shape[-1] % FACTORS
    whole = flat.shape[-1] - rest
    parts = [flat[..., :whole].unflatten(-1, (-1, FACTORS)).prod(-1).log_().sum(-1)] if whole else []
    parts += [flat[..., whole:].prod(-1).log_()] if rest else []
    return torch.stack(parts).sum(0)


class OneHotCategorical(Distribution):
    """One of C states as a one-hot vector, or several such variables side by side.

    log p(x) = sum_c x_c log softmax(l)_c, nats, the softmax taken over each group of ``classes`` entries.

    Args:
        logits: l, (*batch, D), unnormalised.
        classes: States of a variable, a divisor of D; None makes all of D one variable.

    Raises:
        ConfigError: D is no multiple of ``classes``.

    >>> OneHotCategorical(torch.zeros(4)).log_prob(torch.tensor([0.0, 1.0, 0.0, 0.0]))  # -log 4
    tensor(-1.3863)
    >>> OneHotCategorical(torch.zeros(4), 2).log_prob(torch.tensor([0.0, 1.0, 1.0, 0.0]))  # -2 log 2
    tensor(-1.3863)
    """

    has_enumerate_support = True

    def __init__(self, logits: Tensor, classes: int | None = None) -> None:
        self.logits = full_precision(logits)
        batch, event = split_shape(self.logits.shape, 1, "OneHotCategorical")
        self.classes = event[0] if classes is None else classes
        if event[0] % self.classes:
            raise ConfigError(
                f"OneHotCategorical: {event[0]} logits are no whole number of groups of {classes} classes"
            )
        super().__init__(batch, event)

    def grouped(self, value: Tensor) -> Tensor:
        """``value`` (..., D) with each variable's entries in a dimension of their own, (..., D / classes, classes)."""
        return value.unflatten(-1, (-1, self.classes))

    @cached_property
    def log_probs(self) -> Tensor:
        """Normalised log probabilities, (*batch, D)."""
        return self.grouped(self.logits).log_softmax(-1).flatten(-2)

    @property
    def mean(self) -> Tensor:
        """The probabilities, (*batch, D)."""
        return self.log_probs.exp()

    @property
    def mode(self) -> Tensor:
        """The most probable state, one-hot."""
        return self.one_hot(self.grouped(self.logits).argmax(-1))

    @property
    def variance(self) -> Tensor:
        """The variance p (1 - p) of each entry, (*batch, D)."""
        return self.mean * (1 - self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value`` in nats; relaxed values are accepted too."""
        log_probs, value = self.log_probs, value.to(self.logits.dtype)
        # 0 log 0 = 0 for a state that is impossible and not taken
        safe = torch.where((value == 0) & torch.isneginf(log_probs), torch.zeros_like(log_probs), log_probs)
        return (value * safe).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, of the batch shape."""
        safe = torch.where(torch.isneginf(self.log_probs), torch.zeros_like(self.log_probs), self.log_probs)
        return -(self.mean * safe).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 - torch's signature
        """All values, (S, *batch, D), S = classes to the power of the number of variables.

        Raises:
            ConfigError: S is more than 2^20.
        """
        variables = self.event_shape[0] // self.classes
        if variables * math.log2(self.classes) > _MAX_ENUMERATED_BITS:
            raise ConfigError(f"{self.classes}^{variables} states are too many to enumerate; at most 2^20")
        each = [torch.arange(self.classes, device=self.logits.device)] * variables
        values = self.one_hot(torch.cartesian_prod(*each).view(-1, variables))
        values = values.reshape(len(values), *([1] * len(self.batch_shape)), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        grouped = self.grouped(self.logits)
        return self.one_hot(_categorical(grouped, (*shape[:-1], grouped.shape[-2]), generator))

    def one_hot(self, index: Tensor) -> Tensor:
        """One-hot values (..., D) of the states ``index`` (..., variables)."""
        return F.one_hot(index, self.classes).flatten(-2).to(self.logits.dtype)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> OneHotCategorical:
        """The same family at ``fn`` of the logits."""
        return OneHotCategorical(fn(self.logits), self.classes)


class Categorical(Distribution):
    """Independent integers 0..L-1 without an order: log p(x) = sum_d log softmax(l_d)[x_d], in nats.

    Args:
        logits: l, (*batch, *event, L), unnormalised.
        event_dims: How many dimensions before the last are the event.

    >>> Categorical(torch.zeros(3, 256)).log_prob(torch.zeros(3)) / 3  # -log 256
    tensor(-5.5452)
    """

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits, self.event_dims = full_precision(logits), event_dims
        super().__init__(*split_shape(self.logits.shape[:-1], event_dims, "Categorical"))

    @property
    def mean(self) -> Tensor:
        """The expected value, (*batch, *event)."""
        return (self.logits.softmax(-1) * self._levels).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch, *event)."""
        return (self.logits.softmax(-1) * (self._levels - self.mean.unsqueeze(-1)).square()).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The most probable value of each element."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def _levels(self) -> Tensor:
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integer values (of any dtype), in nats."""
        shape, logits = value.shape, self.logits
        if shape != logits.shape[:-1]:
            shape = torch.broadcast_shapes(shape, logits.shape[:-1])
            value, logits = value.expand(shape), logits.expand(*shape, logits.shape[-1])
        taken = logits.gather(-1, value.long().unsqueeze(-1)).squeeze(-1)
        return event_sum(taken - self.logits.logsumexp(-1), self.event_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return _categorical(self.logits, shape, generator).to(self.logits.dtype)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Categorical:
        """The same family at ``fn`` of the logits."""
        return Categorical(fn(self.logits), self.event_dims)


def _categorical(logits: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Indices of the given shape, drawn by softmax of ``logits`` (..., C)."""
    probabilities = logits.softmax(-1).expand(*shape, logits.shape[-1]).reshape(-1, logits.shape[-1])
    return torch.multinomial(probabilities, 1, generator=generator).reshape(shape)
