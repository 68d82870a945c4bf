"""Quantisers: exact nearest codes in bounded memory, exact gradients, the published updates, resumption."""

import math

import pytest
import torch
from safetensors.torch import load, save
from sklearn.cluster import KMeans
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.networks import Codebook, FiniteScalar, Learning
from lambent.networks.quantisers import codebook, kmeans, nearest
from lambent.posteriors import FiniteScalarPosterior, VectorQuantisedPosterior
from support import codebook_checks as checks
from support.codebook_checks import book, brute, outputs

CHECKS = [
    checks.check_nearest,
    checks.check_near_ties,
    checks.check_ties,
    checks.check_straight_through,
    checks.check_penalties,
    checks.check_running_means,
    checks.check_revival,
    checks.check_fixed_grid,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_quantisers(check):
    check()


def planted_bias(real):
    def centred(*arguments):
        codes, bias, mean, radius = real(*arguments)
        return codes, torch.where(bias.isneginf(), bias, 0.0), mean, radius

    return centred


def planted_straight_through(self, z):
    indices = self.indices_of(z)
    return z + self.lookup(indices) - z.detach(), indices


def planted_decay(self, counts, sums):
    decay = 1 - self.learning.decay
    self.counts.mul_(decay).add_(counts, alpha=1 - decay)
    self.sums.mul_(decay).add_(sums, alpha=1 - decay)
    self.codes.copy_(self.sums / self._smoothed().unsqueeze(1))


FAULTS = {
    "squared norm forgotten": (checks.check_nearest, nearest, "_centred", planted_bias(nearest._centred)),
    "rounding trusted": (checks.check_near_ties, nearest, "_slack", lambda dim, roundoff: 0.0),
    "last of ties": (
        checks.check_ties,
        nearest,
        "_careful",
        lambda z, codes, budget: len(codes) - 1 - brute(z, codes.flip(0)),
    ),
    "gradient to the codes, value rounded": (
        checks.check_straight_through,
        Codebook,
        "quantise",
        planted_straight_through,
    ),
    "commitment averaged over the batch": (
        checks.check_penalties,
        codebook,
        "squared_distance",
        lambda a, b: (a - b).square().flatten(1).sum(1) / len(a),
    ),
    "smoothing forgotten": (checks.check_running_means, Codebook, "_smoothed", lambda self: self.counts),
    "wrong decay": (checks.check_running_means, Codebook, "_follow", planted_decay),
    "nothing revived": (checks.check_revival, Codebook, "_place", lambda self, places, codes: None),
    "copies revived": (checks.check_revival, codebook, "different", lambda z, most: z[-1:].expand(most, -1)),
    "even levels not offset": (
        checks.check_fixed_grid,
        torch,
        "atanh",
        lambda x: torch.zeros_like(x),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, monkeypatch):
    check, owner, attribute, fault = FAULTS[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pytest.raises(AssertionError):
        check()


class Largest(TorchDispatchMode):
    """The largest tensor that anything makes, in bytes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.bytes = max(self.bytes, leaf.numel() * leaf.element_size())
        return result


@pytest.mark.parametrize("all_tied", [False, True])
def test_search_stays_in_its_budget(all_tied):
    torch.manual_seed(0)
    z, codes = torch.randn(1500, 4), torch.randn(1000, 4)
    codes = codes[:1].expand(1000, 4) if all_tied else codes
    found = []
    for budget in (1, 2**16, 2**18, 2**30):
        with Largest() as largest:
            found.append(nearest.nearest(z[: 50 if budget == 1 else None], codes, budget))
        if budget > 1:
            assert largest.bytes <= max(budget, 8 * z.numel()), "6 MB is the matrix of all distances"
    assert all(torch.equal(some, found[-1][: len(some)]) for some in found)
    assert torch.equal(found[-1], brute(z, codes))


def test_search_takes_any_precision_and_refuses_other_shapes():
    z, codes = torch.randn(50, 8), torch.randn(20, 8)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(nearest.nearest(z.to(kind), codes), brute(z.to(kind), codes))
    assert len(nearest.nearest(z[:0], codes)) == 0
    assert nearest.nearest(torch.full((2, 8), math.nan), codes).tolist() == [0, 0]
    with pytest.raises(ShapeError, match=r"z \(50, 8\), codebook \(20, 7\)"):
        nearest.nearest(z, codes[:, :7])


def test_search_is_exact_whatever_precision_products_are_allowed():
    torch.manual_seed(0)
    z, codes = torch.randn(300, 16), torch.randn(200, 16)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest.nearest(z, codes), brute(z, codes))
    finally:
        torch.set_float32_matmul_precision(before)


def test_codes_that_follow_means_are_no_parameters():
    assert not list(book().parameters())
    assert [name for name, _ in book(rule="gradient").named_parameters()] == ["codes"]


def test_commitment_does_not_depend_on_the_batch():
    quantiser, z = book(), outputs(8, 5, 3)
    _, indices = quantiser.quantise(z)
    whole = quantiser.penalties(z, indices)["commitment"]
    torch.testing.assert_close(quantiser.penalties(z[2:3], indices[2:3])["commitment"], whole[2:3], rtol=1e-12, atol=0)


def test_processes_together_learn_what_one_would():
    whole, part = book(decay=0.9, revive=0), book(decay=0.9, revive=0)
    z = outputs(40, 3)
    indices = whole.indices_of(z)
    whole.update_buffers(z, indices)
    others = [torch.bincount(indices[15:], minlength=6), kmeans.scattered(z[15:], indices[15:], 6)]
    part.update_buffers(z[:15], indices[:15], lambda value: value + others.pop(0))
    torch.testing.assert_close(part.codes, whole.codes, rtol=1e-12, atol=1e-14)
    assert torch.equal(part.used, whole.used)


def test_usage_and_perplexity_of_an_epoch():
    quantiser, seen = book(revive=0), [0, 0, 0, 1, 1, 4]
    assert quantiser.pop_metrics() == {"usage": 0.0, "perplexity": 0.0}
    for i in seen:
        quantiser.update_buffers(outputs(1, 3), torch.tensor([i]))
    found = quantiser.pop_metrics()
    entropy = -sum(p * math.log(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert found == {"usage": 0.5, "perplexity": pytest.approx(math.exp(entropy), rel=1e-12)}
    assert quantiser.pop_metrics()["usage"] == 0


@pytest.mark.parametrize(("size", "spread"), [(20, 4.0), (100, 4.0), (60, 0.5)])
def test_k_means_is_as_good_as_scikit_learns(size, spread):
    torch.manual_seed(0)
    z = (spread * torch.randn(size, 5))[torch.randint(size, (2000,))] + 0.3 * torch.randn(2000, 5)
    theirs, ours = 0.0, 0.0
    for seed in range(3):
        theirs += KMeans(size, n_init=1, random_state=seed).fit(z.numpy()).inertia_
        torch.manual_seed(seed)
        centres, sizes = kmeans.kmeans(z, size)
        assigned = brute(z, centres)
        ours += float(kmeans.distances(z, centres, assigned).sum())
        assert torch.equal(sizes, torch.bincount(assigned, minlength=size))
    assert ours < 1.02 * theirs


def test_k_means_of_fewer_outputs_than_codes():
    torch.manual_seed(0)
    z = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).repeat(3, 1)
    centres, sizes = kmeans.kmeans(z, 8)
    assert kmeans.distances(z, centres, brute(z, centres)).max() < 1e-9
    assert int(sizes.sum()) == 9
    assert len(torch.unique(centres, dim=0)) == 8
    assert kmeans.kmeans(z[:1], 3)[0].isfinite().all()
    with pytest.raises(ConfigError, match="no encoder outputs"):
        Codebook(4, 2).initialise(z[:0])


@pytest.mark.parametrize("rule", ["ema", "gradient"])
def test_planted_clusters_are_nearly_all_used_because_dead_codes_are_revived(rule):
    assert checks.cluster_usage(rule=rule, decay=0.9) >= 0.9
    assert checks.cluster_usage(rule=rule, decay=0.9, revive=0) < 0.6


@pytest.mark.parametrize("rule", ["ema", "gradient"])
def test_state_saved_and_loaded_goes_on_to_the_same_bytes(rule):
    def steps(quantiser, first, last):
        for step in range(first, last):
            torch.manual_seed(step)
            z = torch.randn(30, 3)
            if step == 0:
                quantiser.initialise(z[:10])
            indices = quantiser.indices_of(z)
            quantiser.update_buffers(z, indices)
            if step % 3 == 2:
                quantiser.pop_metrics()
        return save(quantiser.state_dict())

    def fresh():
        return Codebook(24, 3, Learning(rule=rule, decay=0.8, revive=0.2))

    straight = steps(first := fresh(), 0, 11)
    broken, again = fresh(), fresh()
    assert again.needs_initialisation
    again.load_state_dict(load(steps(broken, 0, 5)))
    assert not again.needs_initialisation
    assert steps(again, 5, 11) == straight
    assert steps(first, 11, 12) != straight


def test_all_indices_of_a_fixed_grid_come_back():
    for levels in [(8, 5, 5, 5), (3,), (4, 7, 3)]:
        grid = FiniteScalar(levels)
        every = torch.arange(math.prod(levels))
        assert grid.size == len(every)
        assert torch.equal(grid.indices_of(grid.lookup(every)), every)
        value, _ = grid.quantise(torch.tensor([[-50.0], [50.0]]).expand(2, len(levels)))
        assert torch.equal(grid.indices_of(value), torch.tensor([0, grid.size - 1]))
        assert torch.equal(grid.quantise(torch.zeros(1, len(levels)))[0], torch.zeros(1, len(levels)))
    with pytest.raises(ConfigError, match="at least 3"):
        FiniteScalar((8, 2))


def test_settings_make_their_quantisers():
    made = VectorQuantisedPosterior(
        codebook_size=20, embedding_dim=3, codebook_update="gradient", commitment=0.5, codebook_init="random"
    ).quantiser()
    assert (made.size, made.dim, made.learning) == (20, 3, Learning("gradient", commitment=0.5, start="random"))
    assert VectorQuantisedPosterior().quantiser().learning == Learning()
    with pytest.raises(ConfigError, match="rule='emma' of a codebook, expected ema or gradient"):
        Learning(rule="emma")
    assert FiniteScalarPosterior(bins=(4, 5)).quantiser().size == 20
    with pytest.raises(CombinationError, match="model=quantised"):
        VectorQuantisedPosterior().width(3)
    with pytest.raises(CombinationError, match="model=quantised"):
        FiniteScalarPosterior().distribution(torch.zeros(1), 3)
