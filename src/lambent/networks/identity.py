"""Networks that do nothing: an encoder that sees nothing, and a decoder that is the identity."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor

from lambent.errors import ConfigError
from lambent.networks.base import DecoderModule, DecoderSettings, EncoderModule, EncoderSettings, checked, flat_items
from lambent.settings import part


class ConstantEncoderModule(EncoderModule):
    """No features of x at all: what is learnt behind it is the same for every example."""

    features = 0

    def __init__(self, condition: int) -> None:
        super().__init__()
        self.condition = condition

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, 0), whatever x (N, *in_shape)."""
        checked(condition, len(x), self.condition)
        return x.new_zeros(len(x), 0)


class IdentityDecoderModule(DecoderModule):
    """The latent itself as the one parameter of each element."""

    def __init__(self, latent: int, out_shape: tuple[int, ...], condition: int) -> None:
        super().__init__()
        numbers = prod(out_shape)
        if latent != numbers:
            raise ConfigError(
                f"decoder=identity: latent={latent} for {numbers} numbers of an example; use latent={numbers}"
            )
        self.latent, self.out_shape, self.condition = latent, tuple(out_shape), condition

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Z (N, latent) in the shape (N, P, *event)."""
        checked(condition, len(z), self.condition)
        return flat_items(z, self.latent).view(-1, *self.out_shape)


@part("encoder", "constant")
@dataclass(frozen=True)
class ConstantEncoder(EncoderSettings):
    """No features, so that q(z|x) is one distribution for every x: its affine head is a bias alone, which starts at 0.

    >>> import torch
    >>> ConstantEncoder().build((2,))(torch.ones(5, 2)).shape
    torch.Size([5, 0])
    """

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The encoder of anything."""
        return ConstantEncoderModule(condition)


@part("decoder", "identity")
@dataclass(frozen=True)
class IdentityDecoder(DecoderSettings):
    """The latent is the mean: needs as many latents as an example has numbers, and learns nothing.

    Raises:
        ConfigError: another number of latents.
    """

    def build(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> DecoderModule:
        """The decoder from ``latent`` numbers to ``out_shape`` = (P, *event)."""
        return IdentityDecoderModule(latent, out_shape, condition)
