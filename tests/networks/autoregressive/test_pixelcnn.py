"""PixelCNNs: normalised, blind to later elements and nothing else in reach, unrolled as in one pass, sampled right."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from lambent.errors import ConfigError
from lambent.likelihoods import (
    AutoregressiveLikelihoodModule,
    BernoulliLikelihood,
    CategoricalLikelihood,
    NormalLikelihood,
)
from lambent.networks import GatedPixelCNNDecoder, PixelCNNDecoder
from lambent.networks.autoregressive import image_context as imagecontext, masked_conv as masked
from lambent.networks.autoregressive.masked_conv import MaskedConv, RowByRow, RowsAbove, Stepwise
from lambent.networks.autoregressive.pixelcnn import MapDropout
from lambent.shapes import Shapes
from support.binary_images import chi_square, images

PARTS = [PixelCNNDecoder, GatedPixelCNNDecoder]
SMALL = {"channels": 6, "layers": 3, "first_kernel": 3}
SHAPE = (1, 3, 3)
GRID = (3, 3)
CHANNELS = (3, 1, 3)
MAP = (2, 2, 2)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(part, out_shape, latent=0, condition=0, symbols=None, seed=0, scale=0.45, **options):
    """A network in float64 with weights large enough for its elements to depend on each other strongly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = part(**{**SMALL, **options}).build(latent, out_shape, condition, symbols).double().eval()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
    return net


def likelihood(part, shape=SHAPE, latent=0, condition=0, family=None, levels=None, **options):
    family = family or BernoulliLikelihood()
    numbers = latent if isinstance(latent, int) else math.prod(latent)
    shapes = Shapes(shape, numbers, condition, levels)
    net = built(part, family.out_shape(shapes), latent, condition, family.symbols(shapes), **options)
    return AutoregressiveLikelihoodModule(family, net, shapes).double().eval()


def masses(model, context=None):
    """log p of each of them."""
    z = noise(1, 512, 0) if context is None else context.expand(1, 512, -1)
    with torch.no_grad():
        return model(z).log_prob(images(model.shapes.event))[0]


def total(model, context=None):
    return masses(model, context).exp().sum().item()


NORMALISED = {
    "number": {},
    "grid": {"shape": GRID},
    "channels": {"shape": CHANNELS, "channels": 7},
    "table": {"embedding": 3},
    "table, channels": {"shape": CHANNELS, "embedding": 2},
    "window": {"receptive_field": 1},
    "vector": {"latent": 2, "condition": 1},
    "vector to map": {"latent": 2, "condition": 1, "context_map": 3},
    "map": {"latent": MAP, "condition": 1},
    "map to map": {"latent": MAP, "condition": 1, "context_map": 3},
    "places": {"position_channels": 3},
    "places, vector": {"latent": 2, "condition": 1, "position_channels": 100},
}


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("part", PARTS)
def test_probabilities_of_all_images_sum_to_one_and_the_context_counts(part, name):
    model = likelihood(part, **NORMALISED[name])
    width = model.decoder.context
    contexts = [noise(1, width, seed=s) for s in (1, 2)] if width else [None]
    for context in contexts:
        assert total(model, context) == pytest.approx(1, abs=1e-10)
    assert masses(model, contexts[0]).std() > 0.1, "all images alike, so that the sum says little"
    for k in range(width):
        moved = contexts[0] + 2 * F.one_hot(torch.tensor(k), width)
        assert (masses(model, contexts[0]) - masses(model, moved)).abs().max() > 1e-3, f"context number {k} is ignored"


def seen(net, context=None, draws=4):
    """(D, D) booleans in the order of generation: whether any number of element d moves with input e."""
    found = torch.zeros(net.elements, net.elements, dtype=torch.bool)
    for k in range(draws):
        x = noise(1, net.elements, seed=k)
        jacobian = torch.autograd.functional.jacobian(lambda v: net(v, context, 0), x)
        found |= (jacobian.reshape(net.out_shape[0], net.elements, net.elements) != 0).any(0)
    order = net.order[0]
    return found[order][:, order]


