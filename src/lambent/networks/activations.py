"""Activations by name, and the initialisation that suits each."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod

from torch import nn

from lambent.errors import ConfigError
from lambent.settings import nearest

Affine = nn.Linear | nn.Conv2d | nn.ConvTranspose2d

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "leaky-relu": nn.LeakyReLU,
    "identity": nn.Identity,
}
# Units that pass about half of the variance on; the others keep it near the origin.
_HALVING = frozenset({"relu", "silu", "gelu", "elu", "leaky-relu"})


def activation(name: str) -> nn.Module:
    """The activation ``name``.

    Raises:
        ConfigError: a name that isn't known.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ConfigError(f"activation={name!r} is not known{nearest(name, ACTIVATIONS)}; known: {known}")
    return ACTIVATIONS[name]()


def initialise(layer: Affine, followed_by: str, *, gain: float = 1.0) -> None:
    """Fill a layer's weight, and zero its bias, for the activation that follows it.

    Kaiming (He et al. 2015, eq. 10: variance 2 / fan in) before units of the ReLU kind; Xavier (Glorot & Bengio 2010,
    eq. 16: variance 2 / (fan in + fan out)) before tanh, softplus and outputs. Uniform, times ``gain``.
    """
    fan_in, fan_out = _fans(layer)
    variance = 2 / fan_in if followed_by in _HALVING else 2 / (fan_in + fan_out)
    bound = gain * math.sqrt(3 * variance)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def output_gain(hidden: str) -> float:
    """How small the weights of a decoder's last layer start, after hidden units of the kind ``hidden``.

    At full size the noise of z moves the parameters of p(x|z) so much that the first hundred steps teach the decoder
    to ignore it, and units that can die do. Bounded units don't need it, and learn sooner without.
    """
    return 0.1 if hidden in _HALVING else 1.0


def _fans(layer: Affine) -> tuple[float, float]:
    """Terms in the sum of an output, and in that of an input's gradient (which torch miscounts for transposed ones)."""
    weight = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):
        return weight[:, 0].numel() / prod(layer.stride), weight[0].numel()
    if isinstance(layer, nn.Conv2d):
        return weight[0].numel(), weight[:, 0].numel() / prod(layer.stride)
    return weight.shape[1], weight.shape[0]
