"""How the parts of a configuration become a diffusion, and what goes together with one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lambent.distributions.gaussian_diffusion import PREDICTIONS
from lambent.draws import Pathwise
from lambent.errors import CombinationError
from lambent.likelihoods import TextFamily
from lambent.likelihoods.noisy import NoisyLikelihood
from lambent.models.diffusion.model import Diffusion, Levels
from lambent.models.structure import Parts, Structure
from lambent.networks import DenoiserSettings, NoEncoder
from lambent.objectives import ELBO
from lambent.posteriors import NoisingPosterior
from lambent.priors import NormalPrior
from lambent.settings import option, part, registry
from lambent.shapes import Shapes


@part("model", "diffusion")
@dataclass(frozen=True)
class DiffusionStructure(Structure):
    """A chain of ever noisier copies of x, of which the way back is learned."""

    amortised: ClassVar[bool] = False
    denoising: ClassVar[bool] = True
    latent: int = field(default=0, init=False)
    steps: int | None = option(None, "T, noise levels of the chain; none for infinitely many", minimum=1)
    predict: str = option("eps", "what the denoiser's numbers stand for", choices=PREDICTIONS)
    sampling: int = option(100, "noise levels visited by samples and codes, where nothing else is asked for", minimum=1)
    importance: str = option(
        "evaluation",
        "when noise levels are drawn in proportion to their loss, with weights that leave the bound as it is",
        choices=("never", "evaluation", "always"),
    )

    def assemble(self, config: Parts, shapes: Shapes) -> Diffusion:
        """A denoiser of the data's shape, and a likelihood that looks at elements one by one."""
        assert isinstance(config.posterior, NoisingPosterior)
        assert isinstance(config.decoder, DenoiserSettings)
        denoiser = config.decoder.build_denoiser(shapes.event, shapes.condition)
        likelihood = NoisyLikelihood(config.likelihood, shapes, 0.5 * config.posterior.minimum)
        levels = Levels(self.steps, self.predict, self.sampling, self.importance)
        return Diffusion(denoiser, config.posterior.build(), likelihood, levels)


NEEDED = {
    "posterior": (NoisingPosterior, "its latents are noise added by rule, not inferred", "noising"),
    "prior": (NormalPrior, "noise ends as a standard Normal", "normal"),
    "encoder": (NoEncoder, "it has nothing to infer", "none"),
    "draw": (Pathwise, "its noise is drawn as it is", "pathwise"),
    "objective": (ELBO, "no importance weight exists of levels that are drawn one by one", "elbo"),
}


def noised(config: Parts) -> None:
    """Refuses what a diffusion has no use for, and its posterior elsewhere.

    Raises:
        CombinationError: names the parts in conflict and what would do.
    """
    if not config.model.denoising:
        if isinstance(config.posterior, NoisingPosterior):
            _refuse(config, "model posterior", "it adds noise that only a diffusion takes away; use model=diffusion")
        if config.rate.by_noise:
            _refuse(config, "model rate", "only a diffusion has noise levels to weigh; use rate=sum")
        return
    for section, (kind, why, use) in NEEDED.items():
        if type(getattr(config, section)) is not kind:
            _refuse(config, f"model {section}", f"{why}; use {section}={use}")
    if not config.likelihood.elementwise or isinstance(config.likelihood, TextFamily):
        _refuse(config, "model likelihood", "noise can't be added to symbols and categories; use likelihood=normal")
    if config.rate.one_level:
        _refuse(config, "model rate", "it compares densities that no level has; use rate=sum")
    assert isinstance(config.posterior, NoisingPosterior)
    if config.rate.by_noise and config.posterior.schedule == "learned":
        _refuse(config, "rate posterior", "a schedule learns from the bound itself; use posterior.schedule=linear")


def _refuse(config: Parts, sections: str, why: str) -> None:
    named = [f"{s}={registry.name_of(s, getattr(config, s))}" for s in sections.split()]
    raise CombinationError(f"{' with '.join(named)}: {why}")
