"""Priors over grids of codes, learned by a network that goes through the grid in order."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.data.support import Support, grey_levels
from lambent.distributions import Autoregressive, Categorical
from lambent.errors import ConfigError
from lambent.likelihoods import AutoregressiveLikelihoodModule, LikelihoodSettings
from lambent.networks import AutoregressiveNet, AutoregressiveSettings, GatedPixelCNNDecoder, TransformerDecoder
from lambent.networks.autoregressive.base import ContextShape, context_size
from lambent.priors.base import CodePriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


class AutoregressiveCodePriorModule(nn.Module):
    """p(z) = prod_i p(z_i | codes before it, context), by an autoregressive network."""

    def __init__(
        self, network: AutoregressiveSettings, symbols: int, grid: tuple[int, ...], context: ContextShape, given: int
    ) -> None:
        super().__init__()
        shapes = Shapes(grid, context_size(context), given, symbols)
        net: AutoregressiveNet = network.build(context, (symbols, *grid), given, symbols)
        self.conditionals = AutoregressiveLikelihoodModule(_Indices(), net, shapes)

    def forward(self, context: Tensor | None = None) -> Distribution:
        """The prior given a context (..., c), of batch shape (...); () without one."""
        bias = next(self.parameters())
        given = bias.new_zeros(0) if context is None else context.to(bias.dtype)
        return Autoregressive(self.conditionals, given, self.conditionals.shapes.event)


@dataclass(frozen=True)
class _Indices(LikelihoodSettings):
    """Code indices 0..S-1 with a softmax; their order has no meaning."""

    discrete: ClassVar[bool] = True

    @staticmethod
    def _size(shapes: Shapes) -> int:
        assert shapes.levels is not None
        return shapes.levels

    def support(self, shapes: Shapes) -> Support:
        """The integers from 0 to S-1."""
        return grey_levels(self._size(shapes))

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape of the logits: one per symbol and element."""
        return (self._size(shapes), *shapes.event)

    def symbols(self, shapes: Shapes) -> int:
        """S, the number of codes."""
        return self._size(shapes)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Categorical:
        """Logits last, as the distribution wants them."""
        dims = len(shapes.event)
        return Categorical(parameters.movedim(-1 - dims, -1), dims)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Indices on -1..1, for networks that don't look them up."""
        return x.float() * (2 / max(1, self._size(shapes) - 1)) - 1


class _AutoregressiveCodePriorSettings(CodePriorSettings):
    """Settings of an autoregressive prior over the grid of codes."""

    @abstractmethod
    def network(self, grid: tuple[int, ...]) -> Any:
        """The settings of its network."""

    def over_codes(
        self, symbols: int, grid: tuple[int, ...], context: ContextShape = 0, condition: int = 0
    ) -> AutoregressiveCodePriorModule:
        """The prior, its weights from torch's current random state."""
        return AutoregressiveCodePriorModule(self.network(grid), symbols, grid, context, condition)


@part("prior", "pixelcnn")
@dataclass(frozen=True)
class PixelCNNPrior(_AutoregressiveCodePriorSettings):
    """A gated PixelCNN over the grid of codes (van den Oord et al. 2017, section 3.2), row by row."""

    channels: int = option(64, "channels of each stack", minimum=1)
    layers: int = option(6, "gated layers", minimum=1)
    embedding: int = option(32, "width of the table in which codes are looked up", minimum=1)
    position_channels: int = option(0, "channels of a learned positional map, given to every layer; 0: none", minimum=0)

    def network(self, grid: tuple[int, ...]) -> GatedPixelCNNDecoder:
        """A gated PixelCNN with a table of codes.

        Raises:
            ConfigError: the codes are no map.
        """
        if len(grid) != 2:
            raise ConfigError(
                f"prior=pixelcnn: {grid[0]} codes in a row, expected a map of them; use prior=transformer"
            )
        return GatedPixelCNNDecoder(
            channels=self.channels,
            layers=self.layers,
            embedding=self.embedding,
            position_channels=self.position_channels,
        )


@part("prior", "transformer")
@dataclass(frozen=True)
class TransformerPrior(_AutoregressiveCodePriorSettings):
    """A causal transformer over the codes (Esser et al. 2021, section 3.2)."""

    model_dim: int = option(128, "embedding size of a token", minimum=1)
    layers: int = option(4, "transformer blocks", minimum=1)
    heads: int = option(4, "attention heads", minimum=1)
    dropout: float = option(0.1, "dropout probability of features and attention weights", minimum=0, maximum=0.9)

    def network(self, grid: tuple[int, ...]) -> TransformerDecoder:
        """A transformer with a table of codes."""
        return TransformerDecoder(model_dim=self.model_dim, layers=self.layers, heads=self.heads, dropout=self.dropout)
