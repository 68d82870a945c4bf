"""One level of latents: autoencoders, VAEs, and everything with one prior, one posterior, one likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lambent.draws import Draw
from lambent.models.base import LatentModel, Penalty
from lambent.models.structure import INFERRED, Absent, Parts, Slot, Structure, likelihood_of, posterior_of
from lambent.settings import option, part
from lambent.shapes import Shapes
from lambent.trace import Trace


class VAE(LatentModel):
    """p(z) p(x|z) with q(z|x).

    Any modules whose ``forward`` returns a distribution will do: ``prior(condition)``, ``posterior(x, condition)`` of
    batch shape (B,), ``likelihood(z, condition)`` of batch shape (K, B). Penalties are called with the latent, in
    training mode only; one that is a module also gives ``loss(latent)``, which trains its own parameters ("critic").
    """

    critics: Any

    def __init__(
        self,
        prior: nn.Module,
        posterior: nn.Module,
        likelihood: nn.Module,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__()
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood
        self.penalties = dict(penalties or {})
        self.critics = nn.ModuleDict({name: p for name, p in self.penalties.items() if isinstance(p, nn.Module)})

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch ``x`` (B, *event); None generates, from `Ancestral` or `Given`."""
        q = None
        if x is not None:
            seen = self.as_input(x)
            q, draw = self.posterior(seen, condition), draw.informed(self.control, seen)
        z = draw("z", self.prior(condition), q)
        px = self.likelihood(z.value, condition)
        if x is None or not self.training:  # penalties are terms of the training loss, and may be expensive
            return Trace(px, (z,))
        penalties = {name: penalty(z) for name, penalty in self.penalties.items()}
        return Trace(px, (z,), penalties, {name: critic.loss(z) for name, critic in self.critics.items()})

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative"), of q ("inference"), and of penalties that learn ("critic")."""
        generative = [*self.prior.parameters(), *self.likelihood.parameters()]
        inference = list(self.posterior.parameters())
        critic = {"critic": list(self.critics.parameters())} if len(self.critics) else {}
        return {"generative": generative, "inference": inference, **critic, **self.control_group()}


@part("model", "vae")
@dataclass(frozen=True)
class VAEStructure(Structure):
    """One level of latents with an encoder: every autoencoder and VAE."""

    sections: ClassVar[Mapping[str, Slot]] = {
        **INFERRED,
        "corruption": Slot("none", optional=True),
        "penalty": Slot("none", optional=True),
    }
    absent: ClassVar[Mapping[str, Absent]] = {}
    latent: int = option(10, "latent dimensions", minimum=1)

    def assemble(self, config: Parts, shapes: Shapes) -> VAE:
        """Prior, posterior and likelihood around one latent."""
        prior = config.prior.build(shapes)
        posterior, likelihood = posterior_of(config, shapes), likelihood_of(config, shapes)
        penalties = {} if config.penalty is None else config.penalty.named(shapes)
        return VAE(prior, posterior, likelihood, penalties)
