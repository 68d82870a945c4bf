"""A VAE with an auxiliary latent, the skip deep generative model of Maaløe et al. 2016."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lambent import Draw, LatentModel, Trace
from lambent.distributions import Normal, bounded_log_scale
from lambent.models.structure import INFERRED, NOT_ONE_LATENT, Absent, Parts, Slot, Structure, likelihood_of
from lambent.priors import LatentKind
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes


class NormalHead(nn.Linear):
    """A diagonal Normal whose mean and log scale are affine in its input."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__(features, 2 * latent)

    def forward(self, features: Tensor) -> Normal:  # type: ignore[override]
        """The distribution given ``features`` (..., features)."""
        mean, raw = super().forward(features).chunk(2, dim=-1)
        return Normal(mean, bounded_log_scale(raw))


class AuxiliaryVAE(LatentModel):
    """p(z) p(a|z) p(x|z,a) with q(a|x) q(z|x,a): q(z|x), with a integrated out, is no longer a Normal.

    Args:
        prior: p(z).
        encoder: Features of x for both posteriors.
        likelihood: p(x|z,a), called with z and a concatenated.
        sizes: Dimensions of z and of a.
    """

    likelihood: nn.Module
    encoder: Any

    def __init__(self, prior: nn.Module, encoder: nn.Module, likelihood: nn.Module, sizes: tuple[int, int]) -> None:
        super().__init__()
        latent, auxiliary = sizes
        self.prior, self.encoder, self.likelihood = prior, encoder, likelihood
        self.q_a = NormalHead(self.encoder.features, auxiliary)
        self.q_z = NormalHead(self.encoder.features + auxiliary, latent)
        self.p_a = nn.Sequential(nn.Linear(latent, 64), nn.ELU(), NormalHead(64, auxiliary))

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch ``x`` (B, *event), or generates without one."""
        if x is None:
            z = draw("z", self.prior(condition))
            a = draw("a", self.p_a(z.value))
        else:
            seen = self.as_input(x)
            draw = draw.informed(self.control, seen)  # for draws that learn a baseline
            features = self.encoder(seen, condition)
            q_a = self.q_a(features)
            a = draw("a", q_a, q_a)  # its prior p(a|z) isn't known before z
            z = draw("z", self.prior(condition), self.q_z(_joined(features.unsqueeze(0), a.value)))
            # z was drawn given a, so KL(q(a|x) || p(a|z)) is no expectation over a: use log q - log p of the sample.
            a = replace(a, p=self.p_a(z.value), analytic=False)
        return Trace(self.likelihood(_joined(z.value, a.value), condition), (a, z))  # lowest first: self.prior is z's

    def code(self, trace: Trace) -> Tensor:
        """What the decoder sees, (K, B, z and a)."""
        a, z = trace.latents
        return _joined(z.value, a.value)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p and of q, and of a baseline."""
        generative, inference = (self.prior, self.p_a, self.likelihood), (self.encoder, self.q_a, self.q_z)
        return {
            "generative": [p for module in generative for p in module.parameters()],
            "inference": [p for module in inference for p in module.parameters()],
            **self.control_group(),
        }


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Two tensors (K, B, *) along the last dimension; K of the first may be 1."""
    assert first is not None
    assert second is not None
    return torch.cat([first.expand(len(second), -1, -1), second], dim=-1)


@part("model", "auxiliary")
@dataclass(frozen=True)
class AuxiliaryStructure(Structure):
    """A continuous latent z with an auxiliary latent a, both Normal given x."""

    sections: ClassVar[Mapping[str, Slot]] = {name: slot for name, slot in INFERRED.items() if name != "posterior"}
    absent: ClassVar[Mapping[str, Absent]] = {**NOT_ONE_LATENT, "posterior": Absent("both are diagonal Normals")}
    latent: int = option(10, "dimensions of z", minimum=1)
    auxiliary: int = option(10, "dimensions of a", minimum=1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dimensions of each latent, lowest first."""
        return (self.auxiliary, self.latent)

    def latent_kind(self, parts: Parts) -> LatentKind:
        """Which priors and draws fit."""
        return "continuous"

    def conflicts(self, parts: Parts) -> Conflict | None:
        """Refused before training, with what would do."""
        if parts.prior.latent_kind == "continuous":
            return None
        return Conflict(("model", "prior"), "its latents are continuous; use prior=normal")

    def assemble(self, config: Parts, shapes: Shapes) -> AuxiliaryVAE:
        """The model from the parts of a configuration."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        likelihood = likelihood_of(config, replace(shapes, latent=self.latent + self.auxiliary))
        return AuxiliaryVAE(config.prior.build(shapes), encoder, likelihood, (self.latent, self.auxiliary))
