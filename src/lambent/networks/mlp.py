"""Fully connected encoders and decoders, for data of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from lambent.networks.activations import ACTIVATIONS, activation, initialise, output_gain
from lambent.networks.base import DecoderModule, DecoderSettings, EncoderModule, EncoderSettings, flat_items, join
from lambent.settings import option, part


def affine(inputs: int, outputs: int, followed_by: str = "identity", *, gain: float = 1.0) -> nn.Linear:
    """An affine map, initialised for the activation that follows it."""
    layer = nn.Linear(inputs, outputs)
    initialise(layer, followed_by, gain=gain)
    return layer


def _hidden_layers(inputs: int, hidden: tuple[int, ...], name: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((inputs, *hidden)):
        layers += [affine(fan_in, fan_out, name), activation(name)]
    return layers


class MLPEncoderModule(EncoderModule):
    """Affine maps, each followed by an activation; the features are the last layer's (the input's, without layers)."""

    def __init__(self, in_shape: tuple[int, ...], hidden: tuple[int, ...], name: str, condition: int) -> None:
        super().__init__()
        self.inputs, self.condition = prod(in_shape), condition
        width = self.inputs + condition
        self.layers = nn.Sequential(*_hidden_layers(width, hidden, name))
        self.features = hidden[-1] if hidden else width

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features (N, features) of x (N, *in_shape)."""
        return self.layers(join(flat_items(x, self.inputs), condition, self.condition))


class MLPDecoderModule(DecoderModule):
    """Affine maps with activations between them, the last one affine to P numbers an element."""

    def __init__(
        self, latent: int, out_shape: tuple[int, ...], hidden: tuple[int, ...], name: str, condition: int
    ) -> None:
        super().__init__()
        self.latent, self.out_shape, self.condition = latent, tuple(out_shape), condition
        width = latent + condition
        self.layers = nn.Sequential(*_hidden_layers(width, hidden, name))
        self.output = affine(hidden[-1] if hidden else width, prod(out_shape), gain=output_gain(name))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Parameters (N, P, *event) from z (N, latent)."""
        flat = self.output(self.layers(join(flat_items(z, self.latent), condition, self.condition)))
        return flat.view(-1, *self.out_shape)

    @property
    def affine(self) -> nn.Linear | None:
        """The one affine map that the network is, if it has no hidden layer."""
        return None if len(self.layers) else self.output

    def output_bias(self) -> nn.Parameter | None:
        """The last affine map's bias, viewable as (P, *event)."""
        return self.output.bias


@part("encoder", "mlp")
@dataclass(frozen=True)
class MLPEncoder(EncoderSettings):
    """A fully connected encoder; a condition enters beside the flat input.

    >>> net = MLPEncoder(hidden=(200, 200), activation="tanh").build((1, 28, 28))
    >>> net.features, sum(p.numel() for p in net.parameters())
    (200, 197200)
    """

    hidden: tuple[int, ...] = option((400,), "width of each hidden layer, first to last", minimum=1)
    activation: str = option("elu", "activation after each hidden layer", choices=ACTIVATIONS)

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The encoder of items of shape ``in_shape``, with a condition of ``condition`` numbers (0: none)."""
        return MLPEncoderModule(in_shape, self.hidden, self.activation, condition)


@part("decoder", "mlp")
@dataclass(frozen=True)
class MLPDecoder(DecoderSettings):
    """A fully connected decoder; a condition enters beside the latent.

    >>> net = MLPDecoder(hidden=(200, 200), activation="tanh").build(50, (1, 1, 28, 28))
    >>> sum(p.numel() for p in net.parameters())
    207984
    """

    hidden: tuple[int, ...] = option((400,), "width of each hidden layer, from the latent to the data", minimum=1)
    activation: str = option("elu", "activation after each hidden layer", choices=ACTIVATIONS)

    def build(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> DecoderModule:
        """The decoder from ``latent`` numbers to ``out_shape`` = (P, *event)."""
        return MLPDecoderModule(latent, out_shape, self.hidden, self.activation, condition)


@part("encoder", "linear")
@dataclass(frozen=True)
class LinearEncoder(EncoderSettings):
    """No hidden layer: the features are the flat input itself, so the posterior's affine head is the only map."""

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The encoder of items of shape ``in_shape``: the flat input, its condition beside it."""
        return MLPEncoderModule(in_shape, (), "identity", condition)


@part("decoder", "linear")
@dataclass(frozen=True)
class LinearDecoder(DecoderSettings):
    """One affine map from the latent (and condition) to the parameters."""

    def build(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> DecoderModule:
        """The decoder from ``latent`` numbers to ``out_shape`` = (P, *event)."""
        return MLPDecoderModule(latent, out_shape, (), "identity", condition)
