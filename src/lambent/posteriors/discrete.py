"""Discrete posteriors: coins, ordered coins, categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lambent.distributions import AutoregressiveBernoulli, Bernoulli, OneHotCategorical
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import option, part


@part("posterior", "bernoulli")
@dataclass(frozen=True)
class BernoulliPosterior(PosteriorSettings):
    """Independent coins, one logit a latent."""

    relaxable: ClassVar[bool] = True
    latent_kind: ClassVar[LatentKind] = "binary"

    def width(self, latent: int) -> int:
        """One logit each."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Bernoulli:
        """The coins."""
        return Bernoulli(head)


@part("posterior", "autoregressive-bernoulli")
@dataclass(frozen=True)
class AutoregressiveBernoulliPosterior(PosteriorSettings):
    """Coins in order: logits from x, and weights on the coins before that are the same for every x."""

    marginals: ClassVar[bool] = False
    latent_kind: ClassVar[LatentKind] = "binary"

    def width(self, latent: int) -> int:
        """One logit each."""
        return latent

    def shared_size(self, latent: int) -> int:
        """The square of weights, of which half counts."""
        return latent * latent

    def distribution(
        self, head: Tensor, latent: int, shared_parameters: Tensor | None = None
    ) -> AutoregressiveBernoulli:
        """The coins in order."""
        assert shared_parameters is not None
        return AutoregressiveBernoulli(head, shared_parameters.view(latent, latent))


@part("posterior", "categorical")
@dataclass(frozen=True)
class CategoricalPosterior(PosteriorSettings):
    """One category, or latent / classes of them side by side; values one-hot."""

    relaxable: ClassVar[bool] = True
    latent_kind: ClassVar[LatentKind] = "one-hot"
    classes: int | None = option(None, "classes of each variable; none makes all dimensions one variable", minimum=2)

    def width(self, latent: int) -> int:
        """One logit a class."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> OneHotCategorical:
        """The categories."""
        return OneHotCategorical(head, self.classes)
