"""What every encoder and decoder promises, over shapes, conditions and activations; with the faults it catches."""

import pytest
import torch
from torch import nn

from lambent.errors import ShapeError
from lambent.networks import (
    ConvDecoder,
    ConvEncoder,
    DecoderModule,
    EncoderModule,
    LinearDecoder,
    LinearEncoder,
    MLPDecoder,
    MLPEncoder,
    UserDecoder,
    UserEncoder,
)
from lambent.settings import registry
from support.networks import live

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 7, 5), (4, 33, 17), (1, 1, 1), (2, 1, 9)]
ENCODERS = {
    "mlp": MLPEncoder(hidden=(7, 6), activation="elu"),
    "linear": LinearEncoder(),
    "conv": ConvEncoder(channels=(4, 6), blocks=1, activation="elu"),
}
DECODERS = {
    "mlp": MLPDecoder(hidden=(6, 7), activation="elu"),
    "linear": LinearDecoder(),
    "conv": ConvDecoder(channels=(4, 6), blocks=1, activation="elu"),
}
LATENT, PARAMETERS = 3, 2
pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def encoder(name, shape, condition=0):
    torch.manual_seed(0)
    return live(ENCODERS[name].build(shape, condition))


def decoder(name, shape, condition=0):
    torch.manual_seed(0)
    return live(DECODERS[name].build(LATENT, (PARAMETERS, *shape), condition))


