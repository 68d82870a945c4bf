"""How the parts of a configuration become a model of codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from lambent.errors import ConfigError
from lambent.models.codes import CodeLevel, CodeModel
from lambent.networks import ConvEncoder, affine
from lambent.networks.autoregressive import ContextShape, context_size
from lambent.posteriors import CodePosterior
from lambent.priors import CodePriorSettings
from lambent.recipes.structures import Structure, likelihood_given
from lambent.settings import option, part
from lambent.shapes import Shapes

if TYPE_CHECKING:
    from lambent.recipes.config import Config


@part("model", "codes")
@dataclass(frozen=True)
class CodeStructure(Structure):
    """Grids of codes: VQ-VAE and its like with one level, VQ-VAE-2 with more.

    With a convolutional encoder there is a code for each place of its last map (its `smallest` says how small that is);
    an example is ``latent`` codes where the encoder gives plain features.
    """

    latent: int = option(16, "codes of an example, where the encoder gives no map", minimum=1)
    above: tuple[int, ...] = option(
        (), "levels above the lowest: how often the grid is halved from each to the next, lowest first", minimum=1
    )
    of_codes: ClassVar[bool] = True

    @property
    def level_count(self) -> int:
        """Those above and the lowest."""
        return 1 + len(self.above)

    def assemble(self, config: Config, shapes: Shapes) -> CodeModel:
        """Encoders upwards, a codebook and a prior a level, one decoder that sees all codes."""
        assert isinstance(config.posterior, CodePosterior)
        assert isinstance(config.prior, CodePriorSettings)
        levels: list[CodeLevel] = []
        ways = self._ways(config, shapes)
        grids = [_grid(map_, self.latent) for _, map_ in ways]
        quantisers = [config.posterior.quantiser() for _ in ways]
        widths = [q.dim for q in quantisers]
        for i, (encoder, map_) in enumerate(ways):
            channels = sum(widths[i + 1 :])
            above: ContextShape = _map(channels, grids[i + 1]) if channels else 0
            head = _head(map_, widths[i], self.latent, channels)
            prior = config.prior.over_codes(quantisers[i].size, grids[i], above, shapes.condition)
            levels.append(CodeLevel(encoder, head, quantisers[i], prior, map_, grids[i]))
        seen = _map(sum(widths), grids[0]) if len(grids[0]) == 2 else sum(widths) * grids[0][0]
        return CodeModel(levels, likelihood_given(config, replace(shapes, latent=context_size(seen)), seen))

    def _ways(self, config: Config, shapes: Shapes) -> list[tuple[nn.Module, tuple[int, ...]]]:
        """The encoder of each level and the shape of its features, lowest first."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        found = [(encoder, _features(encoder))]
        for halvings in self.above:
            if not isinstance(config.encoder, ConvEncoder) or len(found[-1][1]) != 3:
                raise ConfigError("model.above asks for maps above the lowest; use encoder=conv, or model.above=[]")
            below = found[-1][1]
            if 2 ** (halvings - 1) >= max(below[1:]):
                raise ConfigError(
                    f"model.above={list(self.above)}: a map of {below[1]} x {below[2]} can't be halved "
                    f"{halvings} times; give fewer levels or halvings, or a larger encoder.smallest"
                )
            side = -(-max(below[1:]) // 2**halvings)
            settings = replace(config.encoder, smallest=side, channels=config.encoder.channels[-1:])
            found.append((upper := settings.build(below, shapes.condition), _features(upper)))
        return found


def _features(encoder: nn.Module) -> tuple[int, ...]:
    """The shape of an encoder's features: a map (C, h, w) where it has one, else (F,)."""
    shape: tuple[int, ...] | None = getattr(encoder, "map_shape", None)
    features = encoder.features
    assert isinstance(features, int)
    return (features,) if shape is None else shape


def _map(channels: int, grid: tuple[int, ...]) -> tuple[int, int, int]:
    return channels, grid[0], grid[1]


def _grid(features: tuple[int, ...], codes: int) -> tuple[int, ...]:
    return features[1:] if len(features) == 3 else (codes,)


def _head(features: tuple[int, ...], dim: int, codes: int, above: int) -> nn.Module:
    """Features (and the map above them) to what is quantised."""
    if len(features) == 1:
        return affine(features[0], codes * dim)
    return nn.Conv2d(features[0] + above, dim, 3 if above else 1, padding=1 if above else 0)
