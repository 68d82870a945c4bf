"""The von Mises-Fisher posterior over directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import VonMisesFisher, bounded_log_scale
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import option, part


@part("posterior", "von-mises-fisher")
@dataclass(frozen=True)
class VonMisesFisherPosterior(PosteriorSettings):
    """vMF(m(x), k) on the unit sphere, or with k(x); needs prior=sphere.

    With k fixed the rate is the same number for every x, so that it can't collapse (Xu & Durrett 2018, EMNLP); with k
    learned it can (Davidson et al. 2018, UAI).
    """

    latent_kind: ClassVar[LatentKind] = "sphere"
    marginals: ClassVar[bool] = False
    concentration: float = option(
        80.0, "concentration kappa; its initial value where it is learned", above=0, maximum=1e6
    )
    learned: bool = option(False, "whether the encoder gives kappa per example, from e^-7 to e^5 times `concentration`")  # noqa: FBT003

    def width(self, latent: int) -> int:
        """A vector in the direction, and the log of k unless it is fixed."""
        return latent + self.learned

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> VonMisesFisher:
        """The distribution around the head's direction; the length of the head's vector has no effect."""
        if not self.learned:
            return VonMisesFisher(head, head.new_full((), self.concentration))
        return VonMisesFisher(head[..., :latent], self.concentration * bounded_log_scale(head[..., latent]).exp())

    def initialise(self, head: nn.Linear, latent: int) -> None:
        """A head that sees nothing starts at some direction: at 0 there is none."""
        if not head.in_features:
            with torch.no_grad():
                nn.init.normal_(head.bias[:latent])
