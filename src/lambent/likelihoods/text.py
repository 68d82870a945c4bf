"""Text: a softmax over symbols at each position, up to EOS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from lambent.data.support import Support, strings
from lambent.distributions import Strings, after_eos
from lambent.errors import ConfigError
from lambent.likelihoods.base import LikelihoodSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("likelihood", "text")
@dataclass(frozen=True)
class TextLikelihood(LikelihoodSettings):
    """Symbols 0..S-1 by a softmax at each position; where texts vary in length, up to and with the first EOS.

    EOS is the last symbol. What follows it is EOS again and costs nothing, so that p sums to 1 over the strings of up
    to D symbols and padding changes no number.
    """

    discrete: ClassVar[bool] = True

    def symbols(self, shapes: Shapes) -> int:
        """S, with EOS.

        Raises:
            ConfigError: the data are no sequences of symbols.
        """
        if len(shapes.event) != 1 or shapes.levels is None:
            raise ConfigError(
                f"likelihood=text scores sequences of symbols, and the data are {shapes.event}; give a .txt file, "
                "data.text=COLUMN of a table, or whole numbers (N, D) with data.grey_levels"
            )
        return shapes.levels

    def support(self, shapes: Shapes) -> Support:
        """{0..S-1}, with nothing but EOS after EOS."""
        return strings(self.symbols(shapes), end=shapes.end)

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """A logit a symbol and position."""
        return (self.symbols(shapes), *shapes.event)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Strings:
        """Logits last, as the distribution wants them."""
        return Strings(parameters.movedim(-2, -1), end=shapes.end)

    def given_previous(self, p: Distribution, before: Tensor) -> Distribution:
        """EOS for certain after EOS."""
        assert isinstance(p, Strings)
        return p.following(before)

    def has_eos(self, shapes: Shapes) -> bool:
        """Whether the data have an EOS symbol."""
        return shapes.end

    def input_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape (S, D) of one-hot symbols."""
        return self.out_shape(shapes)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """One-hot, (..., S, D)."""
        return F.one_hot(x.long(), self.symbols(shapes)).movedim(-1, -2).float()

    def as_elements(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Symbols scaled to -1..1."""
        return x.float() * (2 / max(1, self.symbols(shapes) - 1)) - 1

    def scored(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Symbols of each example up to and with EOS, (N,)."""
        if not shapes.end:
            return torch.full((len(x),), x.shape[-1], device=x.device)
        return (~after_eos(x, self.symbols(shapes) - 1)).sum(-1)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Log frequencies (smoothed by half a count) of the scored symbols, the same at each position."""
        symbols = self.symbols(shapes)
        counted = x.long() if not shapes.end else x.long()[~after_eos(x, symbols - 1)]
        counts = torch.bincount(counted.flatten(), minlength=symbols).double() + 0.5
        return (counts / counts.sum()).log().float().unsqueeze(1).expand(symbols, *shapes.event)
