"""The base class of likelihood settings, and the module that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.data.support import Support
from lambent.networks.base import optional_hook
from lambent.networks.fold import fold
from lambent.settings import Part
from lambent.shapes import Shapes


class LikelihoodSettings(Part, ABC):
    """Settings of a family p(x|z): the data it scores, the decoder's output it needs, and the distribution.

    ``parameters`` tensors are (K, B, *out_shape); ``shared_parameters`` are alike for all examples.
    """

    discrete: ClassVar[bool] = False
    """Whether it gives probabilities, not densities, so that bits/dim can be compared."""

    centre: ClassVar[str] = "mean of p(x|z)"
    """What `lambent.distributions.point_estimate` gives of this family, in words."""

    elementwise: ClassVar[bool] = True
    """Whether every element has one input and as many parameters as the others, so that they can come one by one."""

    @abstractmethod
    def support(self, shapes: Shapes) -> Support:
        """The data that the family can score; other data are refused before training."""

    @abstractmethod
    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Distribution:
        """p(x|z) of batch shape (K, B)."""

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape of the decoder's output: parameters per element, then the event."""
        return (1, *shapes.event)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...] | None:
        """The shape of the parameters shared by all examples; None for no such parameters."""
        return None

    def input_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape of the encoder's input for one example."""
        return shapes.event

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as floats of about unit size, the input of the encoder."""
        return x.float()

    def centred(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as floats of about unit size around 0, one per element, to which a diffusion adds noise."""
        return self.as_input(x, shapes)

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """Parameters (..., *out_shape) at which p(x|noisy) fits ``noisy`` = `centred` x + exp(log_noise) eps.

        By default the first parameter of an element is ``noisy`` (..., *event) and all others are 0.
        """
        params = noisy.new_zeros(*noisy.shape[: noisy.dim() - len(shapes.event)], *self.out_shape(shapes))
        params.select(-1 - len(shapes.event), 0).copy_(noisy)
        return params

    def shared_denoised(self, log_noise: float, shapes: Shapes) -> Tensor | None:
        """Initial values of the shared parameters for a diffusion, (*shared_shape); None for zeros."""
        return None

    def as_elements(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as one float per element, the input of an autoregressive network."""
        return self.as_input(x, shapes)

    def given_previous(self, p: Distribution, before: Tensor) -> Distribution:
        """``p`` of an element (N,), given the value ``before`` (N,) of the element before it."""
        return p

    def has_eos(self, shapes: Shapes) -> bool:
        """Whether an element may end the example, so that only the natural order is possible."""
        return False

    def scored(self, x: Tensor, shapes: Shapes) -> Tensor | None:
        """The number of scored elements of each example ``x`` (N, *event), (N,); None for all elements."""
        return None

    def symbols(self, shapes: Shapes) -> int | None:
        """The number of values 0, 1, ... of an element; None where there are infinitely many."""
        return None

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor | None:
        """The decoder's last bias, (*out_shape), at which p(x) fits the examples ``x`` (N, *event); or None."""
        return None


class LikelihoodModule(nn.Module):
    """p(x|z), or p(x|z,c): a decoder whose output parameterises a family.

    K is folded into the batch here and nowhere else.

    Args:
        family: The family, parameterised by the decoder's output.
        decoder: The network from z to the parameters.
        shapes: Sizes of data, latent and condition.
        reads: Transforms z to the decoder's input; None for the identity.
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
        shape = family.shared_shape(shapes)
        # `own` is the name of the shared parameters in weights files
        self.own = None if shape is None else nn.Parameter(torch.zeros(shape))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) of batch shape (K, B), from z (K, B, latent) and a condition (B, c)."""
        return self.family.distribution(fold(self.decoder, self.encode_latent(z), condition), self.own, self.shapes)

    def encode_latent(self, z: Tensor) -> Tensor:
        """``z`` (K, B, latent) as the decoder's input."""
        return z if self._reads is None else self._reads(z)

    def as_input(self, x: Tensor) -> Tensor:
        """``x`` (B, *event) as the encoder's input."""
        return self.family.as_input(x, self.shapes)

    @property
    def support(self) -> Support:
        """The data that the family can score."""
        return self.family.support(self.shapes)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Sets the decoder's last bias so that training starts from the best z-blind fit to ``x``."""
        find = optional_hook(self.decoder, "output_bias")
        bias = None if find is None else find()
        fitted = self.family.initial_bias(x, self.shapes)
        if bias is None or fitted is None:
            return
        if bias.numel() == fitted.numel():
            bias.copy_(fitted.reshape(bias.shape))
        else:  # convolutions share one bias per channel, recurrent networks one per symbol
            shared = fitted.reshape(bias.numel(), -1).mean(1)
            bias.copy_(shared.reshape(bias.shape))
