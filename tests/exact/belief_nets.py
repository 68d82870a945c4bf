"""C7: small sigmoid belief nets with random weights, as lambent's parts, and summed by brute force without them."""

import itertools

import numpy as np
import torch
from torch import nn

from lambent.distributions import Bernoulli
from lambent.models import VAE, MarkovChain

DOUBLE = torch.float64
LATENTS, PIXELS, EXAMPLES = 10, 8, 2


def _numbers(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class Coins(nn.Module):
    """Bernoulli(b + W input), of any input or of none."""

    def __init__(self, seed, inputs, outputs, scale=1.0):
        super().__init__()
        self.bias = nn.Parameter(scale * _numbers(seed, outputs))
        self.weight = nn.Parameter(scale * _numbers(seed + 1, outputs, inputs) / max(inputs, 1) ** 0.5)

    def forward(self, given=None, condition=None):
        return Bernoulli(self.bias if given is None else self.bias + (given.to(DOUBLE) - 0.5) @ self.weight.T)

    def given(self, z, condition=None):
        return self(z)


def belief_net(seed):
    """z of 10 coins, x of 8."""
    model = VAE(Coins(seed, 0, LATENTS), Coins(seed + 2, PIXELS, LATENTS), Coins(seed + 4, LATENTS, PIXELS, scale=1.5))
    model.state_count = 2**LATENTS
    return model


def two_layers(seed, lower=4, upper=3):
    """z2 of 3 coins, z1 of 4, x of 8."""
    model = MarkovChain(
        Coins(seed, 0, upper),
        [Coins(seed + 2, PIXELS, lower), Coins(seed + 4, lower, upper)],
        [Coins(seed + 6, upper, lower)],
        Coins(seed + 8, lower, PIXELS, scale=1.5),
        (2**lower, 2**upper),
    )
    model.state_count = 2 ** (lower + upper)
    return model


def pixels(seed):
    return (_numbers(seed + 100, EXAMPLES, PIXELS) > 0).to(DOUBLE)


def _log_coin(logits, value):
    """Log of sigmoid(l)^v sigmoid(-l)^(1-v), in extended precision, summed over the last axis."""
    return -np.logaddexp(0.0, (1 - 2 * value) * logits).sum(-1)


def brute_force(parts, x, sizes):
    """(log q, log p(x, z)) of every joint state, (states, B), numpy in long double; z1 first in ``sizes``.

    ``parts`` are (prior, posteriors, conditionals, likelihood) as (bias, weight) pairs.
    """
    prior, posteriors, conditionals, likelihood = parts
    x = x.numpy().astype(np.longdouble)
    log_q, log_joint = [], []
    for bits in itertools.product((0, 1), repeat=sum(sizes)):
        ends = np.cumsum((0, *sizes))
        levels = [np.array(bits[a:b], dtype=np.longdouble) for a, b in itertools.pairwise(ends)]
        below = [x, *(np.broadcast_to(z, (len(x), len(z))) for z in levels[:-1])]
        log_q.append(sum(_log_coin(_logits(q, seen), z) for q, seen, z in zip(posteriors, below, levels, strict=True)))
        joint = _log_coin(_logits(prior), levels[-1]) + _log_coin(_logits(likelihood, levels[0]), x)
        for part, above, z in zip(conditionals, levels[1:], levels[:-1], strict=True):
            joint = joint + _log_coin(_logits(part, above), z)
        log_joint.append(joint)
    return np.stack(log_q), np.stack(log_joint)


def _logits(part, given=None):
    bias, weight = part
    return bias if given is None else bias + (given - 0.5) @ weight.T


def tables(model, x):
    """`brute_force` at the numbers of a lambent model."""

    def numbers(part):
        return tuple(t.detach().numpy().astype(np.longdouble) for t in (part.bias, part.weight))

    if isinstance(model, VAE):
        parts = (model.prior, [model.posterior], [], model.likelihood)
        sizes = (len(model.prior.bias),)
    else:
        parts = (model.prior, model.posteriors, model.conditionals, model.likelihood)
        sizes = tuple(len(q.bias) for q in model.posteriors)
    prior, posteriors, conditionals, likelihood = parts
    given = (numbers(prior), [*map(numbers, posteriors)], [*map(numbers, conditionals)], numbers(likelihood))
    return brute_force(given, x, sizes)
