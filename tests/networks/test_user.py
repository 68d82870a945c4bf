"""A user's own modules on either side, and what building must leave alone."""

import pytest
import torch
from torch import nn

from lambent.errors import ConfigError, ShapeError
from lambent.networks import MLPEncoder, UserDecoder, UserEncoder, as_decoder, as_encoder


class Conditional(nn.Module):
    def __init__(self, inputs, condition, outputs):
        super().__init__()
        self.x, self.c = nn.Linear(inputs, outputs), nn.Linear(condition, outputs)

    def forward(self, x, condition):
        return self.x(x) + self.c(condition)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class BatchLost(nn.Module):
    def forward(self, x):
        return x.sum(0)


class Noisy(nn.Module):
    """Draws from torch's generator and counts its calls in a buffer and an attribute of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.norm(torch.cat((x, x), 1)) + torch.randn(())


def test_features_are_the_flat_output():
    torch.manual_seed(0)
    module = nn.Conv2d(1, 4, 3, stride=2)
    net = UserEncoder(module).build((1, 9, 9))
    x = torch.randn(3, 1, 9, 9)
    assert net.features == 4 * 4 * 4
    assert torch.equal(net(x), module(x).flatten(1))


def test_the_module_itself_is_trained():
    module = nn.Linear(3, 2)
    net = as_encoder(module).build((3,))
    assert {id(p) for p in net.parameters()} == {id(p) for p in module.parameters()}


def test_decoder_output_is_read_parameter_by_parameter():
    module = nn.Linear(2, 24)
    net, z = as_decoder(module).build(2, (2, 3, 2, 2)), torch.randn(5, 2)
    assert torch.equal(net(z)[:, 1], module(z)[:, 12:].view(5, 3, 2, 2))


def test_a_condition_is_the_second_argument():
    torch.manual_seed(0)
    module, x, c = Conditional(3, 2, 4), torch.randn(5, 3), torch.randn(5, 2)
    assert torch.equal(UserEncoder(module).build((3,), 2)(x, c), module(x, c))
    assert torch.equal(UserDecoder(module).build(3, (1, 4), 2)(x, c), module(x, c).view(5, 1, 4))


@pytest.mark.parametrize("training", [True, False])
def test_building_leaves_buffers_mode_and_generator_alone(training):
    module = Noisy().train(training)
    module.norm.eval()
    state = {name: b.clone() for name, b in module.named_buffers()}
    torch.manual_seed(7)
    generator = torch.get_rng_state()
    assert UserEncoder(module).build((1, 4, 4)).features == 2 * 4 * 4
    assert torch.equal(torch.get_rng_state(), generator)
    assert (module.training, module.norm.training) == (training, False)
    assert all(torch.equal(b, state[name]) for name, b in module.named_buffers())
    assert all(p.grad is None for p in module.parameters())


def test_that_check_catches_a_plain_run():
    module = Noisy()
    torch.manual_seed(7)
    generator = torch.get_rng_state()
    module(torch.zeros(2, 1, 4, 4))
    assert module.calls == 1
    assert not torch.equal(torch.get_rng_state(), generator)


def test_batch_norm_and_dropout_need_no_batch_to_be_built():
    module = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.9))
    assert UserEncoder(module).build((2, 2, 2)).features == 4


def test_lazy_layers_learn_their_sizes_when_built():
    net = UserEncoder(nn.Sequential(nn.Flatten(), nn.LazyLinear(5))).build((1, 3, 3))
    assert [tuple(p.shape) for p in net.parameters()] == [(5, 9), (5,)]


def test_double_precision_modules():
    assert UserEncoder(nn.Linear(3, 2).double()).build((3,))(torch.zeros(1, 3).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "out_shape", "message"),
    [
        (
            nn.Linear(2, 17),
            (2, 1, 3, 3),
            r"decoder Linear: found 17 numbers an item \(17,\), expected 18 for .*\(2, 1, 3, 3\)",
        ),
        (
            nn.Sequential(nn.Linear(2, 9), nn.Unflatten(1, (3, 3))),
            (2, 1, 3, 3),
            r"found 9 numbers an item \(3, 3\), expected 18",
        ),
        (BatchLost(), (1, 2), r"found output \(2,\) for 7 items.*keep the batch first"),
        (Pair(), (1, 2), "found an output of type tuple, expected one tensor"),
        (Conditional(2, 2, 2), (1, 2), r"condition.*expected forward\(x\), as the model has no condition"),
    ],
)
def test_wrong_decoders_are_refused_when_built(module, out_shape, message):
    with pytest.raises(ConfigError, match=message):
        UserDecoder(module).build(2, out_shape)


def test_a_module_without_a_condition_in_a_model_with_one():
    with pytest.raises(ConfigError, match=r"encoder Linear: too many positional.*expected forward\(x, condition\)"):
        UserEncoder(nn.Linear(2, 2)).build((2,), 3)


def test_a_module_for_other_data_is_named():
    with pytest.raises(ShapeError, match=r"encoder Linear: mat1 and mat2.* on items of shape \(3,\); build it"):
        UserEncoder(nn.Linear(4, 2)).build((3,))


def test_settings_pass_through():
    settings = MLPEncoder()
    assert as_encoder(settings) is settings
