"""k-means: centres to start a codebook from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lambent.networks.quantisers.nearest import nearest, rows_within

_MOST_SEEDED = 2**14
_BUDGET = 2**22
_TRIALS = 4
"""Times the usual 2 + log S candidates a seed: few well-separated clusters are then left without one."""


def kmeans(z: Tensor, size: int, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Centres (size, d) of ``z`` (M, d), and how many vectors are nearest to each, (size,).

    Seeds by k-means++, of several candidates always the best (Arthur & Vassilvitskii 2007, sections 2.2 and 7), from at
    most 2^14 or 2 x size of the vectors, then Lloyd's iterations until no vector changes sides. A centre that loses all
    its vectors moves to the vector farthest from its own centre. Where there are fewer different vectors than centres,
    the rest are vectors at random with noise of a hundredth of the data's scale. Random numbers come from torch's
    state.

    >>> centres, sizes = kmeans(torch.tensor([[0.0], [0.2], [5.0]]), 2)
    >>> sorted(zip(centres.flatten().tolist(), sizes.tolist()))
    [(0.10000000149011612, 2), (5.0, 1)]
    """
    centres = seeds(z, size)
    assigned = nearest(z, centres)
    for _ in range(iterations):
        centres = _means(z, assigned, centres)
        before, assigned = assigned, nearest(z, centres)
        if torch.equal(before, assigned):
            break
    return centres, torch.bincount(assigned, minlength=size)


def scattered(z: Tensor, indices: Tensor, size: int) -> Tensor:
    """Sums (size, d) of the rows of ``z`` (M, d) by ``indices`` (M,)."""
    return z.new_zeros(size, z.shape[1]).index_add_(0, indices, z)


def distances(z: Tensor, centres: Tensor, indices: Tensor) -> Tensor:
    """|z_i - centre of i|^2, (M,), in blocks of rows."""
    rows = rows_within(_BUDGET, z.shape[1], z.element_size())
    pairs = zip(z.split(rows), indices.split(rows), strict=True)
    return torch.cat([(block - centres.index_select(0, i)).square().sum(1) for block, i in pairs])


def _means(z: Tensor, assigned: Tensor, centres: Tensor) -> Tensor:
    """Each centre at the mean of its vectors; one without any at the vector farthest from its own."""
    counts = torch.bincount(assigned, minlength=len(centres)).unsqueeze(1)
    means = scattered(z, assigned, len(centres)) / counts.clamp_min(1)
    empty = (counts.squeeze(1) == 0).nonzero().squeeze(1)
    if len(empty):
        away = distances(z, means, assigned)
        farthest = away.topk(min(len(empty), len(z))).indices
        farthest = farthest[away[farthest] > 0]
        kept, moved = empty[len(farthest) :], empty[: len(farthest)]
        means[kept], means[moved] = centres[kept], z[farthest]
    return means


def seeds(z: Tensor, size: int) -> Tensor:
    """``size`` vectors of ``z``, chosen by k-means++; see `kmeans`."""
    z = z[torch.randperm(len(z), device=z.device)[: max(_MOST_SEEDED, 2 * size)]]
    around = z - z.mean(0)
    squares = around.square().sum(1)
    trials = _TRIALS * (2 + int(math.log(size)))
    nothing = torch.finfo(z.dtype).eps * z.shape[1] * squares.max()
    chosen = torch.zeros(1, dtype=torch.long, device=z.device)
    left = _squares(around, squares, chosen).squeeze(0)
    while len(chosen) < size:
        left[left <= nothing] = 0
        if not left.any():
            break
        candidates = _by_mass(left, trials)
        after = torch.minimum(_squares(around, squares, candidates), left)
        best = after.sum(1).argmin()
        left, chosen = after[best], torch.cat([chosen, candidates[best].view(1)])
    return _filled(z, z[chosen], size)


def _by_mass(mass: Tensor, draws: int) -> Tensor:
    """Indices drawn in proportion to ``mass``."""
    up_to = mass.double().cumsum(0)
    thrown = torch.rand(draws, dtype=up_to.dtype, device=mass.device) * up_to[-1]
    return torch.searchsorted(up_to, thrown, right=True).clamp_max(len(mass) - 1)


def _squares(z: Tensor, squares: Tensor, chosen: Tensor) -> Tensor:
    """|z_i - z_c|^2 for those chosen, (chosen, M), with |z_i|^2 given."""
    products = z[chosen] @ z.T
    return products.mul_(-2).add_(squares).add_(squares[chosen].unsqueeze(1)).clamp_min_(0)


def _filled(z: Tensor, centres: Tensor, size: int) -> Tensor:
    """``centres`` and vectors of ``z`` beside some noise, to make ``size``."""
    missing = size - len(centres)
    if not missing:
        return centres
    again = z[torch.randint(len(z), (missing,), device=z.device)]
    scale = (z - z.mean(0)).square().mean().sqrt().clamp_min(torch.finfo(z.dtype).eps)
    return torch.cat([centres, again + 0.01 * scale * torch.randn_like(again)])


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
