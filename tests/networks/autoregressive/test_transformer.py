"""Transformers: normalised, blind to later elements, the same written out, sampled from caches as they score."""

import math

import pytest
import torch

from lambent.errors import ConfigError, ShapeError
from lambent.networks import Stack, TransformerDecoder, TransformerEncoder, TransformerNet
from lambent.networks.autoregressive.base import InputDropout
from lambent.networks.autoregressive.sequence import SequenceNet, pixel_order
from lambent.networks.autoregressive.transformer import Attention, Block
from support.binary_images import images
from support.sequence_checks import (
    TEXT,
    built,
    context_of,
    gap_of_unrolling,
    live,
    noise,
    one_hot_text,
    pad_independent,
    sampling_error,
    sees_exactly_the_past,
    total,
)

SMALL = TransformerDecoder(model_dim=8, layers=2, heads=2)
SHUFFLED = TransformerDecoder(model_dim=8, layers=2, heads=2, ordering="random")


def normed(layer, h):
    mean = sum(h) / len(h)
    variance = sum((v - mean) ** 2 for v in h) / len(h)
    return layer.weight * (h - mean) / torch.sqrt(variance + 1e-5) + layer.bias


def attended(attention, tokens, t, heads, *, causal):
    """Vaswani et al. 2017, eq. 1, one head, one key, one number at a time."""
    width = len(tokens[0])
    size = width // heads
    q, k, v = (
        [attention.inputs.weight[i * width : (i + 1) * width] @ h + attention.inputs.bias[i * width : (i + 1) * width]
         for h in tokens]
        for i in range(3)
    )  # fmt: skip
    seen, mixed = range(t + 1 if causal else len(tokens)), torch.zeros(width, dtype=torch.float64)
    for head in range(heads):
        own = range(head * size, (head + 1) * size)
        weights = [math.exp(sum(float(q[t][i] * k[s][i]) for i in own) / math.sqrt(size)) for s in seen]
        for i in own:
            mixed[i] = sum(w * float(v[s][i]) for w, s in zip(weights, seen, strict=True)) / sum(weights)
    return attention.output.weight @ mixed + attention.output.bias


def stacked(stack, tokens, heads, *, causal):
    for block in stack.blocks:
        before = [normed(block.before_attention, h) for h in tokens]
        tokens = [h + attended(block.attention, before, t, heads, causal=causal) for t, h in enumerate(tokens)]
        inner = [block.mlp[0].weight @ normed(block.before_mlp, h) + block.mlp[0].bias for h in tokens]
        inner = [torch.stack([u * (1 + math.erf(u / math.sqrt(2))) / 2 for u in h]) for h in inner]
        tokens = [h + block.mlp[2].weight @ u + block.mlp[2].bias for h, u in zip(tokens, inner, strict=True)]
    return [normed(stack.norm, h) for h in tokens]


def written_out(net, x, context=None, vector=0, points=0):
    """Parameters (P, D) of one example of symbols: tokens of a map, the start, all elements but the last."""
    order = net.order[0].tolist()
    tokens = [net.start] + [net.inputs.table.weight[int(x[d])] for d in order[:-1]]
    tokens = [h + p for h, p in zip(tokens, net.positions, strict=True)]
    if vector:
        tokens = [h + net.seen.from_vector.weight @ context[-vector:] for h in tokens]
    prefix = [
        net.seen.from_map.weight @ context[: len(context) - vector].view(-1, points)[:, i] + net.seen.from_map.bias
        + net.seen.positions[i]
        for i in range(points)
    ]  # fmt: skip
    h = stacked(net.stack, prefix + tokens, 2, causal=True)[points:]
    numbers = torch.zeros(net.out_shape[0], net.elements, dtype=torch.float64)
    for place, d in enumerate(order):
        numbers[:, d] = net.output.weight @ h[place] + net.bias[:, d]
    return numbers


WRITTEN = [("none", 0, 0), ("vector, condition", 5, 0), ("map, condition", 2, 4)]


