"""p(x|z) of elements that look at each other: an autoregressive network's numbers made distributions by a family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.autoregressive import Autoregressive
from lambent.errors import CombinationError
from lambent.likelihoods.base import LikelihoodModule, LikelihoodSettings
from lambent.networks.autoregressive.base import AutoregressiveNet
from lambent.shapes import Shapes


class AutoregressiveLikelihoodModule(LikelihoodModule):
    """prod_d p(x_d | x before d, z, c): any family whose elements have one input and P parameters each.

    The network stands where a decoder stands; z and the condition are context that every element sees.
    """

    decoder: AutoregressiveNet

    def __init__(
        self,
        family: LikelihoodSettings,
        network: AutoregressiveNet,
        shapes: Shapes,
        reads: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(family, network, shapes, reads)
        self.element = replace(shapes, event=(1,))
        if family.has_eos(shapes) and not bool((network.order == torch.arange(network.order.shape[1])).all()):
            raise CombinationError(
                "decoder.ordering=random with texts that END closes from left to right; use decoder.ordering=natural, "
                "or data.examples=blocks, which have no END"
            )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Autoregressive:
        """p(x|z) of batch shape (K, B), from z (K, B, latent), latent 0 for none, and a condition (B, c)."""
        z = self.encode_latent(z)
        context = z if condition is None else torch.cat([z, condition.to(z.dtype).expand(*z.shape[:2], -1)], -1)
        return Autoregressive(self, context, self.shapes.event)

    @property
    def orderings(self) -> int:
        """M, the network's orderings."""
        return self.decoder.orderings

    def all(self, x: Tensor, context: Tensor, ordering: int) -> Distribution:
        """p(x_d | x before d) of every element, batch shape ``lead``, for x (*lead, *event)."""
        lead = context.shape[:-1]
        flat = context.reshape(math.prod(lead), context.shape[-1])
        inputs = self._inputs(x, self.shapes).reshape(len(flat), self.decoder.elements)
        numbers = self.decoder(inputs, flat if flat.shape[1] else None, ordering)
        return self.family.distribution(numbers.view(*lead, *self.decoder.out_shape), self.own, self.shapes)

    def one_by_one(self, context: Tensor, ordering: int, choose: Callable[[int, Distribution], Tensor]) -> None:
        """Asks for the values (N,) of each element in order, by p(x_d | x before d) of batch (N,) and event (1,)."""
        before: Tensor | None = None

        def taken(element: int, numbers: Tensor) -> Tensor:
            nonlocal before
            p = self.family.distribution(numbers.unsqueeze(-1), self._own(element), self.element)
            before = choose(element, p if before is None else self.family.given_previous(p, before))
            return self._inputs(before.unsqueeze(1), self.element).squeeze(1)

        self.decoder.unroll(len(context), context if context.shape[1] else None, ordering, taken)

    def _inputs(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as the network wants it: symbols as they are, or numbers of about unit size."""
        return x if self.decoder.embeds else self.family.as_elements(x, shapes)

    def _own(self, element: int) -> Tensor | None:
        """What the family learns for itself about one element."""
        per_element = self.own is not None and self.own.shape == self.shapes.event
        return self.own.flatten()[element : element + 1] if per_element and self.own is not None else self.own
