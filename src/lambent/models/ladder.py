"""A ladder of latents: what each level sees of x goes up, and both p and q come down."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.draws import Draw, Enumerate, Given
from lambent.errors import ConfigError
from lambent.models.base import LatentModel, split_code
from lambent.models.structure import INFERRED, Parts, Slot, VectorLevels, likelihood_given
from lambent.networks.base import optional_hook
from lambent.networks.fold import fold, fold_together
from lambent.networks.ladder.base import BottomUpMLP, LadderLevel, VectorLevel, VectorSizes, VectorStyle
from lambent.posteriors import MergedNormalPosterior, PosteriorSettings
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace

__all__ = ["Ladder", "LadderLevel"]


class Ladder(LatentModel):
    """p(zN) p(zN-1|zN) ... p(z1|z2..zN) p(x|z1..zN) with q(zN|x) q(zN-1|x,zN) ... q(z1|x,z2..zN).

    Ladder VAE (Sonderby et al. 2016), NVAE (Vahdat & Kautz 2020), VDVAE (Child 2021). Both sides share the state that
    comes down, so that the prior of every level is known where its posterior is, and every rate has a closed form
    where the families have one (given the levels above, which are drawn).

    Args:
        prior: p(zN), ``prior(condition)``.
        family: q of a level, `PosteriorSettings.around` its p; p of a level is of its ``conditional()``.
        bottom: ``bottom(x as input (B, *event), condition)``: a list of what each level sees of x, lowest first.
        levels: Lowest first.
        likelihood: p(x|z), given the last state, flat (K, B, numbers).
        states: Number of values of each level, where they are discrete and small enough to enumerate.
    """

    likelihood: Any

    def __init__(
        self,
        prior: nn.Module,
        family: PosteriorSettings,
        bottom: nn.Module,
        levels: Sequence[LadderLevel],
        likelihood: nn.Module,
        states: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.prior, self.family, self.bottom, self.likelihood = prior, family, bottom, likelihood
        self.levels: Any = nn.ModuleList(levels)
        self.states = tuple(states)

    @property
    def names(self) -> list[str]:
        """Of the levels, lowest first: z1, z2, ..."""
        return [f"z{i + 1}" for i in range(len(self.levels))]

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs down the ladder, seeing a batch ``x`` (B, *event) or generating."""
        seen: list[Tensor | None] = [None] * len(self.levels)
        if x is not None:
            read = self.as_input(x)
            draw = self._placed(draw).informed(self.control, read)
            seen = list(self.bottom(read.to(next(self.parameters(), read).dtype), condition))
        latents, state = self._down(seen, draw, condition)
        px = self.likelihood(state.flatten(2), condition)
        return Trace(px, tuple(latents), self._penalties() if self.training and x is not None else {})

    def _down(self, seen: list[Tensor | None], draw: Draw, condition: Tensor | None) -> tuple[list[Latent], Tensor]:
        """The levels, lowest first, and the last state."""
        latents: list[Latent] = []
        state: Tensor | None = None
        for level, name, own in zip(reversed(self.levels), reversed(self.names), reversed(seen), strict=True):
            p = self._prior(level, state, condition)
            q = None if own is None else self._posterior(level, own, state, p, condition)
            latents.insert(0, draw(name, p, q))
            state = self._next(level, state, latents[0].value, condition)
        assert state is not None
        return latents, state

    def _prior(self, level: Any, state: Tensor | None, condition: Tensor | None) -> Distribution:
        """p(z|levels above): of batch shape (K, B), or the prior's own at the top."""
        if state is None:
            p: Distribution = self.prior(condition)
            return p
        return self.family.conditional().distribution(fold(level.prior_numbers, state, condition), level.latent)

    def _posterior(
        self, level: Any, seen: Tensor, state: Tensor | None, p: Distribution, condition: Tensor | None
    ) -> Distribution:
        """q(z|x, levels above): of batch shape (K, B), or (B,) at the top."""
        if state is None:
            return self.family.distribution(level.posterior_params(seen, None, condition), level.latent)
        numbers = fold_together(lambda s, x, c: level.posterior_params(x, s, c), (state,), (seen, condition))
        return self.family.around(numbers, p, level.latent)

    def _next(self, level: Any, state: Tensor | None, value: Tensor | None, condition: Tensor | None) -> Tensor:
        assert value is not None
        z = self.family.as_input(value).to(next(level.parameters(), value).dtype)
        if state is None:
            return fold(lambda own, c: level.next(None, own, c), z, condition)
        return fold_together(level.next, (state, z), (condition,))

    def _placed(self, draw: Draw) -> Draw:
        """Gives an enumeration each level's position among the others, the top first."""
        if not isinstance(draw, Enumerate):
            return draw
        n = len(self.states)
        places = {self.names[i]: (math.prod(self.states[:i]), math.prod(self.states[i + 1 :])) for i in range(n)}
        return dataclasses.replace(draw, places=dict(reversed(places.items())))

    def _penalties(self) -> dict[str, Tensor]:
        """Those of the bottom and the levels, summed by name."""
        found: dict[str, Tensor] = {}
        for piece in (self.bottom, *self.levels):
            terms = optional_hook(piece, "penalties")
            for name, term in ({} if terms is None else terms()).items():
                found[name] = found[name] + term if name in found else term
        return found

    def code(self, trace: Trace) -> Tensor:
        """All levels side by side, lowest first, (K, B, sum of D)."""
        return torch.cat([latent.value for latent in trace.latents if latent.value is not None], -1)

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) at the values of all levels side by side, lowest first, (K, B, sum of D)."""
        parts = split_code(code, [level.latent for level in self.levels])
        px: Distribution = self(None, Given(values=dict(zip(self.names, parts, strict=True))), condition).px
        return px

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative"), and of what q alone uses ("inference")."""
        parts = [self.bottom, *(piece for level in self.levels for piece in level.inference)]
        inference = list(nn.ModuleList(parts).parameters())
        own = {id(p) for p in inference}
        sides = (self.prior, self.levels, self.likelihood)
        generative = [p for side in sides for p in side.parameters() if id(p) not in own]
        return {"generative": generative, "inference": inference, **self.control_group()}


