"""How the parts of a configuration become a ladder."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lambent.errors import ConfigError
from lambent.models.ladder import Ladder
from lambent.networks.ladder import Climb, VectorLevel, VectorSizes, VectorStyle
from lambent.posteriors import MergedNormal
from lambent.recipes.structures import VectorLevels, likelihood_given
from lambent.settings import option, part
from lambent.shapes import Shapes

if TYPE_CHECKING:
    from lambent.recipes.config import Config


@part("model", "ladder")
@dataclass(frozen=True)
class LadderStructure(VectorLevels):
    """Levels of latents, both inferred and generated from the top down; all networks fully connected.

    The encoder gives what the lowest level sees of x, the decoder makes p(x|z); networks between levels have the
    encoder's activation. With posterior=merged-normal and no skip it is the ladder of Sonderby et al. (2016).
    """

    laddered: ClassVar[bool] = True
    latent: int = option(10, "latent dimensions of the lowest level", minimum=1)
    above: tuple[int, ...] = option((5,), "latent dimensions of the levels above it, lowest first", minimum=1)
    widths: tuple[int, ...] = option(
        (), "width of the networks from each level to the next, lowest first; none: that of the encoder", minimum=1
    )
    layers: int = option(1, "layers of each network between levels", minimum=1)
    skip: bool = option(True, "whether a level sees all levels above it, not the next alone")  # noqa: FBT003

    def assemble(self, config: Config, shapes: Shapes) -> Ladder:
        """Networks upwards and downwards between levels of the same widths."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        features = encoder.features
        assert isinstance(features, int)
        seen, style = (features, *self._between(features)), self._style(config)
        steps = [style.step(a, shapes.condition, b) for a, b in itertools.pairwise(seen)]
        levels = [self._level(i, config, shapes, seen, style) for i in range(len(self.sizes))]
        last = self.latent + (seen[1] if self.skip and self.above else 0)
        prior = config.prior.build(replace(shapes, latent=self.sizes[-1]))
        likelihood = likelihood_given(config, replace(shapes, latent=last), last)
        return Ladder(
            prior, config.posterior, Climb(encoder, steps, shapes.condition), levels, likelihood, self.states(config)
        )

    def _level(self, i: int, config: Config, shapes: Shapes, seen: tuple[int, ...], style: VectorStyle) -> VectorLevel:
        latent, above = self.sizes[i], seen[i + 1] if i + 1 < len(seen) else 0
        p, q = config.posterior.conditional().width(latent), config.posterior.width(latent)
        sizes = VectorSizes(latent, p, q, seen[i], above, seen[i] if i else 0, shapes.condition)
        level = VectorLevel(sizes, style)
        config.posterior.initialise(level.head, latent)
        return level

    def _style(self, config: Config) -> VectorStyle:
        name = getattr(config.encoder, "activation", "elu")
        looks = self.skip or not isinstance(config.posterior, MergedNormal)
        return VectorStyle(name, self.layers, self.skip, looks, 1 / math.sqrt(len(self.sizes)))

    def _between(self, features: int) -> tuple[int, ...]:
        """Widths of the networks between levels."""
        if self.widths and len(self.widths) != len(self.above):
            raise ConfigError(
                f"model.widths has {len(self.widths)} numbers for {len(self.above)} levels above the lowest; give one "
                "for each, or none"
            )
        return self.widths or (features,) * len(self.above)
