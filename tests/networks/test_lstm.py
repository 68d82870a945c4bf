"""LSTMs: normalised, blind to later elements, the same written out, sampled from carried states as they score."""

import math

import pytest
import torch

from lambent.errors import ConfigError, ShapeError
from lambent.networks import LSTMDecoder, LSTMEncoder, LSTMNet
from lambent.networks.sequence import Steps
from sequence_checks import (
    CONTEXTS,
    built,
    chi_square,
    context_of,
    drawn,
    gap_of_unrolling,
    images,
    jacobian,
    learnt,
    levels_of,
    live,
    masses,
    noise,
    one_hot_text,
    parameters_without_gradient,
    samples_agree,
    sees_exactly_the_past,
    total,
)

SMALL = LSTMDecoder(hidden=6, layers=2, embedding=5)
SHUFFLED = LSTMDecoder(hidden=6, embedding=5, ordering="random")


@pytest.mark.parametrize("symbols", [2, None])
@pytest.mark.parametrize("context", CONTEXTS)
def test_probabilities_of_all_images_sum_to_one(context, symbols):
    net = built(SHUFFLED if context == "none" else SMALL, context, symbols=symbols, scale=2.0)
    given = context_of(context)
    assert total(net, given) == pytest.approx(1, abs=1e-10)
    assert masses(net, given).std() > 0.5, "the pixels are near fair coins, so that any network would pass"
    for number in range(0 if given is None else given.shape[1]):
        moved = given.clone()
        moved[:, number] += 1
        assert (masses(net, moved) - masses(net, given)).abs().max() > 1e-3, "a number of the context has no effect"


@pytest.mark.parametrize("symbols", [2, None])
@pytest.mark.parametrize("context", ["none", "vector", "map, condition"])
@pytest.mark.parametrize("settings", [SMALL, SHUFFLED], ids=lambda s: s.ordering)
def test_an_output_sees_all_earlier_inputs_and_nothing_of_itself_and_later_ones(settings, context, symbols):
    assert sees_exactly_the_past(built(settings, context, numbers=2, symbols=symbols), context_of(context))


def test_the_derivative_by_the_input_itself_and_later_ones_is_exactly_zero():
    found = jacobian(built(SMALL, symbols=None))
    assert not found.tril().any()
    assert (found[torch.ones_like(found).triu(1).bool()] > 0).all()


@pytest.mark.parametrize("symbols", [2, None])
@pytest.mark.parametrize("context", CONTEXTS)
def test_from_the_carried_state_as_in_one_pass(context, symbols):
    for settings in (SMALL, SHUFFLED):
        net = built(settings, context, numbers=3, symbols=symbols, event=(2, 3, 4))
        assert gap_of_unrolling(net, context) < 1e-12


@pytest.mark.parametrize("context", ["none", "vector, condition", "map"])
def test_samples_are_those_of_a_pass_for_every_element(context):
    family, symbols = levels_of()
    given = context_of(context)
    net = built(SHUFFLED, context, event=(2, 3, 3), numbers=symbols, symbols=symbols)
    assert samples_agree(net, given, family=family, levels=symbols)
    assert len(drawn(net, 7, given, family=family, levels=symbols).unique(dim=0)) == 7
    assert samples_agree(built(SMALL, context, event=(2, 3, 3), symbols=None), given)


@pytest.mark.parametrize("context", ["none", "vector"])
def test_samples_have_the_probabilities_that_are_scored(context):
    assert abs(chi_square(built(SMALL, context, scale=1.5), context_of(context))) < 5


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
    x = images()[[0, 77, 300]]
    with torch.no_grad():
        each = [written_out(net, x[i], None if given is None else given[i]) for i in range(3)]
        return (net(x, given, 0).flatten(2) - torch.stack(each)).abs().max().item()


@pytest.mark.parametrize("settings", [SMALL, SHUFFLED], ids=lambda s: s.ordering)
@pytest.mark.parametrize("context", ["none", "vector, condition", "map"])
def test_a_pass_agrees_with_the_cell_written_out(settings, context):
    assert gap_of_writing_out(settings, context) < 1e-12