def gap_of_writing_out(context="none", vector=0, points=0):
    net, given = built(SHUFFLED, context, numbers=2), context_of(context, 3)
    x = images((9,))[[0, 77, 300]]
    with torch.no_grad():
        found = net(x, given, 0).flatten(2)
        each = [written_out(net, x[i], None if given is None else given[i], vector, points) for i in range(3)]
    return (found - torch.stack(each)).abs().max().item()


@pytest.mark.parametrize(("context", "vector", "points"), WRITTEN)
def test_a_pass_agrees_with_attention_written_out(context, vector, points):
    assert gap_of_writing_out(context, vector, points) < 1e-12


def test_a_stack_without_the_causal_mask_agrees_too_and_sees_both_ways():
    stack, h = live(Stack(8, 2, 2, causal=False)), noise(2, 5, 8)
    with torch.no_grad():
        each = [torch.stack(stacked(stack, list(item), 2, causal=False)) for item in h]
    assert torch.allclose(stack(h), torch.stack(each), atol=1e-12)
    found = torch.autograd.functional.jacobian(lambda v: stack(v).sum(-1), h[:1]).abs().amax(-1).squeeze()
    assert (found > 0).all()


def test_an_images_channels_come_together_pixel_by_pixel():
    order = pixel_order((3, 2, 2), "natural")[0].tolist()
    index = torch.arange(12).view(3, 2, 2)
    assert order == [int(index[c, i, j]) for i in range(2) for j in range(2) for c in range(3)]
    assert pixel_order((4, 5), "natural")[0].tolist() == list(range(20))


def test_many_values_are_numbers_and_few_are_symbols():
    assert SMALL.build(0, (2, 3), symbols=4096).embeds
    assert not SMALL.build(0, (2, 3), symbols=4097).embeds
    assert total(built(SMALL, symbols=5000)) == pytest.approx(1, abs=1e-10)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="model_dim=10 is no multiple of heads=4"):
        TransformerDecoder(model_dim=10).build(0, (1, 3, 3))
    with pytest.raises(ShapeError, match="found none, expected"):
        built(SMALL, "vector")(images((9,)), None, 0)
    with pytest.raises(ConfigError, match=r"encoder\.end=4: found 3 features a step"):
        TransformerEncoder(end=4).build((3, 5))


def encoder(**given):
    return live(TransformerEncoder(model_dim=8, heads=2, **given).build((3, 5)))


def test_an_encoder_agrees_with_attention_written_out():
    net, x, c = (
        live(TransformerEncoder(model_dim=8, heads=2, end=0).build((3, 5), 2)),
        one_hot_text(TEXT, 3),
        noise(4, 2),
    )
    with torch.no_grad():
        for item, condition, seen in zip(x, c, (3, 3, 5, 1), strict=True):
            steps = net.steps
            tokens = [
                steps.affine.weight @ item[:, t] + steps.affine.bias + steps.from_condition.weight @ condition
                + net.positions[t]
                for t in range(seen)
            ]  # fmt: skip
            mean = sum(stacked(net.stack, tokens, 2, causal=False)) / seen
            assert torch.allclose(net(item[None], condition[None])[0], mean, atol=1e-12)


def without_a_mask(patch):
    init = Attention.__init__
    patch.setattr(Attention, "__init__", lambda self, *a, causal, **k: init(self, *a, causal=False, **k))
    return not sees_exactly_the_past(built(SMALL)) and abs(total(built(SMALL)) - 1) > 1e-6


def inputs_not_shifted(patch):
    def forward(self, x, context, ordering):
        tokens = self.inputs(x[:, self.order[0]])
        h = self.features(tokens, context)[:, self.order[0].argsort()]
        return (self.output(h).transpose(1, 2) + self.bias).unflatten(2, self.out_shape[1:])

    patch.setattr(SequenceNet, "forward", forward)
    return not sees_exactly_the_past(built(SMALL)) and abs(total(built(SMALL)) - 1) > 1e-6


def one_input_too_few(patch):
    features = TransformerNet.features
    shifted = lambda self, tokens, c: features(self, tokens.roll(1, 1) * (torch.arange(9) > 0).view(1, -1, 1), c)  # noqa: E731
    patch.setattr(TransformerNet, "features", shifted)
    return not sees_exactly_the_past(built(SMALL))


