"""How the parts of a configuration become a ladder of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from lambent.errors import ConfigError
from lambent.likelihoods import LikelihoodModule
from lambent.models.ladder import Ladder
from lambent.models.structure import INFERRED, Parts, Slot, Structure, likelihood_given
from lambent.networks import ConvDecoder, ConvEncoder
from lambent.networks.autoregressive.base import context_size
from lambent.networks.conv import image_shape, size_ladder
from lambent.networks.ladder.bottom_up import BottomUp, Resolution
from lambent.networks.ladder.image import MapLevels
from lambent.networks.ladder.residual import BLOCKS, Style
from lambent.posteriors import NormalPosterior, RelativeNormalPosterior
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes


@part("model", "image-ladder")
@dataclass(frozen=True)
class ImageLadderStructure(Structure):
    """Levels of maps at several resolutions, both sides coming down: NVAE, VDVAE, ladders of convolutions.

    Channels (of each resolution of the ladder, the largest first), residual blocks upwards, activation and the smallest
    map are the encoder's (conv). The decoder sees the state after the lowest level, a map of the largest resolution
    that has levels, from which decoder=conv starts.
    """

    sections: ClassVar[Mapping[str, Slot]] = {
        **INFERRED,
        "posterior": Slot(
            "normal", (NormalPosterior, RelativeNormalPosterior), why="its numbers come as maps, a few for each of z"
        ),
        "encoder": Slot("conv", (ConvEncoder,), why="its levels are maps at the resolutions of convolutions"),
    }
    latent: int = option(8, "channels of z at each position of a level's map", minimum=1)
    levels_per_scale: tuple[int, ...] = option(
        (2, 3, 4),
        "levels at each resolution, from the smallest map (encoder.smallest) up; an image too small for all has "
        "the rest at its own size",
        minimum=0,
    )
    block: str = option(
        "residual", "residual (3x3 twice), bottleneck (of VDVAE), or depthwise (of NVAE, 5x5)", choices=BLOCKS
    )
    blocks: int = option(1, "residual blocks of each level, top-down", minimum=1)
    expand: int = option(6, "depthwise block: factor by which it expands the channels inside", minimum=1)
    spectral: float = option(
        0.0,
        "spectral regularisation: weight in the loss of the sum of the convolutions' largest singular values; 0: none",
        minimum=0,
    )

    @property
    def level_count(self) -> int:
        """The number of levels over all resolutions."""
        return sum(self.levels_per_scale)

    def state_count(self, config: Parts) -> int | None:
        """None: its latents are continuous."""
        return None

    def conflicts(self, parts: Parts) -> Conflict | None:
        """A level takes what the family needs from its head alone."""
        if not parts.posterior.shared_size(self.latent):
            return None
        why = "a level has no numbers alike for all examples; use posterior=normal"
        return Conflict(("model", "posterior"), why)

    def reads(self, parts: Parts) -> None:
        """None: the decoder sees the state after the lowest level."""
        return

    def assemble(self, config: Parts, shapes: Shapes) -> Ladder:
        """A network upwards, levels downwards, and a decoder that sees the last map."""
        assert isinstance(config.encoder, ConvEncoder)
        image = image_shape(config.likelihood.input_shape(shapes))
        places = self._places(image[1:], config.encoder)
        style = Style(self.block, config.encoder.activation, self.expand)
        bottom = BottomUp(
            image,
            places,
            config.encoder.blocks,
            style.upward(),
            condition=shapes.condition,
            spectral=self.spectral,
        )
        levels = self._shared(config, style, shapes).build(places)
        prior = config.prior.build(replace(shapes, latent=levels[-1].latent))
        return Ladder(prior, config.posterior, bottom, levels, _likelihood(config, shapes, places))

    def _shared(self, config: Parts, style: Style, shapes: Shapes) -> MapLevels:
        q = config.posterior
        return MapLevels(
            style,
            self.latent,
            q.conditional().width(1),
            q.width(1),
            self.level_count,
            self.blocks,
            shapes.condition,
            self.spectral,
        )

    def _places(self, image: tuple[int, int], encoder: ConvEncoder) -> list[Resolution]:
        """The largest first: from the image's own size, if it has levels, to the smallest."""
        sizes = size_ladder(*image, encoder.smallest)
        if not sum(self.levels_per_scale):
            raise ConfigError(
                f"model.levels_per_scale={list(self.levels_per_scale)}: no level at all; give one or more"
            )
        levels = (*self.levels_per_scale[: len(sizes) - 1], sum(self.levels_per_scale[len(sizes) - 1 :]))
        counts = [0] * (len(sizes) - len(levels)) + list(levels[::-1])
        if not counts[0] and len(sizes) > 1:
            sizes, counts = sizes[1:], counts[1:]
        widths = encoder.channels
        if not widths:
            raise ConfigError("encoder.channels is empty, expected one width or more; give encoder.channels=[32,64]")
        each = (widths[min(i, len(widths) - 1)] for i in range(len(sizes)))
        return [Resolution(width, *size, count) for width, size, count in zip(each, sizes, counts, strict=True)]


def _likelihood(config: Parts, shapes: Shapes, places: list[Resolution]) -> LikelihoodModule:
    last = next(place for place in places if place.levels)
    seen = (last.channels, last.height, last.width)
    decoder = config.decoder
    if isinstance(decoder, ConvDecoder):
        decoder = replace(decoder, smallest=last.side)
    return likelihood_given(config, replace(shapes, latent=context_size(seen)), seen, decoder)