@pytest.mark.parametrize("symbols", [2, None])
def test_input_dropout_hides_inputs_in_training_only(symbols):
    net = built(LSTMDecoder(hidden=6, embedding=5, input_dropout=0.5), "vector", symbols=symbols)
    x = images()[::7]
    given = context_of("vector").expand(len(x), -1)
    plain = net(x, given, 0).flatten(1)
    assert torch.equal(plain, net(x, given, 0).flatten(1))
    torch.manual_seed(0)
    hidden = net.train()(x, given, 0).flatten(1)
    assert torch.equal(hidden[:, 0], plain[:, 0]), "the first pixel has no inputs: context and start stay"
    share = (hidden[:, 1] == plain[:, 1]).double().mean().item()
    zeros = 0 if symbols else (x[:, 0] == 0).double().mean().item()  # the number 0 is nothing already
    assert abs(share - (0.5 + 0.5 * zeros)) < 5 * (0.25 / len(x)) ** 0.5
    net.inputs.dropout.probability = 1.0
    blank = net(x, given, 0).flatten(1)
    assert torch.allclose(blank, blank[:1].expand_as(blank), atol=1e-13), "only the context tells examples apart"
    other = net(x, given + 1, 0).flatten(1)
    assert (other - blank).abs().min() > 1e-6, "z is hidden with the inputs"


def test_dropout_acts_in_training_only():
    net = built(LSTMDecoder(hidden=6, embedding=5, dropout=0.5))
    x = images()[:9]
    assert torch.equal(net(x, None, 0), net(x, None, 0))
    net.train()
    assert not torch.equal(net(x, None, 0), net(x, None, 0))


@pytest.mark.parametrize("context", CONTEXTS)
def test_gradient_reaches_every_parameter(context):
    net = built(LSTMDecoder(hidden=6, layers=2, embedding=5, input_dropout=0.5), context, numbers=2).train()
    torch.manual_seed(1)
    assert parameters_without_gradient(net, images(), context_of(context, 512)) == []


def test_it_learns_all_that_a_source_of_known_entropy_has_to_teach():
    excess, se = learnt(LSTMDecoder(hidden=48, embedding=16), steps=300)
    assert -5 * se < excess < 0.15 + 5 * se, "coins that ignore each other are 4.4 nats off"


def test_forget_gates_start_open():
    lstm = LSTMDecoder(hidden=6, layers=2).build(0, (1, 4)).lstm
    for layer in range(2):
        gates = (getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")).view(4, 6)
        assert gates.mean(1).tolist() == [0, 1, 0, 0]


def test_a_context_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="found none, expected"):
        built(SMALL, "vector")(images(), None, 0)
    with pytest.raises(ConfigError, match=r"encoder\.end=-4: found 3 features a step"):
        LSTMEncoder(end=-4).build((3, 5))


TEXT = [[1, 2, 0, 0, 0], [2, 1, 0, 0, 0], [1, 2, 2, 1, 2], [0, 0, 0, 0, 0]]


def encoder(**given):
    return live(LSTMEncoder(hidden=6, layers=2, embedding=5, **given).build((3, 5)))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_tells_orders_apart(bidirectional):
    h = encoder(bidirectional=bidirectional)(one_hot_text(TEXT, 3))
    assert (h[0] - h[1]).abs().max() > 1e-2


def pad_independent(net):
    """What stands after the first end is not seen, the end itself is, and all of a text without one."""
    x, other = one_hot_text(TEXT, 3), one_hot_text([[*r[:3], 2, 1] for r in TEXT], 3)
    h, moved = net(x), net(other)
    same = torch.allclose(h[:2], moved[:2], atol=1e-13) and torch.allclose(h[3], net(other[3:])[0], atol=1e-13)
    ended = net(one_hot_text([[1, 2, 2, 0, 0]], 3))[0]
    return same and (h[2] - moved[2]).abs().max() > 1e-3 and (h[0] - ended).abs().max() > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_sees_nothing_after_the_end_that_it_is_told(bidirectional):
    for end in (0, -3):
        assert pad_independent(encoder(end=end, bidirectional=bidirectional))
    assert not pad_independent(encoder(bidirectional=bidirectional))


def gap_of_encoding(*, bidirectional):
    settings = LSTMEncoder(hidden=4, layers=2, embedding=5, bidirectional=bidirectional, end=0)
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


@pytest.mark.parametrize("shape", [(3, 5), (6,), (2, 3, 3)])
def test_an_encoder_sees_every_input_and_trains_every_parameter(shape):
    net, x = live(LSTMEncoder(hidden=6, embedding=5, bidirectional=True).build(shape, 2)), noise(4, *shape)
    found = torch.autograd.functional.jacobian(lambda v: net(v, noise(4, 2)).sum(0), x)
    assert (found.abs().amax(0) > 0).all()
    assert parameters_without_gradient(net, x, noise(4, 2)) == []


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
    return gap_of_unrolling(net) > 1e-6 and abs(chi_square(net)) > 5


def context_ignored_in_sampling(patch):
    stepper = LSTMNet.stepper
    patch.setattr(LSTMNet, "stepper", lambda self, items, c: stepper(self, items, 0 * c))
    net = built(SMALL, "vector", scale=2.0)
    return gap_of_unrolling(net, "vector") > 1e-6 and abs(chi_square(net, context_of("vector"))) > 5


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
