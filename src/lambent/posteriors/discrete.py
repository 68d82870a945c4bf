"""Discrete posteriors: Bernoulli, autoregressive Bernoulli and categorical."""

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
    """Independent Bernoulli variables, with one logit each."""

    relaxable: ClassVar[bool] = True
    latent_kind: ClassVar[LatentKind] = "binary"

    def width(self, latent: int) -> int:
        """One logit per variable."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Bernoulli:
        """Bernoulli variables with the head's logits."""
        return Bernoulli(head)


@part("posterior", "autoregressive-bernoulli")
@dataclass(frozen=True)
class AutoregressiveBernoulliPosterior(PosteriorSettings):
    """Binary variables in order: logits from x, and weights on the variables before that are shared by all x."""

    marginals: ClassVar[bool] = False
    latent_kind: ClassVar[LatentKind] = "binary"

    def width(self, latent: int) -> int:
        """One logit per variable."""
        return latent

    def shared_size(self, latent: int) -> int:
        """The square weight matrix, of which the lower triangle is used."""
        return latent * latent

    def distribution(
        self, head: Tensor, latent: int, shared_parameters: Tensor | None = None
    ) -> AutoregressiveBernoulli:
        """Autoregressive Bernoulli variables with the head's logits."""
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
        """One logit per class."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> OneHotCategorical:
        """Categorical variables with the head's logits, one-hot."""
        return OneHotCategorical(head, self.classes)
