"""A table of mixed columns: a product of one family a kind of column."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.data.support import Support, mixed_columns
from lambent.distributions import Categorical, Normal, Poisson, Product, bounded_log_scale
from lambent.errors import ConfigError
from lambent.likelihoods.base import LikelihoodSettings
from lambent.likelihoods.counts import bounded_log_rate, log_mean_bias
from lambent.likelihoods.scale import start
from lambent.settings import option, part
from lambent.shapes import Column, Shapes


@dataclass(frozen=True)
class Block:
    """Neighbouring columns that are scored together."""

    kind: str
    columns: slice
    numbers: slice
    """The part of the decoder's output that is theirs."""
    categories: int = 0


def blocks_of(columns: tuple[Column, ...]) -> tuple[Block, ...]:
    """Runs of numeric or count columns, and each categorical column by itself."""
    blocks, at, used = [], 0, 0
    for (kind, _), run in groupby(enumerate(columns), key=lambda c: (c[1].kind, c[0] if c[1].categories else -1)):
        members = [column for _, column in run]
        size = members[0].categories if kind == "categorical" else len(members)
        blocks.append(Block(kind, slice(at, at + len(members)), slice(used, used + size), members[0].categories))
        at, used = at + len(members), used + size
    return tuple(blocks)


@part("likelihood", "mixed")
@dataclass(frozen=True)
class MixedLikelihood(LikelihoodSettings):
    """Numeric columns Normal with a learned scale each, counts Poisson, categorical columns by a softmax."""

    discrete: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    sigma: float = option(1.0, "initial value of the learned standard deviations of numeric columns", above=0)

    def support(self, shapes: Shapes) -> Support:
        """The support of each column."""
        return mixed_columns(_columns(shapes))

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """One number a numeric or count column, one a category."""
        return (1, blocks_of(_columns(shapes))[-1].numbers.stop)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """A log scale a column (only numeric ones use theirs)."""
        return (len(_columns(shapes)),)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Product:
        """A block each, independent given z."""
        assert shared_parameters is not None
        blocks = blocks_of(_columns(shapes))
        numbers = parameters.squeeze(-2)
        parts = tuple(self._block(b, numbers[..., b.numbers], shared_parameters[b.columns]) for b in blocks)
        return Product(parts, tuple(b.columns for b in blocks))

    def _block(self, block: Block, numbers: Tensor, raw_scale: Tensor) -> Normal | Poisson | Categorical:
        if block.kind == "categorical":
            return Categorical(numbers.unsqueeze(-2), 1)
        if block.kind == "count":
            return Poisson(bounded_log_rate(numbers), 1)
        return Normal(numbers, bounded_log_scale(raw_scale + start(self.sigma)), 1)

    def input_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """As many inputs as the decoder has outputs: categories are one-hot."""
        return self.out_shape(shapes)[1:]

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Numeric columns as they are, log(1 + count), one-hot categories."""
        return torch.cat([_as_input(b, x[..., b.columns]) for b in blocks_of(_columns(shapes))], -1)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Means, log means and log frequencies."""
        return (
            torch.cat([_bias(b, x[..., b.columns].double()) for b in blocks_of(_columns(shapes))]).unsqueeze(0).float()
        )


def _as_input(block: Block, x: Tensor) -> Tensor:
    if block.kind == "categorical":
        return F.one_hot(x.squeeze(-1).long(), block.categories).float()
    return x.float().log1p() if block.kind == "count" else x.float()


def _bias(block: Block, x: Tensor) -> Tensor:
    if block.kind == "categorical":
        counts = torch.bincount(x.flatten().long(), minlength=block.categories).double() + 0.5
        return (counts / counts.sum()).log()
    return log_mean_bias(x).squeeze(0).double() if block.kind == "count" else x.mean(0)


def _columns(shapes: Shapes) -> tuple[Column, ...]:
    if not shapes.columns:
        raise ConfigError("likelihood=mixed needs a table (.csv or .parquet); use another likelihood for arrays")
    return shapes.columns
