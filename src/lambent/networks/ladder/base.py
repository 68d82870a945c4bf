"""Networks of ladders: what every level of one offers, and fully connected ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from lambent.networks.activations import activation
from lambent.networks.base import join
from lambent.networks.mlp import affine


class LadderLevel(nn.Module, ABC):
    """The networks of one level of a ladder, on flat batches (N, ...); they come down with a state of any shape.

    Args:
        latent: D, dimensions of the level's latent, which is always flat.
        width_p: Numbers that its p is made of.
        width_q: Numbers that its q is made of.
    """

    def __init__(self, latent: int, width_p: int, width_q: int) -> None:
        super().__init__()
        self.latent, self.width_p, self.width_q = latent, width_p, width_q

    @abstractmethod
    def prior_numbers(self, state: Tensor, condition: Tensor | None) -> Tensor:
        """Of p(z|levels above), (N, width_p); never called at the top, where the model has a prior."""

    @abstractmethod
    def posterior_params(self, seen: Tensor, state: Tensor | None, condition: Tensor | None) -> Tensor:
        """Of q(z|x, levels above), (N, width_q), from what this level sees of x; ``state`` is None at the top."""

    @abstractmethod
    def next(self, state: Tensor | None, z: Tensor, condition: Tensor | None) -> Tensor:
        """What the level below starts from, (N, ...), once z (N, D) is known; ``state`` is None at the top."""

    @property
    @abstractmethod
    def inference(self) -> Sequence[nn.Module]:
        """The modules that only q uses; all others are the generative side's."""

    def penalties(self) -> dict[str, Tensor]:
        """Scalar terms of the training loss by name, which are summed over levels."""
        return {}


class ResidualMLP(nn.Module):
    """Fully connected layers of ``outputs`` units, each with layer normalisation and an activation.

    With ``carried`` numbers, the first of the input, the layers end in an affine map that starts small, and add to what
    is carried (brought to the size by another affine map where it has another): a residual network.

    Args:
        inputs: Numbers that come in, the condition's after them.
        outputs: Numbers that go out, and the width of every layer.
        layers: How many.
        name: The activation.
        carried: How many of ``inputs`` are carried; 0 for a plain network.
        gain: Of the affine map that is added.
    """

    def __init__(
        self, inputs: int, outputs: int, layers: int, name: str, *, carried: int = 0, gain: float = 1.0
    ) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * layers]
        parts = [hidden(a, b, name) for a, b in pairwise(widths)]
        self.carried, self.outputs = carried, outputs
        self.layers = nn.Sequential(*parts, *([affine(outputs, outputs, gain=gain)] if carried else []))
        self.carry = affine(carried, outputs) if carried not in (0, outputs) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs) from (N, inputs)."""
        found: Tensor = self.layers(x)
        if not self.carried:
            return found
        kept = x[:, : self.carried]
        return found + (kept if self.carry is None else self.carry(kept))


def hidden(inputs: int, outputs: int, name: str) -> nn.Sequential:
    """One layer; normalised within an item, so that evaluation computes what training did."""
    return nn.Sequential(affine(inputs, outputs, name), nn.LayerNorm(outputs), activation(name))


class BottomUpMLP(nn.Module):
    """Features of x for each level: an encoder's, then one residual step per level.

    Args:
        encoder: From x to what the lowest level sees.
        steps: From each level to the next, lowest first.
        condition: Numbers of the condition.
    """

    def __init__(self, encoder: nn.Module, steps: Iterable[ResidualMLP], condition: int) -> None:
        super().__init__()
        self.encoder, self.steps, self.condition = encoder, nn.ModuleList(steps), condition

    def forward(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """Features of every level, lowest first, (B, F_i)."""
        seen = [self.encoder(x, condition)]
        for step in self.steps:
            seen.append(step(join(seen[-1], condition, self.condition)))
        return seen


@dataclass(frozen=True)
class VectorStyle:
    """What the levels of a fully connected ladder have in common.

    Attributes:
        activation: Its name.
        layers: Of each step.
        skip: Whether a level, and at last the decoder, sees the levels further up beside the one above it.
        looks: Whether q sees them too (else it is relative to a p that does).
        gain: Of what a step adds to the state that is carried down; small in a deep ladder.
    """

    activation: str
    layers: int = 1
    skip: bool = True
    looks: bool = True
    gain: float = 1.0

    def step(self, carried: int, beside: int, outputs: int) -> ResidualMLP:
        """From ``carried`` numbers (which are added to the result, with ``skip``) and more beside them."""
        kept = carried if self.skip else 0
        return ResidualMLP(carried + beside, outputs, self.layers, self.activation, carried=kept, gain=self.gain)


@dataclass(frozen=True)
class VectorSizes:
    """How many numbers one level of a fully connected ladder has of everything.

    Attributes:
        latent: D.
        p: That make p.
        q: That make q.
        seen: That it sees of x.
        state: That come from above; 0 at the top.
        below: That the level below is given; 0 at the bottom, where z itself goes on (beside the state, with skip).
        condition: Of the condition.
    """

    latent: int
    p: int
    q: int
    seen: int
    state: int = 0
    below: int = 0
    condition: int = 0


class VectorLevel(LadderLevel):
    """One level of fully connected networks: affine maps from the state to p, and from what is seen to q.

    P starts nearly the same for all states: a scale too small by chance costs thousands of nats. Q does not start so:
    a level that tells nothing of x at first is soon given up.
    """

    def __init__(self, sizes: VectorSizes, style: VectorStyle) -> None:
        super().__init__(sizes.latent, sizes.p, sizes.q)
        self.sizes, self.style = sizes, style
        self.prior = affine(sizes.state, sizes.p, gain=0.1) if sizes.state else None
        joined = sizes.state if style.looks else 0
        self.reader = hidden(sizes.seen + joined, sizes.seen, style.activation) if joined else nn.Identity()
        self.head = affine(sizes.seen, sizes.q)
        kept = sizes.state if style.skip else 0
        self.step = style.step(kept, sizes.latent + sizes.condition, sizes.below) if sizes.below else None

    def prior_numbers(self, state: Tensor, condition: Tensor | None) -> Tensor:
        """An affine map of the state, in which the condition is already."""
        assert self.prior is not None
        found: Tensor = self.prior(state)
        return found

    def posterior_params(self, seen: Tensor, state: Tensor | None, condition: Tensor | None) -> Tensor:
        """An affine map of what is seen, or of a layer that sees the state too."""
        joined = seen if state is None or not self.style.looks else torch.cat([seen, state], 1)
        found: Tensor = self.head(self.reader(joined))
        return found

    def next(self, state: Tensor | None, z: Tensor, condition: Tensor | None) -> Tensor:
        """One step from the state and z; at the bottom both side by side."""
        joined = z if state is None or not self.style.skip else torch.cat([state, z], 1)
        if self.step is None:
            return joined
        found: Tensor = self.step(join(joined, condition, self.sizes.condition))
        return found

    @property
    def inference(self) -> Sequence[nn.Module]:
        """The head of q and the layer before it."""
        return (self.reader, self.head)
