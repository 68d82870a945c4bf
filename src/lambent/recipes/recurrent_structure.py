"""How the parts of a configuration become a recurrent model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lambent.likelihoods import Likelihood
from lambent.models.recurrent import Recurrent
from lambent.networks import LinearEncoder
from lambent.networks.draw import CanvasSettings, ReaderSettings, Shown
from lambent.posteriors import AmortisedPosterior
from lambent.recipes.structures import Structure
from lambent.settings import option, part
from lambent.shapes import Shapes

if TYPE_CHECKING:
    from lambent.recipes.config import Config


@part("model", "draw")
@dataclass(frozen=True)
class RecurrentStructure(Structure):
    """A latent a step, read and written by recurrent networks that all steps share (DRAW, Gregor et al. 2015)."""

    recurrent: ClassVar[bool] = True
    latent: int = option(10, "latent dimensions of a step", minimum=1)
    steps: int = option(10, "steps", minimum=1)

    @property
    def level_count(self) -> int:
        """A level a step."""
        return self.steps

    def assemble(self, config: Config, shapes: Shapes) -> Recurrent:
        """A reader, a writer, and the canvas as p(x|z)."""
        assert isinstance(config.encoder, ReaderSettings)
        assert isinstance(config.decoder, CanvasSettings)
        out, family = config.likelihood.out_shape(shapes), config.likelihood
        writer = config.decoder.build_writer(self.latent, out, shapes.condition)
        reader = config.encoder.build_reader(family.input_shape(shapes), writer.features, shapes.condition)
        posterior = AmortisedPosterior(config.posterior, LinearEncoder().build((reader.features,)), self.latent)
        likelihood = Likelihood(family, Shown(out), shapes)
        return Recurrent(config.prior.build(shapes), posterior, reader, writer, likelihood, self.steps)

    def state_count(self, config: Config) -> None:
        """None: its latents are continuous."""
        return