def places(net):
    """(row, column, channel) in the order of generation, written out."""
    channels, height, width = net.image
    return list(product(range(height), range(width), range(channels)))


def expected(net, offsets):
    """What elements must see whose pixel sees pixels at ``offsets`` and, of its own, the channels before."""
    sees = lambda a, b: (a[0] - b[0], a[1] - b[1]) in offsets or (a[:2] == b[:2] and b[2] < a[2])  # noqa: E731
    return torch.tensor([[sees(a, b) for b in places(net)] for a in places(net)])


def window(reach):
    """All earlier pixels within a window: (rows up, columns left)."""
    above = set(product(range(1, reach + 1), range(-reach, reach + 1)))
    return above | {(0, left) for left in range(1, reach + 1)}


def masked_kernels(reaches):
    """What sums of masked k x k kernels reach: the first without the pixel itself, all others with it."""
    found = window(reaches[0])
    for reach in reaches[1:]:
        step = window(reach) | {(0, 0)}
        found = {(a + c, b + d) for (a, b), (c, d) in product(found, step)}
    return found


BIG = {"channels": 24, "scale": 0.3}
WINDOWS = [
    ((1, 6, 7), {"layers": 4, "first_kernel": 3}),
    ((1, 6, 7), {"layers": 2, "first_kernel": 5, "kernel": 5}),
    ((6, 7), {"layers": 3, "receptive_field": 2}),
    ((1, 6, 7), {"layers": 2, "receptive_field": 4, "first_kernel": 3}),
    ((1, 6, 7), {"layers": 1, "receptive_field": 1}),
    ((3, 4, 4), {"layers": 3, "receptive_field": 2}),
]


@pytest.mark.parametrize(("shape", "options"), WINDOWS)
def test_a_gated_element_sees_all_earlier_ones_in_its_window_and_no_other(shape, options):
    net = built(GatedPixelCNNDecoder, (2, *shape), **BIG, **options)
    reach = sum(GatedPixelCNNDecoder(**{**SMALL, **options}).reaches())
    assert reach == options.get("receptive", reach)
    assert torch.equal(seen(net), expected(net, window(reach)))


@pytest.mark.parametrize(("shape", "options"), WINDOWS)
def test_a_plain_element_sees_what_its_kernels_reach_which_leaves_a_blind_spot_to_the_right(shape, options):
    net = built(PixelCNNDecoder, (2, *shape), **BIG, **options)
    reaches = PixelCNNDecoder(**{**SMALL, **options}).reaches()
    offsets = masked_kernels(reaches)
    assert torch.equal(seen(net), expected(net, offsets))
    assert offsets <= window(sum(reaches))
    blind = window(sum(reaches)) - offsets
    assert bool(blind) == (sum(r > 0 for r in reaches) > 1)
    assert all(up > 0 and left < 0 for up, left in blind), "only to the right, above"


@pytest.mark.parametrize("part", PARTS)
def test_a_context_does_not_let_later_elements_through(part):
    for latent in (3, MAP):
        net = built(part, (1, 4, 4), latent, condition=2, **BIG, context_map=2, position_channels=5)
        offsets = window(3) if part is GatedPixelCNNDecoder else masked_kernels([1, 1, 1])
        assert torch.equal(seen(net, noise(1, net.context)), expected(net, offsets))


@pytest.mark.parametrize("latent", [0, 2])
@pytest.mark.parametrize("part", PARTS)
def test_only_with_a_map_of_places_do_equal_surroundings_differ_by_place(part, latent):
    """Of an image of zeros, the numbers at pixels whose windows lie inside of it."""
    blind, placed = (built(part, (1, 9, 9), latent, position_channels=n) for n in (0, 6))
    x, given = torch.zeros(1, 81).double(), noise(1, 2) if latent else None
    with torch.no_grad():
        inside = [(net(x, given, 0) - net.bias)[0, 0, 3:, 3:6] for net in (blind, placed)]
    assert inside[0].std() < 1e-14
    assert inside[1].std(0).min() > 1e-2
    assert inside[1].std(1).min() > 1e-2


