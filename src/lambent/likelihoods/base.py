"""What a likelihood's settings promise, and the module they all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.data.support import Support
from lambent.networks.fold import fold
from lambent.settings import Part
from lambent.shapes import Shapes


class LikelihoodSettings(Part, ABC):
    """Settings of a family p(x|z): what it scores, the numbers it needs, and the distribution they make.

    ``parameters`` tensors are (K, B, *out_shape); ``own`` is what the family learns without the decoder.
    """

    discrete: ClassVar[bool] = False
    """Whether it gives probabilities, so that bits/dim mean something."""

    centre: ClassVar[str] = "mean of p(x|z)"
    """What `lambent.distributions.point_estimate` gives of it, in words."""

    elementwise: ClassVar[bool] = True
    """Whether every element has one input and as many parameters as the others, so that they can come one by one."""

    @abstractmethod
    def support(self, shapes: Shapes) -> Support:
        """The data it scores; anything else is refused before training."""

    @abstractmethod
    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Distribution:
        """p(x|z) of batch shape (K, B)."""

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """What the decoder gives: numbers per element, then the event."""
        return (1, *shapes.event)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...] | None:
        """Parameters it learns beside the decoder's numbers."""
        return None

    def input_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """What the encoder sees of one example."""
        return shapes.event

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as floats of about unit size for the encoder."""
        return x.float()

    def centred(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as floats of about unit size around 0, an element each, for a diffusion to add noise to."""
        return self.as_input(x, shapes)

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """Numbers (..., *out_shape) at which p(x|noisy) fits ``noisy`` = `centred` x + exp(log_noise) eps.

        Without a better way the first number is ``noisy`` (..., *event) itself and all others are 0.
        """
        numbers = noisy.new_zeros(*noisy.shape[: noisy.dim() - len(shapes.event)], *self.out_shape(shapes))
        numbers.select(-1 - len(shapes.event), 0).copy_(noisy)
        return numbers

    def shared_denoised(self, log_noise: float, shapes: Shapes) -> Tensor | None:
        """What the family learns beside the decoder's numbers, (*shared_shape), where it starts so; None for zeros."""
        return None

    def as_elements(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as one float an element, for networks that go element by element."""
        return self.as_input(x, shapes)

    def given_previous(self, p: Distribution, before: Tensor) -> Distribution:
        """``p`` of an element (N,) in the light of the value ``before`` (N,) of the one before it."""
        return p

    def has_eos(self, shapes: Shapes) -> bool:
        """Whether an element closes those on its right, so that they can only come in natural order."""
        return False

    def scored(self, x: Tensor, shapes: Shapes) -> Tensor | None:
        """How many elements of each example ``x`` (N, *event) are scored, (N,); None for all."""
        return None

    def symbols(self, shapes: Shapes) -> int | None:
        """How many values 0, 1, ... an element takes, where they are finitely many."""
        return None

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor | None:
        """The decoder's last bias, (*out_shape), at which p(x|z) fits the examples ``x`` (N, *event) without z."""
        return None


class LikelihoodModule(nn.Module):
    """p(x|z), or p(x|z,c): a decoder's numbers made a distribution by a family.

    K is folded into the batch here and nowhere else.

    Args:
        family: p of an example, given the decoder's numbers.
        decoder: From z to these.
        shapes: The sizes.
        reads: Brings z to the unit in which the decoder wants it, where that is another.
    """

    def __init__(
        self,
        family: LikelihoodSettings,
        decoder: nn.Module,
        shapes: Shapes,
        reads: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.family, self.decoder, self.shapes, self._reads = family, decoder, shapes, reads
        shared_parameters = family.shared_shape(shapes)
        self.own = None if shared_parameters is None else nn.Parameter(torch.zeros(shared_parameters))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) of batch shape (K, B), from z (K, B, latent) and a condition (B, c)."""
        return self.family.distribution(fold(self.decoder, self.encode_latent(z), condition), self.own, self.shapes)

    def encode_latent(self, z: Tensor) -> Tensor:
        """``z`` as the decoder wants it."""
        return z if self._reads is None else self._reads(z)

    def as_input(self, x: Tensor) -> Tensor:
        """``x`` as the encoder wants it."""
        return self.family.as_input(x, self.shapes)

    @property
    def support(self) -> Support:
        """The data it scores."""
        return self.family.support(self.shapes)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets the decoder's last bias so that training starts from the best z-blind fit to ``x``."""
        find = getattr(self.decoder, "output_bias", None)
        bias = None if find is None else find()
        fitted = self.family.initial_bias(x, self.shapes)
        if bias is None or fitted is None:
            return
        if bias.numel() == fitted.numel():
            bias.copy_(fitted.reshape(bias.shape))
        else:  # convolutions share one bias per channel, recurrent networks one per symbol
            shared = fitted.reshape(bias.numel(), -1).mean(1)
            bias.copy_(shared.reshape(bias.shape))
