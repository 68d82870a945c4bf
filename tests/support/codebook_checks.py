"""What quantisers must satisfy, as functions that a planted fault must make fail."""

import itertools
import math

import numpy as np
import torch

from lambent.networks import Codebook, FiniteScalar, Learning
from lambent.networks.quantisers.nearest import nearest


def brute(z, codebook):
    """argmin_j |z_i - e_j|^2 by differences in float64; ties to the lowest index."""
    away = (z.double().numpy()[:, None] - codebook.double().numpy()) ** 2
    return torch.from_numpy(np.argmin(away.sum(-1), 1))


def between(pairs, dim, size, offset=0.0):
    """Vectors a hair's breadth nearer to one code of a pair than to the other, and the codes."""
    codes = torch.randn(size, dim, dtype=torch.double) + offset
    first, second = torch.randint(size, (2, pairs))
    share = 0.5 + 1e-5 * torch.randn(pairs, 1, dtype=torch.double)
    return (codes[first] * share + codes[second] * (1 - share)).float(), codes.float()


def book(size=6, dim=3, seed=0, **learning):
    torch.manual_seed(seed)
    made = Codebook(size, dim, Learning(start="random", **learning)).double()
    made.codes.data.normal_()
    if not made.by_gradient:
        made.sums.copy_(made.codes)
    return made