@pytest.mark.parametrize("part", PARTS)
def test_a_map_of_places_changes_nothing_before_training(part):
    with torch.random.fork_rng(devices=[]):
        nets = []
        for n in (0, 6):
            torch.manual_seed(0)
            nets.append(part(**SMALL, position_channels=n).build(0, (1, 5, 5)).double())
    x = noise(3, 25)
    assert torch.equal(nets[0](x, None, 0), nets[1](x, None, 0))
    nets[1](x, None, 0).square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in nets[1].places.weights)


@pytest.mark.parametrize("size", [(4, 5), (1, 7), (3, 1), (1, 1)])
def test_the_map_starts_as_all_cosines_of_the_image_orthogonal_and_without_the_constant(size):
    waves = imagecontext.slow_waves(100, size).double().flatten(1)
    n = math.prod(size)
    assert torch.allclose(waves @ waves.T / n, torch.eye(n - 1, dtype=torch.float64), atol=1e-6)
    assert waves.sum(1).abs().max() < 1e-5 if n > 1 else len(waves) == 0


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("above", [False, True])
def test_small_kernels_are_the_papers_masked_full_ones(strict, above):
    """A k x k kernel with zeros below, to the right, and by channel group at the centre."""
    groups, k, r = torch.tensor([0, 0, 1, 2, 2]), 5, 2
    layer = MaskedConv(groups, groups.flip(0), r, strict=strict, above=above).double()
    full = torch.zeros(5, 5, k, k, dtype=torch.float64)
    for out, inn, row, column in product(range(5), range(5), range(k), range(k)):
        a, b = groups.flip(0)[out].item(), groups[inn].item()
        if row < r and above:
            full[out, inn, row, column] = layer.above.weight[out, inn, row, column].item()
        centre = column == r and (a > b if strict else a >= b)
        if row == r and (column < r or centre):
            full[out, inn, row, column] = layer.left[out, inn, 0, column].item()
    h = noise(3, 5, 6, 7)
    assert torch.allclose(layer(h), F.conv2d(h, full, layer.bias, padding=r), atol=1e-12)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("inputs", [1, 6])
def test_rows_above_are_a_full_kernel_with_zeros(strict, inputs):
    layer = RowsAbove(inputs, 4, 2, strict=strict).double()
    full = torch.zeros(4, inputs, 5, 5, dtype=torch.float64)
    full[:, :, : layer.weight.shape[2]] = layer.weight.detach()
    h = noise(3, inputs, 6, 7)
    assert layer.weight.shape[2] == (2 if strict else 3)
    assert torch.allclose(layer(h), F.conv2d(h, full, layer.bias, padding=2), atol=1e-12)


def test_the_gate_is_the_papers_and_its_gradient_the_true_one():
    h = noise(3, 6, 2, 2)
    a, b = h.chunk(2, 1)
    assert torch.allclose(masked.gate(h), torch.tanh(a / 2) * torch.sigmoid(b), atol=1e-15)
    assert torch.autograd.gradcheck(masked.gate, h.requires_grad_())


def unrolled(net, x, context):
    """The numbers that the network gives element by element, (N, P, *event)."""
    found = torch.zeros(len(x), net.out_shape[0], net.elements, dtype=x.dtype)

    def choose(element, numbers):
        found[..., element] = numbers
        return x[:, element]

    net.unroll(len(x), context, 0, choose)
    return found.view(-1, *net.out_shape)


UNROLLED = {
    "number": ((1, 1, 5, 6), {}),
    "wide kernels": ((2, 1, 5, 6), {"first_kernel": 7, "kernel": 5}),
    "row": ((1, 1, 7), {}),
    "column": ((1, 7, 1), {}),
    "channels": ((2, 3, 4, 5), {"channels": 8}),
    "window": ((1, 6, 6), {"receptive_field": 2, "layers": 4}),
    "table": ((3, 5, 4), {"embedding": 4, "symbols": 3}),
    "table, channels": ((3, 2, 5, 4), {"embedding": 2, "symbols": 3}),
    "vector": ((1, 1, 5, 6), {"latent": 3, "condition": 2}),
    "vector to map": ((1, 1, 5, 6), {"latent": 3, "condition": 2, "context_map": 3}),
    "map": ((1, 5, 6), {"latent": MAP, "condition": 2}),
    "map to map": ((2, 3, 5, 6), {"latent": MAP, "context_map": 3}),
    "places": ((2, 3, 5, 6), {"position_channels": 4}),
    "places, vector": ((1, 1, 5, 6), {"latent": 3, "position_channels": 4}),
    "places, map": ((1, 5, 6), {"latent": MAP, "context_map": 3, "position_channels": 4}),
    "places in a row": ((1, 1, 7), {"position_channels": 3}),
}


