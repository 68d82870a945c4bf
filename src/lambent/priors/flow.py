"""A learned autoregressive flow."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lambent.distributions import Flow
from lambent.networks.flows import AutoregressiveTransforms
from lambent.priors.base import PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "autoregressive-flow")
@dataclass(frozen=True)
class AutoregressiveFlowPrior(PriorSettings):
    """Noise u = f(z) with autoregressive maps f: log p(z) takes one pass, a draw one pass per dimension.

    It is equivalent to an inverse autoregressive posterior (Chen et al. 2017, section 3.2): a flow prior
    log N(f(z)) + log |det df/dz| under q(z|x) gives the same ELBO as a standard Normal prior of u under the posterior
    that draws z ~ q(z|x) and returns u = f(z), which is an inverse autoregressive flow, with a decoder of f^-1(u). The
    two cost the same to train; the prior's decoder is deeper, its encoder isn't.
    """

    kind: str = option("affine", "map of each element: affine, or a monotonic spline", choices=("affine", "spline"))
    transforms: int = option(3, "autoregressive maps in a row, every second one in reversed order", minimum=1)
    hidden: tuple[int, ...] = option((64, 64), "width of each hidden layer of each map's network", minimum=1)

    def build(self, shapes: Shapes) -> nn.Module:
        """Starts near N(0, I)."""
        return AutoregressiveFlowPriorModule(
            AutoregressiveTransforms(shapes.latent, self.transforms, self.hidden, spline=self.kind == "spline"),
            shapes.latent,
        )


class AutoregressiveFlowPriorModule(nn.Module):
    """p(z) = N(f(z); 0, I) |det df/dz|, whatever the condition."""

    def __init__(self, net: nn.Module, latent: int) -> None:
        super().__init__()
        self.net, self.latent = net, latent

    def forward(self, condition: Tensor | None = None) -> Flow:
        """The prior, of batch shape ()."""
        return Flow(self.net, self.latent)
