"""Posteriors that assign each position to a code: the settings of their quantisers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from torch import Tensor

from lambent.errors import CombinationError
from lambent.networks.quantisers.codebook import Codebook, Learning, Quantiser
from lambent.networks.quantisers.finite_scalar import FiniteScalar
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import option, part


class CodePosteriorSettings(PosteriorSettings):
    """q(z|x) at the code of what an encoder gives for each position; only a model of codes knows the positions."""

    reserved: ClassVar[str] = "its codes come in a grid, which this structure does not have; use model=quantised"
    latent_kind: ClassVar[LatentKind] = "codes"
    marginals: ClassVar[bool] = False
    relaxable: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True

    @abstractmethod
    def quantiser(self) -> Quantiser:
        """A new quantiser; its ``dim`` is the size of the encoder's output at each position."""

    def width(self, latent: int) -> NoReturn:
        """Raises CombinationError: only a model of codes has a head for every position."""
        raise _refusal()

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> NoReturn:
        """Raises CombinationError, as `width` does."""
        raise _refusal()


def _refusal() -> CombinationError:
    return CombinationError("a posterior over codes needs a model of codes; use model=quantised")


@part("posterior", "vq")
@dataclass(frozen=True)
class VectorQuantisedPosterior(CodePosteriorSettings):
    """The nearest code of a learned codebook (van den Oord et al. 2017, NeurIPS)."""

    codebook_size: int = option(512, "size of the codebook", minimum=2)
    embedding_dim: int = option(64, "dimensions of a code", minimum=1)
    codebook_update: str = option(
        "ema",
        "how codes are learned: by running means of encoder outputs (ema), or by gradient",
        choices=("ema", "gradient"),
    )
    decay: float = option(0.99, "ema: decay of the running counts and sums per training step", minimum=0, maximum=1)
    smoothing: float = option(1e-5, "ema: Laplace smoothing of the counts, in encoder outputs", above=0)
    dead_code_threshold: float = option(
        0.03,
        "a code counted less than this share of the mean (ema), or not used for an epoch (gradient), is replaced by an "
        "encoder output; 0 replaces none",
        minimum=0,
        maximum=1,
    )
    commitment: float = option(0.25, "factor of the squared distance of encoder outputs from their codes", minimum=0)
    codebook_init: str = option(
        "k-means", "initial codes: taken from encoder outputs, or random", choices=("k-means", "random")
    )

    def quantiser(self) -> Codebook:
        """A new codebook with these learning rules."""
        rules = (
            self.codebook_update,
            self.decay,
            self.smoothing,
            self.dead_code_threshold,
            self.commitment,
            self.codebook_init,
        )
        return Codebook(self.codebook_size, self.embedding_dim, Learning(*rules))


@part("posterior", "fsq")
@dataclass(frozen=True)
class FiniteScalarPosterior(CodePosteriorSettings):
    """The nearest point of a fixed grid (Mentzer et al. 2024, ICLR): nothing to learn, to commit to, or to revive."""

    bins: tuple[int, ...] = option((8, 5, 5, 5), "grid points of each dimension of a code", minimum=3)

    def quantiser(self) -> FiniteScalar:
        """A new grid of codes."""
        return FiniteScalar(self.bins)
