"""The moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from lambent.models import LatentModel


class MovingAverage:
    """Weights averaged with a half-life counted in examples, so that it survives a change of the batch size.

    Buffers are copied: a codebook of running means is an average already, and averaging it again would leave revived
    codes half way. Its codes are found by the averaged encoder, so that what is measured is one model, and a bound.
    """

    def __init__(self, model: LatentModel, half_life: float) -> None:
        self.source, self.half_life = model, half_life
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self, examples: int) -> None:
        """Moves towards the source's weights by what ``examples`` examples are worth; buffers are copied."""
        kept = 0.5 ** (examples / self.half_life)
        averaged: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, list(self.source.parameters()), 1 - kept)
        for mine, theirs in zip(self.model.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)
