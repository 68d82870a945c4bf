"""Fully connected networks against counts from the literature and a computation in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from lambent.errors import ConfigError
from lambent.networks import LinearDecoder, LinearEncoder, MLPDecoder, MLPEncoder, affine
from lambent.networks.activations import activation
from lambent.settings import build


def count(*nets):
    return sum(p.numel() for net in nets for p in net.parameters())


def test_the_network_of_burda_et_al_has_its_parameters():
    encoder = MLPEncoder(hidden=(200, 200), activation="tanh").build((1, 28, 28))
    heads = affine(encoder.features, 50), affine(encoder.features, 50)
    decoder = MLPDecoder(hidden=(200, 200), activation="tanh").build(50, (1, 1, 28, 28))
    assert count(encoder) == (784 + 1) * 200 + 201 * 200
    assert count(decoder) == 51 * 200 + 201 * 200 + 201 * 784
    assert count(encoder, *heads, decoder) == 425_284


def test_a_condition_costs_its_columns_and_nothing_without():
    for hidden in ((5, 4), (3,)):
        with_, without = MLPEncoder(hidden).build((7,), 3), MLPEncoder(hidden).build((7,))
        assert count(with_) - count(without) == 3 * hidden[0]
        with_, without = MLPDecoder(hidden).build(2, (1, 7), 3), MLPDecoder(hidden).build(2, (1, 7))
        assert count(with_) - count(without) == 3 * hidden[0]


def test_linear_parts_are_one_affine_map_together():
    encoder = LinearEncoder().build((2, 3))
    assert (encoder.features, count(encoder)) == (6, 0)
    assert count(LinearDecoder().build(2, (1, 2, 3))) == 2 * 6 + 6
    x = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(encoder(x), x.view(2, 6))


NUMPY = {
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
    "silu": lambda a: a / (1 + np.exp(-a)),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "softplus": lambda a: np.logaddexp(0, a),
    "leaky-relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "identity": lambda a: a,
}


@pytest.mark.parametrize("name", NUMPY)
def test_against_numpy(name):
    torch.manual_seed(0)
    net = MLPDecoder((6, 5), name).build(3, (2, 1, 2, 2), 2).double()
    z, c = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in net.modules() if isinstance(m, nn.Linear)]
    h = np.concatenate([z.numpy(), c.numpy()], 1)
    for weight, bias in layers[:-1]:
        h = NUMPY[name](h @ weight.T + bias)
    expected = (h @ layers[-1][0].T + layers[-1][1]).reshape(4, 2, 1, 2, 2)
    np.testing.assert_allclose(net(z, c).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def depth_gain(name, net):
    """Mean square of the last layer's features over the first's, for unit normal input."""
    x = torch.randn(2000, 300, generator=torch.Generator().manual_seed(1))
    sizes = []
    with torch.no_grad():
        for layer in net.layers:
            x = layer(x)
            sizes.append(x.square().mean().item())
    return sizes[-1] / sizes[1]


@pytest.mark.parametrize("name", ["relu", "leaky-relu", "identity"])
def test_initial_weights_keep_the_signal_through_ten_layers(name):
    torch.manual_seed(0)
    net = MLPEncoder((300,) * 10, name).build((300,))
    assert 0.5 < depth_gain(name, net) < 2


def test_signal_check_catches_weights_for_another_activation():
    torch.manual_seed(0)
    net = MLPEncoder((300,) * 10, "relu").build((300,))
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    assert depth_gain("relu", net) < 0.01


def test_biases_start_at_zero():
    net = MLPDecoder((4, 4)).build(2, (1, 5), 3)
    assert all(not m.bias.any() for m in net.modules() if isinstance(m, nn.Linear))


def test_settings_are_read_strictly():
    assert build(MLPEncoder, {"hidden": [3, 2], "activation": "gelu"}, "encoder") == MLPEncoder((3, 2), "gelu")
    for values in ({"hidden": [0]}, {"activation": "rely"}, {"hiden": [3]}, {"hidden": 2.5}):
        with pytest.raises(ConfigError, match=r"encoder\."):
            build(MLPEncoder, values, "encoder")
    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        activation("tahn")