def normal(*shape, seed=2, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both_sides(name, shape, condition):
    """The encoder and the decoder of a name, each with an input and a condition for 5 items."""
    c = normal(5, condition, seed=3) if condition else None
    yield encoder(name, shape, condition), normal(5, *shape), c
    yield decoder(name, shape, condition), normal(5, LATENT), c


def parameters_without_gradient(net, x, condition):
    out = net(x, condition)
    (out * normal(*out.shape, seed=4)).sum().backward()
    return [n for n, p in net.named_parameters() if p.grad is None or not (p.grad != 0).any()]


def worst_difference_by_item(net, x, condition):
    """Largest difference between an item computed in its batch and alone, relative to the batch's largest value."""
    with torch.no_grad():
        together = net(x, condition)
        alone = [net(x[i : i + 1], None if condition is None else condition[i : i + 1]) for i in range(len(x))]
        backwards = net(x.flip(0), None if condition is None else condition.flip(0)).flip(0)
    largest = together.abs().max()
    return max(((other - together).abs().max() / largest).item() for other in (torch.cat(alone), backwards))


def blind_inputs(net, x, condition):
    """Numbers of an input item on which the item's output does not depend."""
    x = x.clone().requires_grad_()
    out = net(x, condition)
    (out * normal(*out.shape, seed=4, dtype=out.dtype)).sum().backward()
    return int((x.grad == 0).sum())


def untouched_outputs(net, z):
    """Pairs (latent, output element) where moving the latent doesn't move the element, at one z."""
    columns = torch.func.jacfwd(lambda v: net(v[None])[0])(z[0])
    return int((columns == 0).sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_shapes_and_declared_features(name, shape):
    enc, dec = encoder(name, shape), decoder(name, shape)
    assert isinstance(enc, EncoderModule)
    assert isinstance(dec, DecoderModule)
    assert enc(normal(4, *shape)).shape == (4, enc.features)
    assert dec(normal(4, LATENT)).shape == (4, PARAMETERS, *shape)
    assert enc(normal(0, *shape)).shape == (0, enc.features)
    assert dec(normal(0, LATENT)).shape == (0, PARAMETERS, *shape)


@pytest.mark.parametrize("condition", [0, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter(name, shape, condition):
    for net, x, c in both_sides(name, shape, condition):
        if not any(True for _ in net.parameters()):
            continue  # the linear encoder is all in its posterior's head
        assert parameters_without_gradient(net, x, c) == []


def test_gradient_check_catches_an_unused_layer():
    net = MLPEncoder(hidden=(4,)).build((3,))
    net.forgotten = nn.Linear(2, 2)
    assert parameters_without_gradient(net, normal(5, 3), None) == ["forgotten.weight", "forgotten.bias"]


@pytest.mark.parametrize("condition", [0, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_item_does_not_depend_on_its_batch(name, shape, condition):
    for net, x, c in both_sides(name, shape, condition):
        assert worst_difference_by_item(net, x, c) < 1e-5


def test_item_check_catches_batch_statistics():
    normed = UserEncoder(nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))).build((9,))
    normed.eval()
    assert worst_difference_by_item(normed, normal(5, 9), None) < 1e-5
    normed.train()

    def pairs(x, condition=None):  # batch norm refuses a batch of one; two copies are its nearest kin
        return normed(x if len(x) > 1 else x.repeat(2, 1))[: len(x)]

    assert worst_difference_by_item(pairs, normal(5, 9), None) > 1e-2


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ENCODERS)
def test_everything_seen_and_everything_reached(name, shape, trained):
    torch.manual_seed(5)
    enc = ENCODERS[name].build(shape).double()
    dec = DECODERS[name].build(LATENT, (PARAMETERS, *shape)).double()
    if trained:
        enc, dec = live(enc), live(dec)
    assert blind_inputs(enc, normal(2, *shape, dtype=torch.float64), None) == 0
    assert untouched_outputs(dec, normal(1, LATENT, dtype=torch.float64)) == 0


def test_influence_checks_catch_a_blind_pixel_and_a_dead_latent():
    enc = UserEncoder(nn.Conv2d(1, 2, 3, stride=2)).build((1, 6, 6))  # no padding: the last row and column are lost
    assert blind_inputs(enc, normal(2, 1, 6, 6), None) == 2 * 11
    dec = LinearDecoder().build(2, (1, 4))
    with torch.no_grad():
        dec.output.weight[:, 1] = 0
    assert untouched_outputs(dec, normal(1, 2)) == 4


@pytest.mark.parametrize("size", [1e-6, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu", "gelu", "elu", "softplus", "leaky-relu", "identity"])
def test_finite_at_any_input_size(activation, size):
    nets = [
        (MLPEncoder((8, 8), activation).build((1, 9, 6)), normal(3, 1, 9, 6)),
        (ConvEncoder((3,), 2, activation).build((1, 9, 6)), normal(3, 1, 9, 6)),
        (MLPDecoder((8, 8), activation).build(LATENT, (2, 1, 9, 6)), normal(3, LATENT)),
        (ConvDecoder((3,), 2, activation).build(LATENT, (2, 1, 9, 6)), normal(3, LATENT)),
    ]
    for net, x in nets:
        out = live(net)(size * x)
        out.mean().backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_weights_follow_from_the_seed(name):
    def weights(seed):
        torch.manual_seed(seed)
        nets = ENCODERS[name].build((1, 9, 6), 2), DECODERS[name].build(LATENT, (2, 1, 9, 6), 2)
        return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("name", ENCODERS)
def test_condition_moves_the_output_and_only_its_own_item(name):
    for net, x, c in both_sides(name, (1, 7, 5), 3):
        with torch.no_grad():
            before = net(x, c)
            moved = c.clone()
            moved[2] += 1
            after = net(x, moved)
        changed = (after - before).abs().flatten(1).amax(1) > 1e-4
        assert changed.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("given", [None, (5, 2), (4, 3), (5, 3, 1)])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_wrong_condition_is_refused(name, given):
    for net, x, _ in both_sides(name, (1, 7, 5), 3):
        with pytest.raises(ShapeError, match=r"condition of a network: found .*expected \(5, 3\)"):
            net(x, None if given is None else normal(*given))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_unasked_condition_is_refused(name):
    for net, x, _ in both_sides(name, (1, 7, 5), 0):
        with pytest.raises(ShapeError, match="expected none"):
            net(x, normal(5, 3))


@pytest.mark.parametrize("name", ENCODERS)
def test_items_of_another_size_are_refused(name):
    for net, x, _ in both_sides(name, (1, 7, 5), 0):
        with pytest.raises(ShapeError, match="found items of shape"):
            net(torch.cat((x, x), 1))


@pytest.mark.parametrize("name", ENCODERS)
def test_inputs_are_left_as_they_were(name):
    for net, x, c in both_sides(name, (2, 7, 5), 3):
        kept = x.clone(), c.clone()
        net(x, c)
        assert torch.equal(x, kept[0])
        assert torch.equal(c, kept[1])


@pytest.mark.parametrize("name", ENCODERS)
def test_flat_items_give_what_shaped_items_give(name):
    net, x = encoder(name, (2, 7, 5)), normal(4, 2, 7, 5)
    assert torch.equal(net(x), net(x.flatten(1)))


@pytest.mark.parametrize("name", DECODERS)
def test_output_bias_is_added_last_to_every_element(name):
    net, z = decoder(name, (2, 7, 5)).double(), normal(4, LATENT, dtype=torch.float64)
    bias, shift = net.output_bias(), normal(PARAMETERS, 2, 7, 5, seed=6, dtype=torch.float64)
    with torch.no_grad():
        before = net(z)
        bias += shift.view_as(bias)
        torch.testing.assert_close(net(z), before + shift, rtol=1e-12, atol=1e-12)


def test_registered_names():
    for kind, known in (("encoder", ENCODERS), ("decoder", DECODERS)):
        assert {name: registry.find(kind, name) for name in known} == {name: type(s) for name, s in known.items()}


def test_a_users_module_has_no_bias_to_initialise():
    assert UserDecoder(nn.Linear(2, 4)).build(2, (1, 4)).output_bias() is None