def gap(part, name):
    """The largest difference between one pass and element by element."""
    out_shape, options = UNROLLED[name]
    net = built(part, out_shape, **options)
    x = noise(4, net.elements) if not net.embeds else noise(4, net.elements).abs().long().clamp_max(2).double()
    context = noise(4, net.context) if net.context else None
    with torch.no_grad():
        numbers = net(x, context, 0)
    assert numbers.std() > 0.1
    return (unrolled(net, x, context) - numbers).abs().max().item()


@pytest.mark.parametrize("name", UNROLLED)
@pytest.mark.parametrize("part", PARTS)
def test_element_by_element_is_the_same_as_in_one_pass(part, name):
    assert gap(part, name) < 1e-12


def naive(net):
    """An unrolling that makes a whole pass for each element."""

    def unroll(items, context, ordering, choose):
        x = torch.zeros(items, net.elements, dtype=torch.float64)
        for element in net.order[ordering].tolist():
            x[:, element] = choose(element, net(x, context, ordering).flatten(2)[..., element])

    return unroll


@pytest.mark.parametrize(
    ("shape", "family", "options"),
    [
        ((1, 6, 6), BernoulliLikelihood(), {}),
        ((6, 6), CategoricalLikelihood(), {"embedding": 3, "levels": 4}),
        ((3, 4, 4), CategoricalLikelihood(), {"levels": 4, "latent": 2, "context_map": 2}),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_samples_are_those_of_a_pass_for_each_element_bit_by_bit(part, shape, family, options, monkeypatch):
    model = likelihood(part, shape, family=family, **options)
    z = noise(1, 40, model.shapes.latent)
    with torch.no_grad():
        fast = model(z).sample((), torch.Generator().manual_seed(3))
        monkeypatch.setattr(model.decoder, "unroll", naive(model.decoder))
        slow = model(z).sample((), torch.Generator().manual_seed(3))
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 1


@pytest.mark.parametrize("part", PARTS)
def test_real_samples_are_those_of_a_pass_for_each_element(part, monkeypatch):
    model = likelihood(part, (2, 3, 3), family=NormalLikelihood(scale="element"), scale=0.3)
    with torch.no_grad():
        fast = model(noise(1, 10, 0)).sample((), torch.Generator().manual_seed(3))
        monkeypatch.setattr(model.decoder, "unroll", naive(model.decoder))
        slow = model(noise(1, 10, 0)).sample((), torch.Generator().manual_seed(3))
    assert torch.allclose(fast, slow, rtol=1e-10)


DRAWS = 20_000


def sampling_error(model, context=None):
    """z-score of the counts of samples against their probabilities."""
    z = noise(1, DRAWS, 0) if context is None else context.expand(1, DRAWS, -1)
    with torch.no_grad():
        draws = model(z).sample((), torch.Generator().manual_seed(5))[0]
    return chi_square(draws, masses(model, context))


@pytest.mark.parametrize("name", ["number", "channels", "table", "map"])
@pytest.mark.parametrize("part", PARTS)
def test_samples_have_the_probabilities_that_are_scored(part, name):
    model = likelihood(part, **NORMALISED[name])
    assert abs(sampling_error(model, noise(1, model.decoder.context) if model.decoder.context else None)) < 5


@pytest.mark.parametrize("part", PARTS)
def test_symbols_are_names(part):
    """Renaming them, and the rows of the table with them, changes nothing; without the rows it does."""
    net = built(part, (4, 5, 5), symbols=4, embedding=3)
    x, names = (4 * torch.rand(3, 25, generator=torch.Generator().manual_seed(2))).long(), torch.tensor([2, 3, 1, 0])
    with torch.no_grad():
        numbers = net(x.double(), None, 0)
        assert not torch.allclose(net(names[x], None, 0), numbers, atol=0.1)
        net.table.weight[names] = net.table.weight[:4].clone()
        assert torch.allclose(net(names[x], None, 0), numbers, atol=1e-12)


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("part", PARTS)
def test_hidden_inputs_are_zero_or_an_unknown_symbol_and_in_training_only(part, embedding):
    given = {"symbols": 4, "embedding": embedding}
    plain, hiding, all_hidden = (built(part, (2, 5, 5), input_dropout=p, **given) for p in (0.0, 0.4, 1.0))
    x = (4 * torch.rand(3, 25, generator=torch.Generator().manual_seed(2))).long().double()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), hiding.parameters(), strict=True))
    with torch.no_grad():
        assert torch.equal(hiding(x, None, 0), plain(x, None, 0))
        blank = torch.full_like(x, 4 if embedding else 0)
        assert torch.equal(all_hidden.train()(x, None, 0), plain(blank, None, 0))
        torch.manual_seed(0)
        first, second = (hiding.train()(x, None, 0) for _ in range(2))
    assert (first - second).abs().max() > 1e-3
    hidden = hiding.input_dropout(torch.ones(100_000)) != 1
    assert abs(hidden.double().mean() - 0.4) < 5 * math.sqrt(0.4 * 0.6 / 1e5)


