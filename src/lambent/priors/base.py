"""The base classes of the settings of priors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lambent.errors import CombinationError
from lambent.settings import Conflict, Part
from lambent.shapes import Shapes

LatentKind = Literal["continuous", "sphere", "one-hot", "binary", "bytes", "codes", "mixed", "none"]
SMOOTH = ("continuous", "sphere")
"""Kinds of latents whose values a gradient can move."""


PRIOR_FOR = {"one-hot": "categorical", "binary": "bernoulli", "codes": "uniform", "bytes": "bytes", "sphere": "sphere"}
"""The usual prior of each kind of latents; "normal" for the others."""


DIFFUSION_FOR = {**PRIOR_FOR, "codes": "diffusion", "continuous": "latent-diffusion"}
"""The usual prior of each kind of latents for a model whose prior is a diffusion."""


class PriorSettings(Part, ABC):
    """Settings of a prior; they build a module whose ``forward(condition=None)`` returns p(z), or p(z|c)."""

    latent_kind: ClassVar[LatentKind] = "continuous"
    normalised: ClassVar[bool] = True
    classes: int | None = None
    """States of each variable, where they are one-hot; None makes all dimensions one variable."""
    estimated: ClassVar[bool] = False
    """Whether training uses an unbiased estimate of a bound on log p(z) in place of log p(z)."""

    instead: ClassVar[Mapping[str, str]] = PRIOR_FOR
    """The prior to use in its place for latents of another kind; "normal" where none is named."""

    def conflicts(self, parts: Any) -> Conflict | None:
        """The conflict with the posterior, if the two are over latents of different kinds; None otherwise."""
        if parts.posterior is None:
            return None
        sections, found = ("prior", "posterior"), parts.posterior.latent_kind
        if self.latent_kind != found:
            use = self.instead.get(found, "normal")
            return Conflict(sections, f"{self.latent_kind} against {found} latents; use prior={use}")
        if self.classes != parts.posterior.classes:
            found = f"{self.classes} against {parts.posterior.classes} classes a variable"
            return Conflict(sections, f"{found}; use the same for both")
        for latent in parts.model.sizes if self.classes is not None else ():
            if latent % self.classes:
                why = f"latent={latent} is no multiple of classes={self.classes}; use one that is"
                return Conflict(sections, why)
        return None

    @property
    def learns(self) -> bool:
        """Whether the prior has parameters to train, as a small one that is built to see has.

        >>> from lambent.priors import MixturePrior, NormalPrior
        >>> MixturePrior(components=3).learns, NormalPrior().learns
        (True, False)
        """
        with torch.random.fork_rng(devices=[]):
            return any(parameter.requires_grad for parameter in self._small().parameters())

    @property
    def smallest(self) -> int:
        """A number of latent dimensions that these settings can be built for."""
        return 2

    def _small(self) -> nn.Module:
        return self.build(Shapes((1,), self.smallest, condition=1))

    def states(self, latent: int) -> int | None:
        """The number of values that ``latent`` dimensions can take; None for continuous latents."""
        return None

    @abstractmethod
    def build(self, shapes: Shapes) -> nn.Module:
        """The prior for latents of ``shapes.latent`` dimensions."""


class AdaptivePriorModule(nn.Module, ABC):
    """A prior with buffers that follow the latents it is trained on, beside its parameters."""

    @abstractmethod
    def initialise(self, z: Tensor) -> None:
        """Starts from draws of q(z|x) at some examples, (..., *latent)."""

    @abstractmethod
    def update_buffers(self, z: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Follows the latents of a batch (..., *latent); ``total`` sums over processes."""


class CodePriorSettings(PriorSettings):
    """Settings of a prior over grids of code indices."""

    latent_kind: ClassVar[LatentKind] = "codes"

    def _small(self) -> nn.Module:
        return self.over_codes(2, (2, 2))

    @abstractmethod
    def over_codes(
        self, symbols: int, grid: tuple[int, ...], context: int | tuple[int, int, int] = 0, condition: int = 0
    ) -> nn.Module:
        """The prior as a module ``forward(context=None) -> p`` over grids of ``symbols`` codes.

        Args:
            symbols: Number of codes.
            grid: Shape of the grid: the event of p, whose values are indices.
            context: Size of the input from the levels above: a number, or a map (C, h, w). The input is flat, (B, c),
                or
                with samples in front, (K, B, c).
            condition: Size of the condition, which follows the context.
        """

    def build(self, shapes: Shapes) -> nn.Module:
        """Raises CombinationError: only a model of codes knows the shape of the grid."""
        raise CombinationError("a prior over codes needs a model of codes; use model=quantised")
