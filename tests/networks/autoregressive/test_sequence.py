"""LSTMs and transformers alike: normalised, blind to later elements, sampled step by step as they score, trained."""

import pytest
import torch

from lambent.errors import ConfigError, ShapeError
from lambent.networks import LSTMDecoder, LSTMEncoder, TransformerDecoder, TransformerEncoder
from support.binary_images import images
from support.sequence_checks import (
    CONTEXTS,
    TEXT,
    built,
    context_of,
    drawn,
    gap_of_unrolling,
    jacobian,
    learnt,
    levels_of,
    live,
    masses,
    noise,
    one_hot_text,
    pad_independent,
    parameters_without_gradient,
    samples_agree,
    sampling_error,
    sees_exactly_the_past,
    total,
)

DECODERS = {
    "lstm": lambda layers=2, **given: LSTMDecoder(hidden_dim=6, layers=layers, embedding=5, **given),
    "transformer": lambda layers=2, **given: TransformerDecoder(model_dim=8, layers=layers, heads=2, **given),
}
ENCODERS = {
    "lstm": lambda **given: LSTMEncoder(hidden_dim=6, layers=2, embedding=5, **given),
    "lstm both ways": lambda **given: LSTMEncoder(hidden_dim=6, layers=2, embedding=5, bidirectional=True, **given),
    "transformer": lambda **given: TransformerEncoder(model_dim=8, heads=2, **given),
}
of_decoders = pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
of_encoders = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
of_symbols = pytest.mark.parametrize("symbols", [2, None])


@of_symbols
@pytest.mark.parametrize("context", CONTEXTS)
@of_decoders
def test_probabilities_of_all_images_sum_to_one(decoder, context, symbols):
    ordering = "random" if context == "none" else "natural"
    net, given = built(decoder(ordering=ordering), context, symbols=symbols, scale=2.5), context_of(context)
    assert total(net, given) == pytest.approx(1, abs=1e-10)
    assert masses(net, given).std() > 0.5, "the pixels are near fair coins, so that any network would pass"
    for number in range(0 if given is None else given.shape[1]):
        moved = given.clone()
        moved[:, number] += 1
        assert (masses(net, moved) - masses(net, given)).abs().max() > 1e-3, "a number of the context has no effect"


@of_symbols
@pytest.mark.parametrize("context", ["none", "vector", "map, condition"])
@pytest.mark.parametrize("ordering", ["natural", "random"])
@of_decoders
def test_an_output_sees_all_earlier_inputs_and_nothing_of_itself_and_later_ones(decoder, ordering, context, symbols):
    net = built(decoder(ordering=ordering), context, numbers=2, symbols=symbols)
    assert sees_exactly_the_past(net, context_of(context))


@of_decoders
def test_the_derivative_by_the_input_itself_and_later_ones_is_exactly_zero(decoder):
    found = jacobian(built(decoder(), symbols=None))
    assert not found.tril().any()
    assert found[torch.ones_like(found).triu(1).bool()].abs().min() > 1e-9


@of_symbols
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("ordering", ["natural", "random"])
@of_decoders
def test_from_what_is_carried_along_as_in_one_pass(decoder, ordering, context, symbols):
    net = built(decoder(ordering=ordering), context, numbers=3, symbols=symbols, event=(2, 3, 4))
    assert gap_of_unrolling(net, context) < 1e-12


@pytest.mark.parametrize("context", ["none", "vector, condition", "map"])
@of_decoders
def test_samples_are_those_of_a_pass_for_every_element(decoder, context):
    family, symbols = levels_of()
    given = context_of(context)
    net = built(decoder(ordering="random"), context, event=(2, 3, 3), numbers=symbols, symbols=symbols)
    assert samples_agree(net, given, family=family, levels=symbols)
    assert len(drawn(net, 7, given, family=family, levels=symbols).unique(dim=0)) == 7
    assert samples_agree(built(decoder(), context, event=(2, 3, 3), symbols=None), given)


@pytest.mark.parametrize("context", ["none", "vector", "map"])
@of_decoders
def test_samples_have_the_probabilities_that_are_scored(decoder, context):
    assert abs(sampling_error(built(decoder(), context), context_of(context))) < 5


@of_symbols
@of_decoders
def test_input_dropout_hides_inputs_in_training_only(decoder, symbols):
    net = built(decoder(layers=1, input_dropout=0.5), "vector", symbols=symbols)
    x = images((9,))[::7]
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


@of_decoders
def test_dropout_acts_in_training_only(decoder):
    net = built(decoder(layers=1, dropout=0.5))
    x = images((9,))[:9]
    assert torch.equal(net(x, None, 0), net(x, None, 0))
    net.train()
    assert not torch.equal(net(x, None, 0), net(x, None, 0))


@pytest.mark.parametrize("context", CONTEXTS)
@of_decoders
def test_gradient_reaches_every_parameter(decoder, context):
    net = built(decoder(input_dropout=0.5), context, numbers=2).train()
    torch.manual_seed(1)
    assert parameters_without_gradient(net, images((9,)), context_of(context, 512)) == []


@pytest.mark.parametrize(
    "settings", [LSTMDecoder(hidden_dim=48, embedding=16), TransformerDecoder(model_dim=32, layers=2)]
)
def test_it_learns_all_that_a_source_of_known_entropy_has_to_teach(settings):
    excess, se = learnt(settings, steps=300)
    assert -5 * se < excess < 0.15 + 5 * se, "coins that ignore each other are 4.4 nats off"


@of_decoders
def test_a_context_of_another_size_is_refused(decoder):
    with pytest.raises(ShapeError, match="found none, expected"):
        built(decoder(), "vector")(images((9,)), None, 0)


@of_encoders
def test_an_encoder_tells_orders_apart(encoder):
    h = live(encoder().build((3, 5)))(one_hot_text(TEXT, 3))
    assert (h[0] - h[1]).abs().max() > 1e-2


@of_encoders
def test_an_encoder_sees_nothing_after_the_end_that_it_is_told(encoder):
    for end in (0, -3):
        assert pad_independent(live(encoder(end=end).build((3, 5))))
    assert not pad_independent(live(encoder().build((3, 5))))


@pytest.mark.parametrize("end", [3, -4])
@of_encoders
def test_an_end_that_no_step_can_have_is_refused(encoder, end):
    with pytest.raises(ConfigError, match=rf"encoder\.end={end}: found 3 features a step"):
        encoder(end=end).build((3, 5))


@pytest.mark.parametrize("shape", [(3, 5), (6,), (2, 3, 3)])
@of_encoders
def test_an_encoder_sees_every_input_and_trains_every_parameter(encoder, shape):
    net, x = live(encoder().build(shape, 2)), noise(4, *shape)
    found = torch.autograd.functional.jacobian(lambda v: net(v, noise(4, 2)).sum(0), x)
    assert (found.abs().amax(0) > 0).all()
    assert parameters_without_gradient(net, x, noise(4, 2)) == []
