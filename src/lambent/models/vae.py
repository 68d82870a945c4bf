"""One level of latents: autoencoders, VAEs, and everything with one prior, one posterior, one likelihood."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lambent.draws import Draw
from lambent.models.base import LatentModel, Penalty
from lambent.trace import Trace


class VAE(LatentModel):
    """p(z) p(x|z) with q(z|x).

    Any modules whose ``forward`` returns a distribution will do: ``prior(condition)``, ``posterior(x, condition)`` of
    batch shape (B,), ``likelihood(z, condition)`` of batch shape (K, B).
    """

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

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch ``x`` (B, *event); None generates, from `Ancestral` or `Given`."""
        q = None if x is None else self.posterior(self.as_input(x), condition)
        z = draw("z", self.prior(condition), q)
        px = self.likelihood(z.value, condition)
        return Trace(px, (z,), {name: penalty(z) for name, penalty in self.penalties.items()})

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative") and of q ("inference")."""
        generative = [*self.prior.parameters(), *self.likelihood.parameters()]
        return {"generative": generative, "inference": list(self.posterior.parameters())}