def outputs(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def check_nearest():
    torch.manual_seed(0)
    for size, dim, offset in [(1, 3, 0.0), (7, 3, 0.0), (33, 5, 1e3), (512, 16, 0.0), (300, 64, 1e4)]:
        z, codes = torch.randn(400, dim) + offset, torch.randn(size, dim) * 1.5 + offset
        assert torch.equal(nearest(z, codes), brute(z, codes)), (size, dim, offset)


def check_near_ties():
    torch.manual_seed(0)
    for offset in (0.0, 30.0):
        z, codes = between(500, 16, 64, offset)
        assert torch.equal(nearest(z, codes), brute(z, codes)), offset


def check_ties():
    codes = torch.tensor([[5.0, 5.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    assert nearest(torch.zeros(3, 2), codes).tolist() == [1, 1, 1]


def check_straight_through():
    """The value is the code's row to the last bit; the gradient goes to z unchanged, and nowhere else."""
    for rule in ("ema", "gradient"):
        quantiser, z, slope = book(rule=rule), outputs(4, 5, 3), outputs(4, 5, 3, seed=2)
        quantiser.codes.data.mul_(1e-3)
        z.requires_grad_()
        value, indices = quantiser.quantise(z)
        value.backward(slope)
        assert torch.equal(value, quantiser.codes[indices])
        assert torch.equal(z.grad, slope)
        assert quantiser.codes.grad is None


def check_penalties():
    """Values and gradients by hand, per example, however many examples there are."""
    for rule in ("ema", "gradient"):
        quantiser, z = book(rule=rule, commitment=0.7), outputs(4, 5, 3).requires_grad_()
        _, indices = quantiser.quantise(z)
        terms = quantiser.penalties(z, indices)
        away = z.detach() - quantiser.codes.detach()[indices]
        torch.testing.assert_close(terms["commitment"], 0.7 * (away**2).sum((1, 2)), rtol=1e-12, atol=0)
        weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.double)
        sum((weights * term).sum() for term in terms.values()).backward()
        torch.testing.assert_close(z.grad, 1.4 * weights[:, None, None] * away, rtol=1e-12, atol=1e-14)
        assert ("codebook" in terms) == (rule == "gradient")
        if rule == "gradient":
            torch.testing.assert_close(terms["codebook"], (away**2).sum((1, 2)), rtol=1e-12, atol=0)
            expected = torch.zeros(6, 3, dtype=torch.double)
            for b in range(4):
                for p in range(5):
                    expected[indices[b, p]] -= 2 * weights[b] * away[b, p]
            torch.testing.assert_close(quantiser.codes.grad, expected, rtol=1e-12, atol=1e-14)


def check_running_means():
    """Twelve steps against the equations, number by number."""
    decay, smoothing = 0.9, 0.3
    quantiser = book(decay=decay, smoothing=smoothing, revive=0)
    counts, sums, codes = np.ones(6), quantiser.codes.numpy().copy(), quantiser.codes.numpy().copy()
    for step in range(12):
        z = outputs(7, 5, 3, seed=step)
        _, indices = quantiser.quantise(z)
        quantiser.update_buffers(z, indices)
        assert torch.equal(indices.flatten(), brute(z.reshape(-1, 3), torch.from_numpy(codes)))
        seen, total = np.zeros(6), np.zeros((6, 3))
        for vector, i in zip(z.reshape(-1, 3).numpy(), indices.flatten().tolist(), strict=True):
            seen[i] += 1
            total[i] += vector
        counts, sums = decay * counts + (1 - decay) * seen, decay * sums + (1 - decay) * total
        everything = counts.sum()
        for i in range(6):
            codes[i] = sums[i] / ((counts[i] + smoothing) / (everything + 6 * smoothing) * everything)
    np.testing.assert_allclose(quantiser.codes.numpy(), codes, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(quantiser.counts.numpy(), counts, rtol=1e-12)


def check_revival():
    """A code far from everything moves to an output; several move to outputs that differ, though most are the same."""
    quantiser = book(size=8, dim=2, decay=0.5, revive=0.05)
    quantiser.codes[3:] += 1e3
    quantiser.sums.copy_(quantiser.codes)
    z = torch.zeros(60, 2, dtype=torch.double)
    z[:6] = 5 * outputs(6, 2)
    for _ in range(60):
        quantiser.update_buffers(z, quantiser.indices_of(z))
    assert quantiser.codes.abs().max() < 100
    assert len(torch.unique(quantiser.indices_of(z))) == 7


def cluster_usage(**learning):
    """512 planted clusters, 512 codes that start in one place: the share used in the end."""
    torch.manual_seed(0)
    centres = 4 * torch.randn(512, 8)
    quantiser = Codebook(512, 8, Learning(start="random", **learning))
    optimizer = torch.optim.Adam(quantiser.parameters(), lr=0.05) if quantiser.by_gradient else None
    found = {}
    for step in range(100):
        z = centres[torch.randint(512, (1200,))] + 0.1 * torch.randn(1200, 8)
        indices = quantiser.indices_of(z)
        if optimizer is not None:
            optimizer.zero_grad()
            quantiser.penalties(z[None], indices[None])["codebook"].sum().backward()
            optimizer.step()
        quantiser.update_buffers(z, indices)
        if step % 8 == 7:
            found = quantiser.pop_metrics()
    return found["usage"]


def check_fixed_grid():
    """Value, index and gradient of every number against the formula, and the nearest of all points listed."""
    levels = (3, 4, 5, 8)
    grid, z = FiniteScalar(levels), (3 * outputs(2, 40, 4)).requires_grad_()
    value, indices = grid.quantise(z)
    value.backward(outputs(2, 40, 4, seed=2))
    points = [[(digit - count // 2) / (count // 2) for digit in range(count)] for count in levels]
    for d, count in enumerate(levels):
        half, offset = (count - 1) * 0.999 / 2, 0.0 if count % 2 else 0.5
        bounded = torch.tanh(z[..., d] + math.atanh(offset / half)) * half - offset
        (slope,) = torch.autograd.grad(bounded.sum() / (count // 2), z)
        expected = slope[..., d] * outputs(2, 40, 4, seed=2)[..., d]
        torch.testing.assert_close(z.grad[..., d], expected, rtol=1e-12, atol=1e-15)
        own = torch.tensor(points[d], dtype=torch.double)
        nearest_point = (bounded.detach().unsqueeze(-1) / (count // 2) - own).abs().argmin(-1)
        assert torch.equal(value[..., d], own[nearest_point])
    listed = torch.tensor([list(reversed(p)) for p in itertools.product(*reversed(points))])
    assert torch.equal(grid.lookup(torch.arange(grid.size)), listed)
    assert torch.equal(value.float(), listed[indices])
