"""Penalties with a critic: a network that tells draws of q(z) from others, trained beside the model by its own loss.

The penalty sees the critic's parameters held fixed, and the critic's loss the latents detached, so that neither loss
ever moves the other's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.networks.activations import ACTIVATIONS
from lambent.networks.mlp import MLPDecoderModule
from lambent.objectives.penalties.l1l2 import PenaltySettings, drawn_value
from lambent.objectives.penalties.mmd import prior_value
from lambent.settings import option, part
from lambent.trace import Latent

if TYPE_CHECKING:
    from lambent.shapes import Shapes


class Critic(nn.Module):
    """A logit for each latent: above 0 where the critic takes it for the first of its two kinds."""

    def __init__(self, latent: int, hidden: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.net = MLPDecoderModule(latent, (1,), hidden, activation, 0)

    def forward(self, z: Tensor) -> Tensor:
        """(K, B) logits of latents (K, B, D)."""
        flat = z.flatten(0, 1).to(self.net.output.weight.dtype)
        return self.net(flat).view(z.shape[:2])

    def held(self, z: Tensor) -> Tensor:
        """The same with the parameters held fixed: gradients reach ``z`` alone."""
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, fixed, (z,))


@dataclass(frozen=True)
class CriticSettings(PenaltySettings):
    """What penalties with a critic share: its network."""

    gradients: ClassVar[tuple[str, ...]] = ("path", "double")
    weight: float = option(10.0, "factor of the penalty", minimum=0)
    critic_hidden: tuple[int, ...] = option((256, 256), "width of each hidden layer of the critic", minimum=1)
    critic_activation: str = option("leaky-relu", "activation of the critic's hidden layers", choices=ACTIVATIONS)

    def critic(self, shapes: Shapes) -> Critic:
        """A fresh critic of one level of latents."""
        return Critic(shapes.latent, self.critic_hidden, self.critic_activation)


@part("penalty", "factor")
@dataclass(frozen=True)
class FactorPenalty(CriticSettings):
    """weight * E_q[logit(z)], the total correlation by a density ratio (Kim & Mnih 2018, eq. 2 and 3).

    The critic tells z ~ q(z) from z whose dimensions are permuted over the batch, each by itself, which are draws of
    prod_i q(z_i) where the batch is large. The same batch serves for both (their algorithm 1 permutes a second one).
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "binary")

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty with its critic."""
        return {"factor": FactorPenaltyModule(self.critic(shapes), self.weight)}


class FactorPenaltyModule(nn.Module):
    """The density-ratio estimate of the total correlation, and the loss of its critic."""

    def __init__(self, critic: Critic, weight: float) -> None:
        super().__init__()
        self.critic, self.weight = critic, weight

    def forward(self, latent: Latent) -> Tensor:
        """Weight * logit, (K, B)."""
        return self.weight * self.critic.held(drawn_value(latent, "factor"))

    def loss(self, latent: Latent) -> Tensor:
        """Half the cross-entropy of each kind, a scalar."""
        z = drawn_value(latent, "factor").detach()
        return 0.5 * _cross_entropy(self.critic(z), self.critic(permuted(z)))


def permuted(z: Tensor) -> Tensor:
    """(K, B, D) with each dimension permuted over the batch by itself; draws from torch's own random state."""
    return z.gather(1, torch.rand_like(z).argsort(1))


def _cross_entropy(first: Tensor, second: Tensor) -> Tensor:
    """-E log sigmoid(first) - E log sigmoid(-second)."""
    return F.softplus(-first).mean() + F.softplus(second).mean()


@part("penalty", "adversarial")
@dataclass(frozen=True)
class AdversarialPenalty(CriticSettings):
    """-weight * E_q[log sigmoid(logit(z))], by a critic of prior against q(z): adversarial autoencoders.

    The encoder is to make draws of q(z) that pass for the prior's, by the non-saturating loss (Makhzani et al. 2016,
    section 2; with a factor, WAE-GAN, Tolstikhin et al. 2018, algorithm 1).
    """

    compares: ClassVar[bool] = True
    weight: float = option(1.0, "factor of the penalty", minimum=0)

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty with its critic."""
        return {"adversarial": AdversarialPenaltyModule(self.critic(shapes), self.weight)}


class AdversarialPenaltyModule(nn.Module):
    """The encoder's adversarial loss, and the critic's."""

    def __init__(self, critic: Critic, weight: float) -> None:
        super().__init__()
        self.critic, self.weight = critic, weight

    def forward(self, latent: Latent) -> Tensor:
        """Weight * softplus(-logit), (K, B)."""
        return self.weight * F.softplus(-self.critic.held(drawn_value(latent, "adversarial")))

    def loss(self, latent: Latent) -> Tensor:
        """The cross-entropy of prior and q, a scalar."""
        z = drawn_value(latent, "adversarial").detach()
        return _cross_entropy(self.critic(prior_value(latent).detach()), self.critic(z))
