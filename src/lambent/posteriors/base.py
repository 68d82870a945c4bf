"""The base class of posterior settings, and the module that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.networks.fold import fold
from lambent.priors.base import LatentKind
from lambent.settings import Part


class PosteriorSettings(Part, ABC):
    """Settings of a family q(z|x): the number of parameters per example, and the distribution they define."""

    latent_kind: ClassVar[LatentKind] = "continuous"
    normalised: ClassVar[bool] = True
    classes: int | None = None
    """States of each variable, where they are one-hot; None makes all dimensions one variable."""
    relaxable: ClassVar[bool] = False
    """Whether it is discrete with a continuous relaxation."""
    marginals: ClassVar[bool] = True
    """Whether mean and density of each dimension by itself are known."""
    deterministic: ClassVar[bool] = False
    """Whether it is a point among discrete values, so that every sample is the same, and no log q teaches q."""

    @abstractmethod
    def width(self, latent: int) -> int:
        """The number of parameters per example that the head gives."""

    @abstractmethod
    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Distribution:
        """q(z|x) of batch shape (B,), from the head's (B, width) and the parameters shared by all examples."""

    def around(self, head: Tensor, prior: Distribution, latent: int) -> Distribution:
        """The posterior (K, B) of a ladder's level, given the prior of that level, which most families ignore."""
        return self.distribution(head, latent)

    def shared_size(self, latent: int) -> int:
        """The number of parameters shared by all examples."""
        return 0

    def initialise(self, head: nn.Linear, latent: int) -> None:
        """Changes the head's initial weights; most families leave them as they are."""
        return

    def conditional(self) -> PosteriorSettings:
        """The family by which a level of a chain generates the level below; the same for most."""
        return self

    def as_input(self, z: Tensor) -> Tensor:
        """Values as the input of a network; unchanged for most families."""
        return z


class AmortisedPosteriorModule(nn.Module):
    """q(z|x), or q(z|x,c): an encoder's features, one affine head, a family."""

    def __init__(self, family: PosteriorSettings, encoder: nn.Module, latent: int) -> None:
        super().__init__()
        self.family, self.encoder, self.latent = family, encoder, latent
        features = encoder.features
        assert isinstance(features, int)
        self.head = affine_head(features, family.width(latent))
        family.initialise(self.head, latent)
        size = family.shared_size(latent)
        # `own` is the name of the shared parameters in weights files
        self.own = nn.Parameter(torch.zeros(size)) if size else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Distribution:
        """q(z|x) with batch shape (B,); ``x`` is what the likelihood's ``as_input`` gives."""
        return self.family.distribution(self._params(x, condition), self.latent, self.own)

    def given(self, z: Tensor, condition: Tensor | None = None) -> Distribution:
        """The distribution given another level's values z (K, B, *), of the same kind, of batch shape (K, B)."""
        params = fold(self._params, self.family.as_input(z), condition)
        return self.family.distribution(params, self.latent, self.own)

    def _params(self, x: Tensor, condition: Tensor | None) -> Tensor:
        params: Tensor = self.head(self.encoder(x.to(self.head.weight.dtype), condition))
        return params


def affine_head(features: int, width: int) -> nn.Linear:
    """An affine map from ``features`` to ``width`` parameters; without features only a bias, which starts at 0."""
    if features:
        return nn.Linear(features, width)
    head = nn.Linear(1, width)
    head.in_features, head.weight = 0, nn.Parameter(head.weight.detach()[:, :0])  # torch warns of making it so at once
    nn.init.zeros_(head.bias)
    return head
