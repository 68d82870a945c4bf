"""Activations by name, and the initialisation that suits each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.settings import nearest

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


def initialise(weight: Tensor, bias: Tensor | None, followed_by: str) -> None:
    """Fill a layer's weight, and zero its bias, for the activation that follows it.

    Kaiming (He et al. 2015, eq. 10: variance 2 / fan in) before units of the ReLU kind; Xavier (Glorot & Bengio 2010,
    eq. 16: uniform of variance 2 / (fan in + fan out)) before tanh, softplus and outputs.
    """
    if followed_by in _HALVING:
        nn.init.kaiming_uniform_(weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(weight)
    if bias is not None:
        nn.init.zeros_(bias)
