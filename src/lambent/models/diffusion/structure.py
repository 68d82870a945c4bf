"""How a configuration becomes a diffusion model, and what is incompatible with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lambent.distributions.gaussian_diffusion import PREDICTIONS
from lambent.likelihoods import TextLikelihood
from lambent.likelihoods.noisy import NoisyLikelihoodModule
from lambent.models.diffusion.model import Diffusion, Timesteps
from lambent.models.structure import LIKELIHOOD, NOT_ONE_LATENT, Absent, Parts, Slot, Structure
from lambent.networks import DenoiserSettings
from lambent.posteriors import NoisingPosterior
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes


@part("model", "diffusion")
@dataclass(frozen=True)
class DiffusionStructure(Structure):
    """A chain of ever noisier copies of x, of which the way back is learned."""

    sections: ClassVar[Mapping[str, Slot]] = {
        **LIKELIHOOD,
        "posterior": Slot("noising", (NoisingPosterior,), why="its latents are noise added by rule, not inferred"),
        "draw": Slot("pathwise", names=("pathwise",), why="its noise is drawn as it is"),
        "decoder": Slot(
            "denoising-mlp",
            (DenoiserSettings,),
            why="it needs a network with the noise level as an input",
            use="decoder=unet (images) or decoder=denoising-mlp",
        ),
        "objective": Slot(
            "elbo", names=("elbo",), why="no importance weight exists of levels that are drawn one by one"
        ),
        "rate": Slot("sum", also=("snr-weighted",)),
    }
    absent: ClassVar[Mapping[str, Absent]] = {
        **NOT_ONE_LATENT,
        "prior": Absent("its noise ends as a standard Normal", ("none", "normal")),
        "encoder": Absent("it has nothing to infer"),
    }
    latent: int = field(default=0, init=False)
    timesteps: int | None = option(None, "T, timesteps of the diffusion; none: continuous time", minimum=1)
    predict: str = option("eps", "what the denoiser predicts", choices=PREDICTIONS)
    sampling_steps: int = option(100, "timesteps that sampling and encoding visit by default", minimum=1)
    importance: str = option(
        "evaluation",
        "when timesteps are drawn in proportion to their loss, reweighted so that the bound stays unbiased",
        choices=("never", "evaluation", "always"),
    )

    def conflicts(self, parts: Parts) -> Conflict | None:
        """Noise is added to numbers, and no noise level has a density of its own."""
        if not parts.likelihood.elementwise or isinstance(parts.likelihood, TextLikelihood):
            why = "noise can't be added to symbols and categories; use likelihood=normal"
            return Conflict(("model", "likelihood"), why)
        if parts.rate.one_level:
            return Conflict(("model", "rate"), "it compares densities that no level has; use rate=sum")
        return None

    def assemble(self, config: Parts, shapes: Shapes) -> Diffusion:
        """A denoiser of the data's shape, and a likelihood that looks at elements one by one."""
        assert isinstance(config.posterior, NoisingPosterior)
        assert isinstance(config.decoder, DenoiserSettings)
        denoiser = config.decoder.build_denoiser(shapes.event, shapes.condition)
        likelihood = NoisyLikelihoodModule(config.likelihood, shapes, 0.5 * config.posterior.gamma_min)
        levels = Timesteps(self.timesteps, self.predict, self.sampling_steps, self.importance)
        return Diffusion(denoiser, config.posterior.build(), likelihood, levels)