@pytest.mark.parametrize("part", PARTS)
def test_with_inputs_hidden_the_probabilities_still_sum_to_one(part, monkeypatch):
    """For any choice of the hidden ones: here always the same."""
    model = likelihood(part, input_dropout=0.5).train()
    fixed = torch.rand(9, generator=torch.Generator().manual_seed(1)).expand(512, 9)
    monkeypatch.setattr(torch, "rand", lambda *a, **k: fixed)
    assert total(model) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("part", PARTS)
def test_dropped_maps_are_whole_of_the_right_share_and_mean_and_in_training_only(part):
    plain, dropping = (built(part, (2, 5, 5), dropout=p) for p in (0.0, 0.3))
    x = noise(3, 25)
    with torch.no_grad():
        assert torch.equal(dropping(x, None, 0), plain(x, None, 0))
        outputs = []
        layers = [m for m in dropping.train().modules() if isinstance(m, MapDropout)]
        hooks = [m.register_forward_hook(lambda m, given, out: outputs.append((given[0], out))) for m in layers]
        torch.manual_seed(0)
        dropping(x.expand(500, 3, 25).flatten(0, 1) + 1, None, 0)
        for hook in hooks:
            hook.remove()
    assert len(outputs) == (6 if part is GatedPixelCNNDecoder else 2), "of both stacks"
    for given, kept in outputs:
        alive = given.abs().amax((2, 3)) > 0
        dropped = alive & (kept.abs().amax((2, 3)) == 0)
        assert torch.allclose(kept[alive & ~dropped], given[alive & ~dropped] / 0.7, atol=0, rtol=1e-12)
        n = alive.sum()
        assert abs(dropped.sum() / n - 0.3) < 5 * torch.sqrt(0.3 * 0.7 / n)


@pytest.mark.parametrize("part", PARTS)
def test_with_maps_dropped_the_probabilities_still_sum_to_one(part, monkeypatch):
    """For any choice of the dropped ones: here always the same."""
    model = likelihood(part, dropout=0.4).train()
    kept = torch.arange(6) % 3 > 0
    monkeypatch.setattr(MapDropout, "forward", lambda self, h: h * kept[: h.shape[1]].view(-1, 1, 1) / 0.6)
    assert total(model) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("part", PARTS)