def patched_step(patch, place_of_cache, places_seen, power=-0.5):
    def step(self, h, cache, place):
        q, k, v = self.inputs(h).view(len(h), 3, -1, cache.shape[-1]).transpose(0, 1).flatten(1, 2)
        cache[0, :, place_of_cache(place)], cache[1, :, place_of_cache(place)] = k, v
        keys, values = cache[:, :, : places_seen(place)]
        scores = torch.bmm((q * q.shape[-1] ** power).unsqueeze(1), keys.transpose(1, 2))
        return self.output(torch.bmm(scores.softmax(-1), values).view_as(h))

    patch.setattr(Attention, "step", step)
    return gap_of_unrolling(built(SMALL)) > 1e-6


def nothing_planted(patch):
    return not patched_step(patch, lambda t: t, lambda t: t + 1)


def cache_written_one_place_late(patch):
    return patched_step(patch, lambda t: min(t + 1, 8), lambda t: min(t + 2, 9))


def cache_read_without_this_place(patch):
    return patched_step(patch, lambda t: t, lambda t: max(t, 1))


def scores_without_their_scale(patch):
    return patched_step(patch, lambda t: t, lambda t: t + 1, power=0)


def wrong_scale_everywhere(patch):
    real = torch.nn.functional.scaled_dot_product_attention
    wrong = lambda q, k, v, **given: real(q * 8**-0.5, k, v, **given)  # noqa: E731
    patch.setattr(torch.nn.functional, "scaled_dot_product_attention", wrong)
    return gap_of_writing_out() > 1e-6


def positions_shifted(patch):
    stepper = TransformerNet.stepper

    def late(self, items, context):
        step = stepper(self, items, context)
        moved = self.positions.roll(1, 0) - self.positions
        return lambda token, place: step(token + moved[place], place)

    patch.setattr(TransformerNet, "stepper", late)
    net = built(SMALL, scale=1.5)
    return gap_of_unrolling(net) > 1e-6 and abs(sampling_error(net)) > 5


def context_ignored_in_sampling(patch):
    stepper = TransformerNet.stepper
    patch.setattr(TransformerNet, "stepper", lambda self, items, c: stepper(self, items, 0 * c))
    net = built(SMALL, "vector")
    return gap_of_unrolling(net, "vector") > 1e-6 and abs(sampling_error(net, context_of("vector"))) > 5


def dropout_in_evaluation(patch):
    patch.setattr(InputDropout, "forward", lambda self, x: x.masked_fill(torch.rand(x.shape) < 0.5, self.blank))
    net = built(TransformerDecoder(model_dim=8, heads=2, input_dropout=0.5))
    return not torch.equal(net(images((9,)), None, 0), net(images((9,)), None, 0))


def norm_after_the_branch(patch):
    def forward(self, h, mask=None):
        h = self.before_attention(h + self.attention(h, mask))
        return self.before_mlp(h + self.mlp(h))

    patch.setattr(Block, "forward", forward)
    return gap_of_writing_out() > 1e-6


def padding_in_the_mean(patch):
    from lambent.networks.autoregressive import transformer

    forward = lambda self, x, condition=None: self.stack(self.steps(x, condition)[0] + self.positions).mean(1)  # noqa: E731
    patch.setattr(transformer.TransformerEncoderModule, "forward", forward)
    return not pad_independent(encoder(end=0))


@pytest.mark.parametrize(
    "fault",
    [
        nothing_planted,
        without_a_mask,
        inputs_not_shifted,
        one_input_too_few,
        cache_written_one_place_late,
        cache_read_without_this_place,
        scores_without_their_scale,
        wrong_scale_everywhere,
        positions_shifted,
        context_ignored_in_sampling,
        dropout_in_evaluation,
        norm_after_the_branch,
        padding_in_the_mean,
    ],
)
def test_planted_faults_are_seen(fault, monkeypatch):
    assert fault(monkeypatch), "the check above would let this pass"
