"""The convolutional ladder: exact sizes both ways, nothing tied to one size, residual blocks that start as identity."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from lambent.errors import ConfigError
from lambent.networks import ConvDecoder, ConvEncoder
from lambent.networks.conv import ResidualBlock, Stage, size_ladder

IMAGES = [(1, 28, 28), (3, 32, 32), (1, 7, 5), (4, 33, 17), (1, 1, 1), (2, 1, 9), (1, 8, 8), (1, 5, 64)]


def level_sizes(net, x):
    """(height, width) that each level of a network puts out for ``x``."""
    sizes = []
    hooks = [lv.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[2:]))) for lv in net.levels]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return sizes


@pytest.mark.parametrize("height", range(1, 40))
def test_ladder_halves_exactly_until_small(height):
    for width in (1, 4, 5, 28, 39):
        sizes = size_ladder(height, width, smallest=4)
        for (h, w), (h2, w2) in pairwise(sizes):
            assert (h2, w2) == (math.ceil(h / 2), math.ceil(w / 2))
            assert max(h, w) > 4
        assert sizes[0] == (height, width)
        assert max(sizes[-1]) <= 4


@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_the_decoder_goes_back_through_the_encoders_sizes(shape):
    encoder = ConvEncoder((2, 3), 0).build(shape)
    decoder = ConvDecoder((2, 3), 0).build(3, (2, *shape))
    down, up = level_sizes(encoder, torch.zeros(2, *shape)), level_sizes(decoder, torch.zeros(2, 3))
    ladder = size_ladder(*shape[1:], smallest=4)
    assert down == (ladder[1:] or ladder)
    assert up == down[::-1]
    assert decoder(torch.zeros(2, 3)).shape == (2, 2, *shape)


@pytest.mark.parametrize("smallest", [1, 2, 8, 100])
def test_where_halving_stops_is_a_setting(smallest):
    encoder = ConvEncoder((2,), 0, smallest=smallest).build((1, 13, 6))
    h, w = size_ladder(13, 6, smallest)[-1]
    assert encoder.features == 2 * h * w
    assert ConvDecoder((2,), 0, smallest=smallest).build(3, (1, 1, 13, 6))(torch.zeros(1, 3)).shape[2:] == (1, 13, 6)


def test_channels_are_used_in_order_and_the_last_repeats():
    encoder = ConvEncoder((2, 5), 0, smallest=1).build((1, 8, 8))
    assert [level.entry.out_channels for level in encoder.levels] == [2, 5, 5]
    decoder = ConvDecoder((2, 5), 0, smallest=1).build(3, (1, 1, 8, 8))
    assert [m.out_channels for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)] == [5, 2, 1]


def test_parameter_counts():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    block = 2 * (4 * 4 * 9 + 4)
    assert count(ConvEncoder((4,), 2).build((3, 8, 8))) == (3 * 4 * 9 + 4) + 2 * block
    first, output, bias = (5 + 1) * 4 * 16, 4 * 3 * 25, 3 * 8 * 8
    assert count(ConvDecoder((4,), 2).build(5, (1, 3, 8, 8))) == first + 2 * block + output + bias


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "softplus"])
def test_blocks_start_as_the_identity_and_are_not_stuck_there(activation):
    torch.manual_seed(0)
    block, h = ResidualBlock(3, activation), torch.randn(2, 3, 5, 4)
    assert torch.equal(block(h), h)
    block(h).square().sum().backward()
    with torch.no_grad():
        for p in block.parameters():
            p -= 0.01 * p.grad
    assert not torch.allclose(block(h), h, atol=1e-3)


def test_blocks_compute_the_residual_of_two_convolutions():
    torch.manual_seed(0)
    block, h = ResidualBlock(2, "tanh").double(), torch.randn(1, 2, 4, 3, dtype=torch.float64)
    nn.init.normal_(block.last.weight)

    def convolve(layer, x):  # term by term, over the zero-padded image
        padded = torch.zeros(2, 6, 5, dtype=x.dtype)
        padded[:, 1:-1, 1:-1] = x[0]
        out = [[(padded[:, i : i + 3, j : j + 3] * w).sum() for i in range(4) for j in range(3)] for w in layer.weight]
        return torch.stack([torch.stack(o).view(4, 3) for o in out])[None] + layer.bias.view(1, -1, 1, 1)

    expected = h + convolve(block.last, convolve(block.first, h.tanh()).tanh())
    torch.testing.assert_close(block(h), expected, rtol=1e-12, atol=1e-12)


def test_a_condition_scales_and_shifts_each_channel():
    torch.manual_seed(0)
    level = Stage(nn.Identity(), 3, 0, "relu", condition=2).double()
    h, c = torch.randn(4, 3, 5, 5, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    numbers = c @ level.modulation.weight.T + level.modulation.bias
    for channel in range(3):
        scale, shift = numbers[:, channel], numbers[:, 3 + channel]
        expected = h[:, channel] * (1 + scale)[:, None, None] + shift[:, None, None]
        torch.testing.assert_close(level(h, c)[:, channel], expected, rtol=1e-12, atol=1e-12)


def test_images_without_a_channel_dimension():
    encoder, decoder = ConvEncoder((3,)).build((8, 8)), ConvDecoder((3,)).build(2, (4, 8, 8))
    assert encoder(torch.zeros(2, 8, 8)).shape == (2, encoder.features)
    assert decoder(torch.zeros(2, 2)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("shape", [(64,), (1, 2, 3, 4), (1, 0, 5)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ConfigError, match=r"expected \(channels, height, width\); use 'mlp'"):
        ConvEncoder().build(shape)
    with pytest.raises(ConfigError, match=r"use 'mlp'"):
        ConvDecoder().build(2, (1, *shape))


def test_no_channels_are_refused():
    with pytest.raises(ConfigError, match="channels is empty"):
        ConvEncoder(channels=()).build((1, 8, 8))


@pytest.mark.parametrize("batch", [1, 3])
def test_weights_keep_torchs_plain_layout(batch):
    """The optimiser's state is saved and restored in plain layout; a fused step needs the weights in the same."""
    net = ConvEncoder((3, 4)).build((3, 16, 16))
    net(torch.randn(batch, 3, 16, 16)).sum().backward()
    assert all(p.is_contiguous() and p.grad.is_contiguous() for p in net.parameters())


def level_sizes_of_signal(decoder):
    """Mean square of each level's output, for unit normal latents."""
    found = []
    hooks = [
        lv.register_forward_hook(lambda m, i, out: found.append(out.square().mean().item())) for lv in decoder.levels
    ]
    with torch.no_grad():
        decoder(torch.randn(200, 50, generator=torch.Generator().manual_seed(1)))
    for hook in hooks:
        hook.remove()
    return found


def test_initial_weights_keep_the_signal_up_the_ladder():
    torch.manual_seed(0)
    signal = level_sizes_of_signal(ConvDecoder((32,), 1, "relu").build(50, (1, 1, 64, 64)))
    assert len(signal) == 4
    assert signal[1:] == pytest.approx([1.0] * 3, rel=0.5)


def test_signal_check_catches_torchs_count_for_transposed_layers():
    torch.manual_seed(0)
    decoder = ConvDecoder((16, 32, 64), 1, "relu").build(50, (1, 1, 64, 64))
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    assert level_sizes_of_signal(decoder)[-1] < 0.2
