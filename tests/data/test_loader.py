"""Batches: every example once an epoch, from (seed, epoch, position) alone, the same for any number of processes."""

import numpy as np
import pytest
import torch
from scipy import stats

from lambent.data import Batches, in_order
from lambent.errors import ConfigError


def all_indices(batches, epoch):
    return torch.cat([share.indices for _, share in batches.epoch(epoch)])


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 100, [3]), (1, 1, [1])])
def test_every_example_counts_once_an_epoch(n, size, expected):
    batches = Batches(range(n), size, seed=1)
    assert [share.total for _, share in batches.epoch(0)] == expected
    assert sorted(all_indices(batches, 0).tolist()) == list(range(n))


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 4, [4, 4]), (8, 4, [4, 4]), (3, 100, [3])])
def test_drop_last_drops_only_a_short_batch_beside_whole_ones(n, size, expected):
    batches = Batches(range(n), size, seed=1, drop_last=True)
    assert [len(share.indices) for _, share in batches.epoch(0)] == expected


def test_a_batch_follows_from_seed_epoch_and_position_alone():
    straight = Batches(range(101), 10, seed=4)
    wanted = {(e, p): share.indices for e in range(3) for p, share in straight.epoch(e)}
    torch.manual_seed(99)
    for e, p in [(2, 3), (0, 10), (2, 0), (1, 5), (0, 0)]:
        assert torch.equal(Batches(range(101), 10, seed=4).indices(e, p), wanted[e, p])
        assert torch.equal(straight.indices(e, p), wanted[e, p])
    resumed = Batches(range(101), 10, seed=4)
    assert [p for p, _ in resumed.epoch(1, start=7)] == [7, 8, 9, 10]
    assert not torch.equal(straight.permutation(0), straight.permutation(1))
    assert not torch.equal(straight.permutation(0), Batches(range(101), 10, seed=5).permutation(0))
    assert not torch.equal(
        Batches(range(101), 10, seed=0).permutation(1), Batches(range(101), 10, seed=1).permutation(0)
    )


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [40, 41, 43])
def test_processes_share_the_same_batches(world, n):
    alone = Batches(range(n), 20, seed=2)
    ranks = [Batches(range(n), 20, seed=2, rank=r, world=world) for r in range(world)]
    values = torch.randn(n, generator=torch.Generator().manual_seed(0)).double()
    for position, whole in alone.epoch(3):
        shares = [r.share(3, position) for r in ranks]
        assert sorted(torch.cat([s.indices for s in shares]).tolist()) == sorted(whole.indices.tolist())
        means = [s.weight * values[s.indices].mean() if len(s.indices) else torch.tensor(0.0) for s in shares]
        assert torch.allclose(sum(means) / world, values[whole.indices].mean(), rtol=1e-12)
    last = [r.share(3, len(alone) - 1) for r in ranks]
    if len({len(s.indices) for s in last}) > 1:  # an unweighted mean of means would be caught
        assert {s.weight for s in last} != {1.0}


def test_generators_differ_by_batch_and_process_and_come_back():
    batches = [Batches(range(9), 3, seed=0, rank=r, world=2) for r in range(2)]
    drawn = [torch.rand((), generator=b.generator(e, p)).item() for b in batches for e in range(3) for p in range(3)]
    assert len(set(drawn)) == len(drawn)
    assert torch.rand((), generator=batches[0].generator(0, 0)).item() == drawn[0]


def test_every_example_is_as_likely_at_every_place():
    epochs, n = 3000, 12
    batches = Batches(range(n), 4, seed=7)
    orders = np.stack([batches.permutation(e).numpy() for e in range(epochs)])
    counts = np.stack([np.bincount(orders[:, place], minlength=n) for place in range(n)])
    statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum() * (n - 1) / n
    assert stats.chi2.sf(statistic, (n - 1) ** 2) > 1e-6
    stuck = np.stack([np.bincount(np.roll(np.arange(n), e % 3)[None, 0], minlength=n) for e in range(epochs)]).sum(0)
    assert stats.chi2.sf(((stuck - epochs / n) ** 2 / (epochs / n)).sum(), n - 1) < 1e-6  # a rotation would be caught


def test_evaluation_counts_every_example_once_over_processes():
    for n, size, world in [(10, 4, 3), (1, 5, 2), (7, 7, 1)]:
        parts = [torch.cat([*in_order(n, size, rank=r, world=world), torch.empty(0).long()]) for r in range(world)]
        assert sorted(torch.cat(parts).tolist()) == list(range(n))


def test_impossible_sharing_is_refused():
    with pytest.raises(ConfigError, match="batch_size=2 for process 0 of 4"):
        Batches(range(10), 2, seed=0, world=4)
    with pytest.raises(IndexError, match="batch 3 of 3"):
        Batches(range(10), 4, seed=0).indices(0, 3)
