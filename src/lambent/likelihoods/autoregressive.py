"""Autoregressive likelihoods p(x|z): a network in order over the elements, and a family for each element."""

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

    The network takes the place of the decoder; z and the condition are the context of every element.
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
                "decoder.ordering=random with texts that end at EOS; use decoder.ordering=natural, "
                "or data.examples=blocks, which have no EOS"
            )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Autoregressive:
        """p(x|z) of batch shape (K, B), from z (K, B, latent), latent 0 for none, and a condition (B, c)."""
        z = self.encode_latent(z)
        context = z if condition is None else torch.cat([z, condition.to(z.dtype).expand(*z.shape[:2], -1)], -1)
        return Autoregressive(self, context, self.shapes.event)

    @property
    def orderings(self) -> int:
        """M, the number of the network's orderings."""
        return self.decoder.orderings

    def all(self, x: Tensor, context: Tensor, ordering: int) -> Distribution:
        """p(x_d | x before d) of every element, batch shape ``lead``, for x (*lead, *event)."""
        lead = context.shape[:-1]
        flat = context.reshape(math.prod(lead), context.shape[-1])
        inputs = self._inputs(x, self.shapes).reshape(len(flat), self.decoder.elements)
        params = self.decoder(inputs, flat if flat.shape[1] else None, ordering)
        return self.family.distribution(params.view(*lead, *self.decoder.out_shape), self.own, self.shapes)

    def one_by_one(self, context: Tensor, ordering: int, choose: Callable[[int, Distribution], Tensor]) -> None:
        """Calls ``choose`` for each element's values (N,) in order, by p(x_d | x before d), of event (1,)."""
        before: Tensor | None = None

        def taken(element: int, params: Tensor) -> Tensor:
            nonlocal before
            p = self.family.distribution(params.unsqueeze(-1), self._own(element), self.element)
            before = choose(element, p if before is None else self.family.given_previous(p, before))
            return self._inputs(before.unsqueeze(1), self.element).squeeze(1)

        self.decoder.unroll(len(context), context if context.shape[1] else None, ordering, taken)

    def _inputs(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` as the network's input: symbols unchanged, or floats of about unit size."""
        return x if self.decoder.embeds else self.family.as_elements(x, shapes)

    def _own(self, element: int) -> Tensor | None:
        """The shared parameters of one element."""
        per_element = self.own is not None and self.own.shape == self.shapes.event
        return self.own.flatten()[element : element + 1] if per_element and self.own is not None else self.own