@part("model", "ladder")
@dataclass(frozen=True)
class LadderStructure(VectorLevels):
    """Levels of latents, both inferred and generated from the top down; all networks fully connected.

    The encoder gives what the lowest level sees of x, the decoder makes p(x|z); networks between levels have the
    encoder's activation. With posterior=merged-normal and no skip it is the ladder of Sonderby et al. (2016).
    """

    sections: ClassVar[Mapping[str, Slot]] = {
        **INFERRED,
        "posterior": Slot("normal", also=("residual-normal", "merged-normal")),
    }
    latent: int = option(10, "latent dimensions of the lowest level", minimum=1)
    upper_latents: tuple[int, ...] = option(
        (5,), "latent dimensions of each level above the lowest, from lowest to highest", minimum=1
    )
    between_hidden: tuple[int, ...] = option(
        (),
        "width of the networks from each level to the next, from lowest to highest; none: as in the encoder",
        minimum=1,
    )
    layers: int = option(1, "layers of each network between levels", minimum=1)
    skip: bool = option(True, "whether a level is conditioned on all levels above it, not only on the next")  # noqa: FBT003

    def conflicts(self, parts: Parts) -> Conflict | None:
        """A level takes what the family needs from its head alone."""
        if any(parts.posterior.shared_size(latent) for latent in self.sizes):
            why = "a level has no numbers alike for all examples; use posterior=normal"
            return Conflict(("model", "posterior"), why)
        return super().conflicts(parts)

    def reads(self, parts: Parts) -> None:
        """None: the decoder sees the state after the lowest level."""
        return

    def assemble(self, config: Parts, shapes: Shapes) -> Ladder:
        """Networks upwards and downwards between levels of the same widths."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        features = encoder.features
        assert isinstance(features, int)
        seen, style = (features, *self._between(features)), self._style(config)
        steps = [style.step(a, shapes.condition, b) for a, b in itertools.pairwise(seen)]
        levels = [self._level(i, config, shapes, seen, style) for i in range(len(self.sizes))]
        last = self.latent + (seen[1] if self.skip and self.upper_latents else 0)
        prior = config.prior.build(replace(shapes, latent=self.sizes[-1]))
        likelihood = likelihood_given(config, replace(shapes, latent=last), last)
        return Ladder(
            prior,
            config.posterior,
            BottomUpMLP(encoder, steps, shapes.condition),
            levels,
            likelihood,
            self.states(config),
        )

    def _level(self, i: int, config: Parts, shapes: Shapes, seen: tuple[int, ...], style: VectorStyle) -> VectorLevel:
        latent, above = self.sizes[i], seen[i + 1] if i + 1 < len(seen) else 0
        p, q = config.posterior.conditional().width(latent), config.posterior.width(latent)
        sizes = VectorSizes(latent, p, q, seen[i], above, seen[i] if i else 0, shapes.condition)
        level = VectorLevel(sizes, style)
        config.posterior.initialise(level.head, latent)
        return level

    def _style(self, config: Parts) -> VectorStyle:
        name = getattr(config.encoder, "activation", "elu")
        looks = self.skip or not isinstance(config.posterior, MergedNormalPosterior)
        return VectorStyle(name, self.layers, self.skip, looks, 1 / math.sqrt(len(self.sizes)))

    def _between(self, features: int) -> tuple[int, ...]:
        """Widths of the networks between levels."""
        if self.between_hidden and len(self.between_hidden) != len(self.upper_latents):
            raise ConfigError(
                f"model.between_hidden has {len(self.between_hidden)} numbers for {len(self.upper_latents)} levels "
                "above the lowest; give one for each, or none"
            )
        return self.between_hidden or (features,) * len(self.upper_latents)
