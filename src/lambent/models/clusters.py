"""Where a mixture starts: distinct clusters of the data, since equal components never part."""

from __future__ import annotations

import torch
from torch import Tensor


def clusters(x: Tensor, count: int, rounds: int = 10) -> Tensor:
    """Cluster of each example, (N,), by k-means from k-means++ seeds (Arthur & Vassilvitskii 2007).

    Draws from torch's own random state. Every cluster has a member as long as there are ``count`` distinct examples.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> found = clusters(x, 2)
    >>> bool(found[0] == found[1]), bool(found[1] == found[2])
    (True, False)
    """
    flat = x.flatten(1).double()
    centres = _seeds(flat, count)
    for _ in range(rounds):
        assigned = torch.cdist(flat, centres).argmin(1)
        for c in assigned.unique().tolist():
            centres[c] = flat[assigned == c].mean(0)
    return torch.cdist(flat, centres).argmin(1)


def _seeds(flat: Tensor, count: int) -> Tensor:
    """Examples drawn in proportion to their squared distance from those drawn before."""
    chosen = [int(torch.randint(len(flat), ()))]
    for _ in range(count - 1):
        distance = torch.cdist(flat, flat[chosen]).min(1).values.square()
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weights, 1)))
    return flat[chosen].clone()