def test_what_cannot_be_built_is_refused_with_what_would_do(part):
    for message, options, out_shape in [
        (r"items of shape \(10,\).*use decoder=made", {}, (1, 10)),
        (r"items of shape \(1, 2, 3, 4\)", {}, (1, 1, 2, 3, 4)),
        ("kernel=4 is even", {"kernel": 4}, (1, 3, 3)),
        ("first_kernel=6 is even", {"first_kernel": 6}, (1, 3, 3)),
        ("no finite number of values", {"embedding": 2}, (1, 3, 3)),
        ("context_map=2: no latent and no condition", {"context_map": 2}, (1, 3, 3)),
        ("channels=6: found images of 9 channels", {}, (1, 9, 3, 3)),
    ]:
        with pytest.raises(ConfigError, match=message):
            built(part, out_shape, **options)


def mask_a_for_b(patch):
    make = masked._mask
    patch.setattr(masked, "_mask", lambda i, o, r, strict: make(i, o, r, strict=False))
    assert seen(built(PixelCNNDecoder, (1, 4, 4), **BIG)).triu().any()
    return abs(total(likelihood(GatedPixelCNNDecoder)) - 1) > 1e-6


def mask_b_for_a(patch):
    make = masked._mask
    patch.setattr(masked, "_mask", lambda i, o, r, strict: make(i, o, r, strict=True))
    net = built(GatedPixelCNNDecoder, (1, 4, 4), **BIG)
    return not torch.equal(seen(net), expected(net, window(3)))  # normalised still: only the reach is lost


def groups_off_by_one(patch):
    make = masked._mask
    patch.setattr(masked, "_mask", lambda i, o, r, strict: make(i - 1, o, r, strict=strict))
    return abs(total(likelihood(GatedPixelCNNDecoder, CHANNELS)) - 1) > 1e-6


def rows_of_the_element_itself(patch):
    def forward(self, h):
        r = self.reach
        return F.conv2d(F.pad(h, (r, r, r - 1 if self.strict else r, 0)), self.weight, self.bias)

    patch.setattr(RowsAbove, "forward", forward)
    assert seen(built(GatedPixelCNNDecoder, (1, 4, 4), **BIG)).triu().any()
    return abs(total(likelihood(GatedPixelCNNDecoder)) - 1) > 1e-6


def cache_a_row_late(patch):
    put = RowByRow.put
    patch.setattr(RowByRow, "put", lambda self, i, h: put(self, max(i - 1, 0), h))
    return min(gap(part, "number") for part in PARTS) > 1e-6


def inputs_revealed_a_column_early(patch):
    def reveal(self, x):
        self.lines[self.first].put(max(self.at[1] - 1, 0), self.group, x)

    patch.setattr(Stepwise, "reveal", reveal)
    assert abs(sampling_error(likelihood(PixelCNNDecoder))) > 5
    return min(gap(part, "number") for part in PARTS) > 1e-6


def window_off_by_one(patch):
    reaches = GatedPixelCNNDecoder.reaches
    patch.setattr(GatedPixelCNNDecoder, "reaches", lambda self: [reaches(self)[0] + 1, *reaches(self)[1:]])
    net = built(GatedPixelCNNDecoder, (1, 6, 7), **BIG, receptive_field=2)
    return not torch.equal(seen(net), expected(net, window(2)))


def context_ignored(patch):
    patch.setattr(imagecontext.ContextTerms, "of", lambda self, context: lambda k: None)
    model = likelihood(GatedPixelCNNDecoder, **NORMALISED["map"])
    return torch.equal(masses(model, noise(1, 9)), masses(model, noise(1, 9, seed=2)))


def condition_after_a_map_ignored(patch):
    patch.setattr(imagecontext.ContextTerms, "_vector", lambda self, context: 0 * context[:, self.numbers :])
    model = likelihood(GatedPixelCNNDecoder, **NORMALISED["map"])
    moved = noise(1, 9) + 2 * F.one_hot(torch.tensor(8), 9)
    return torch.equal(masses(model, noise(1, 9)), masses(model, moved))


@pytest.mark.parametrize(
    "fault",
    [
        mask_a_for_b,
        mask_b_for_a,
        groups_off_by_one,
        rows_of_the_element_itself,
        cache_a_row_late,
        inputs_revealed_a_column_early,
        window_off_by_one,
        context_ignored,
        condition_after_a_map_ignored,
    ],
)
def test_planted_faults_are_seen(fault, monkeypatch):
    assert fault(monkeypatch), "the checks above would let this pass"
