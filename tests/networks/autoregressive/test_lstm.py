"""LSTMs: normalised, blind to later elements, the same written out, sampled from carried states as they score."""

import math

import pytest
import torch

from lambent.networks import LSTMDecoder, LSTMEncoder, LSTMNet
from lambent.networks.autoregressive.sequence import Steps
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

SMALL = LSTMDecoder(hidden_dim=6, layers=2, embedding=5)
SHUFFLED = LSTMDecoder(hidden_dim=6, embedding=5, ordering="random")


def cell(lstm, layer, x, h, c, way=""):
    """Gates of one step, one cell at a time (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)."""
    weights, recurrent, bias, other = (
        getattr(lstm, f"{name}_l{layer}{way}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    size, outputs, cells = len(h), [], []
    for k in range(size):
        sums = []
        for gate in range(4):
            row = gate * size + k
            total = bias[row] + other[row] + sum(weights[row][i] * x[i] for i in range(len(x)))
            sums.append(float(total + sum(recurrent[row][i] * h[i] for i in range(size))))
        taken, kept, new, shown = sums
        taken, kept, shown = (1 / (1 + math.exp(-v)) for v in (taken, kept, shown))
        cells.append(kept * float(c[k]) + taken * math.tanh(new))
        outputs.append(shown * math.tanh(cells[-1]))
    return torch.tensor(outputs, dtype=torch.float64), torch.tensor(cells, dtype=torch.float64)


def read(lstm, layer, steps, h, c, way=""):
    """Outputs of one layer in one direction, in the order in which it reads."""
    outputs = []
    for x in steps:
        h, c = cell(lstm, layer, x, h, c, way)
        outputs.append(h)
    return outputs


def written_out(net, x, context):
    """Parameters (P, D) of one example of symbols; the context sets all layers' states and moves every token."""
    order, layers, hidden = net.order[0].tolist(), net.lstm.num_layers, net.lstm.hidden_size
    tokens = [net.start] + [net.inputs.table.weight[int(x[d])] for d in order[:-1]]
    states = torch.zeros(2, layers, hidden).double()
    if context is not None:
        states = (net.to_state.weight @ context).view(2, layers, hidden)
        tokens = [h + net.to_tokens.weight @ context for h in tokens]
    for layer in range(layers):
        tokens = read(net.lstm, layer, tokens, states[0, layer], states[1, layer])
    numbers = torch.zeros(net.out_shape[0], net.elements, dtype=torch.float64)
    for place, d in enumerate(order):
        numbers[:, d] = net.output.weight @ tokens[place] + net.bias[:, d]
    return numbers


def gap_of_writing_out(settings=SMALL, context="none"):
    net, given = built(settings, context, numbers=2), context_of(context, 3)
    x = images((9,))[[0, 77, 300]]
    with torch.no_grad():
        each = [written_out(net, x[i], None if given is None else given[i]) for i in range(3)]
        return (net(x, given, 0).flatten(2) - torch.stack(each)).abs().max().item()


@pytest.mark.parametrize("settings", [SMALL, SHUFFLED], ids=lambda s: s.ordering)
@pytest.mark.parametrize("context", ["none", "vector, condition", "map"])
def test_a_pass_agrees_with_the_cell_written_out(settings, context):
    assert gap_of_writing_out(settings, context) < 1e-12


def test_forget_gates_start_open():
    lstm = LSTMDecoder(hidden_dim=6, layers=2).build(0, (1, 4)).lstm
    for layer in range(2):
        gates = (getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")).view(4, 6)
        assert gates.mean(1).tolist() == [0, 1, 0, 0]


def encoder(**given):
    return live(LSTMEncoder(hidden_dim=6, layers=2, embedding=5, **given).build((3, 5)))


def gap_of_encoding(*, bidirectional):
    settings = LSTMEncoder(hidden_dim=4, layers=2, embedding=5, bidirectional=bidirectional, end=0)
    net, x, given = live(settings.build((3, 5), 2)), one_hot_text(TEXT, 3), noise(4, 2)
    zero, worst = torch.zeros(4).double(), 0.0
    with torch.no_grad():
        for item, condition, seen in zip(x, given, (3, 3, 5, 1), strict=True):
            shift = net.steps.from_condition.weight @ condition + net.steps.affine.bias
            steps = [net.steps.affine.weight @ item[:, t] + shift for t in range(seen)]
            for layer in range(2):
                forth = read(net.lstm, layer, steps, zero, zero)
                back = read(net.lstm, layer, steps[::-1], zero, zero, "_reverse") if bidirectional else []
                last = torch.cat([forth[-1], *back[-1:]])
                pairs = zip(forth, back[::-1], strict=True)
                steps = [torch.cat(both) for both in pairs] if bidirectional else forth
            worst = max(worst, (net(item[None], condition[None])[0] - last).abs().max().item())
    return worst


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_agrees_with_the_cell_written_out(bidirectional):
    assert gap_of_encoding(bidirectional=bidirectional) < 1e-12


def inputs_not_shifted(patch):
    features = LSTMNet.features
    patch.setattr(LSTMNet, "features", lambda self, tokens, c: features(self, tokens.roll(-1, 1), c))
    return not sees_exactly_the_past(built(SMALL)) and abs(total(built(SMALL)) - 1) > 1e-6


def inputs_shifted_twice(patch):
    features = LSTMNet.features
    patch.setattr(LSTMNet, "features", lambda self, tokens, c: features(self, tokens[:, [0, *range(8)]], c))
    return not sees_exactly_the_past(built(SMALL))


def read_both_ways(patch):
    features = LSTMNet.features
    both = lambda self, tokens, c: features(self, tokens, c) + features(self, tokens.flip(1), c).flip(1)  # noqa: E731
    patch.setattr(LSTMNet, "features", both)
    return not sees_exactly_the_past(built(SMALL)) and abs(total(built(SMALL, scale=2.0)) - 1) > 1e-6


def state_not_carried(patch):
    stepper = LSTMNet.stepper

    def forgetful(self, items, context):
        return lambda token, place: stepper(self, items, context)(token, place)

    patch.setattr(LSTMNet, "stepper", forgetful)
    net = built(SMALL, scale=2.0)
    return gap_of_unrolling(net) > 1e-6 and abs(sampling_error(net)) > 5


def context_ignored_in_sampling(patch):
    stepper = LSTMNet.stepper
    patch.setattr(LSTMNet, "stepper", lambda self, items, c: stepper(self, items, 0 * c))
    net = built(SMALL, "vector", scale=2.0)
    return gap_of_unrolling(net, "vector") > 1e-6 and abs(sampling_error(net, context_of("vector"))) > 5


def outputs_and_cells_exchanged(patch):
    terms = LSTMNet._context_terms

    def exchanged(self, context, items):
        (h, c), everywhere = terms(self, context, items)
        return (c, h), everywhere

    patch.setattr(LSTMNet, "_context_terms", exchanged)
    return gap_of_writing_out(context="vector") > 1e-6


def gates_in_another_order(patch):
    gap = gap_of_writing_out()
    forward = LSTMNet.features

    def turned(self, tokens, context):
        order = torch.arange(24).view(4, 6)[[1, 0, 2, 3]].flatten()
        with torch.no_grad():
            for parameter in self.lstm.parameters():
                parameter.copy_(parameter[order])
            found = forward(self, tokens, context)
            for parameter in self.lstm.parameters():
                parameter.copy_(parameter[order])
        return found

    patch.setattr(LSTMNet, "features", turned)
    return gap_of_writing_out() > 1e-6 > gap


def end_itself_unseen(patch):
    forward = Steps.forward

    def short(self, x, condition):
        tokens, seen = forward(self, x, condition)
        return tokens, seen & (x[:, self.end] < 0.5) | (torch.arange(seen.shape[1]) == 0)

    patch.setattr(Steps, "forward", short)
    return gap_of_encoding(bidirectional=False) > 1e-6


def padding_seen(patch):
    forward = Steps.forward
    patch.setattr(Steps, "forward", lambda self, x, condition: (forward(self, x, condition)[0], None))
    return not pad_independent(encoder(end=0, bidirectional=True))


@pytest.mark.parametrize(
    "fault",
    [
        inputs_not_shifted,
        inputs_shifted_twice,
        read_both_ways,
        state_not_carried,
        context_ignored_in_sampling,
        outputs_and_cells_exchanged,
        gates_in_another_order,
        end_itself_unseen,
        padding_seen,
    ],
)
def test_planted_faults_are_seen(fault, monkeypatch):
    assert fault(monkeypatch), "the check above would let this pass"
