"""Codes: grids of entries of a codebook, on one level or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions.codes import CodeAssignment, EmbeddedCodes
from lambent.draws import Draw
from lambent.errors import ConfigError, DataError
from lambent.models.base import LatentModel, split_code
from lambent.models.structure import INFERRED, Parts, Slot, Structure, likelihood_given
from lambent.networks import ConvEncoder, affine
from lambent.networks.autoregressive.base import ContextShape, context_size
from lambent.networks.base import optional_hook
from lambent.networks.fold import fold
from lambent.posteriors import CodePosteriorSettings
from lambent.priors import CodePriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace

START = 1024
"""Most examples that codebooks are started from."""


class CodeLevel(nn.Module):
    """One grid of codes: what finds them, the codebook, and their prior given the levels above.

    Args:
        encoder: Features of the level below (of x, on the lowest level), flat.
        head: (features, map of the codes above) to vectors, as a map (d, h, w) or flat (P d).
        quantiser: The codebook.
        prior: ``prior(context)``: p over grids of indices given the map of the codes above and the condition, flat.
        features: Shape of the encoder's features, (C, h, w) or (F,).
        grid: Shape of the grid of codes, (h, w) or (P,).
    """

    encoder: Any
    head: Any
    quantiser: Any
    prior: Any

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        quantiser: nn.Module,
        prior: nn.Module,
        features: tuple[int, ...],
        grid: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.quantiser, self.prior = encoder, head, quantiser, prior
        self.features, self.grid = features, grid

    @property
    def positions(self) -> int:
        """P, codes in the grid."""
        return prod(self.grid)

    def posterior(self, features: Tensor, above: Tensor | None) -> CodeAssignment:
        """q(z|x, codes above) for features (B, ...): of batch (B,), or (K, B) below another level."""
        if above is None:
            return CodeAssignment(self._vectors(features, None), self.quantiser)
        return CodeAssignment(fold(lambda maps, own: self._vectors(own, maps), above, features), self.quantiser)

    def _vectors(self, features: Tensor | None, above: Tensor | None) -> Tensor:
        """What is quantised, (N, P, d)."""
        assert features is not None
        if len(self.grid) == 1:
            found: Tensor = self.head(features).unflatten(1, (self.positions, -1))
            return found
        joined = features if above is None else torch.cat([features, resized(above, self.grid)], 1)
        return self.head(joined).flatten(2).transpose(1, 2)

    def given(self, context: Tensor | None) -> EmbeddedCodes:
        """p(z| codes above, condition)."""
        return EmbeddedCodes(self.prior(context), self.quantiser)

    def as_map(self, value: Tensor) -> Tensor:
        """Embeddings (K, B, P d) as maps (K, B, d, h, w); as they are where the grid is no map."""
        if len(self.grid) == 1:
            return value
        return value.unflatten(2, (*self.grid, -1)).movedim(-1, 2)


def _require_codes(indices: Tensor, size: int) -> None:
    """Refuses what is no index of a codebook."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise DataError(
            f"codes {int(indices.min())}..{int(indices.max())}: expected 0..{size - 1}, indices of the codebook"
        )


class Quantised(LatentModel):
    """p(zL) ... p(z1|z2..zL) p(x|z1..zL), each z a grid of codes, with q a point mass on the nearest ones.

    VQ-VAE (van den Oord et al. 2017) with one level, VQ-VAE-2 (Razavi et al. 2019) with two or more: features go up
    from x, codes are found from the top down, and the decoder sees all of them. As log q = 0 on a countable set, the
    ELBO is a bound on log p(x); a uniform prior charges P log S nats for P of S codes, one that knows them less.

    Args:
        levels: Lowest first.
        likelihood: p(x|z), given the maps of all levels at the lowest one's size, flat.
    """

    likelihood: Any
    levels: Any

    def __init__(self, levels: Sequence[CodeLevel], likelihood: nn.Module) -> None:
        super().__init__()
        self.levels, self.likelihood = nn.ModuleList(levels), likelihood

    @property
    def names(self) -> list[str]:
        """Of the levels, lowest first."""
        return ["z"] if len(self.levels) == 1 else [f"z{i + 1}" for i in range(len(self.levels))]

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Finds the codes of a batch ``x``; generates them without one."""
        features = None if x is None else self._features(self.as_input(x), condition)
        latents: list[Latent] = []
        maps: list[Tensor] = []
        for i in reversed(range(len(self.levels))):
            level = self.levels[i]
            q = None if features is None else level.posterior(features[i], _stacked(maps))
            latents.insert(0, draw(self.names[i], level.given(self._context(maps, condition)), q))
            value = latents[0].value
            assert value is not None
            maps.insert(0, level.as_map(value))
        px = self.likelihood(self._seen(maps), condition)
        return Trace(px, tuple(latents), self._penalties(latents) if self.training else {})

    def _features(self, seen: Tensor, condition: Tensor | None) -> list[Tensor]:
        """Of each level, lowest first, (B, *features)."""
        found: list[Tensor] = []
        for level in self.levels:
            below = found[-1] if found else seen.to(self._dtype)
            found.append(level.encoder(below, condition).unflatten(1, level.features))
        return found

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.levels.parameters()).dtype

    @staticmethod
    def _context(maps: list[Tensor], condition: Tensor | None) -> Tensor | None:
        """What a prior is given: the maps above at the lowest one's size, then the condition, flat; None if nothing."""
        above = _stacked(maps)
        if above is None:
            return None if condition is None else condition.float()
        flat = above.flatten(2)
        return flat if condition is None else torch.cat([flat, condition.to(flat).expand(*flat.shape[:2], -1)], -1)

    @staticmethod
    def _seen(maps: list[Tensor]) -> Tensor:
        """What the decoder is given: all maps at the lowest one's size, flat."""
        stacked = _stacked(maps)
        assert stacked is not None
        return stacked.flatten(2)

    def _penalties(self, latents: list[Latent]) -> dict[str, Tensor]:
        """What draws codebooks and encoders to each other, by name (and level)."""
        found: dict[str, Tensor] = {}
        for level, z in zip(self.levels, latents, strict=True):
            if not isinstance(z.q, CodeAssignment):
                continue
            terms = level.quantiser.penalties(z.q.encoded.flatten(0, -3), z.q.indices.flatten(0, -2))
            for name, term in terms.items():
                found[name if len(latents) == 1 else f"{name} {z.name}"] = term.view(z.q.batch_shape)
        return found

    def code(self, trace: Trace) -> Tensor:
        """Indices of all levels side by side, lowest first, (K, B, codes)."""
        pairs = zip(self.levels, trace.latents, strict=True)
        return torch.cat([self._indices(level, z.value) for level, z in pairs], -1)

    @staticmethod
    def _indices(level: Any, value: Tensor | None) -> Tensor:
        assert value is not None
        found: Tensor = level.quantiser.indices_of(value.unflatten(-1, (level.positions, -1)))
        return found.to(value.dtype)

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) at indices (K, B, codes)."""
        parts = split_code(code.long(), [level.positions for level in self.levels])
        for level, indices in zip(self.levels, parts, strict=True):
            _require_codes(indices, level.quantiser.size)
        looked = [
            level.as_map(level.quantiser.lookup(p).flatten(-2)) for level, p in zip(self.levels, parts, strict=True)
        ]
        px: Distribution = self.likelihood(self._seen(looked), condition)
        return px

    @torch.no_grad()
    def initialise(self, x: Tensor, condition: Tensor | None = None) -> None:
        """Starts the likelihood from the data's means, and each codebook from what is to be quantised, top first."""
        self.likelihood.initialise(x)
        x, condition = x[:START], None if condition is None else condition[:START]
        features, maps = self._features(self.as_input(x), condition), list[Tensor]()
        for level, own in zip(reversed(self.levels), reversed(features), strict=True):
            if level.quantiser.needs_initialisation:
                level.quantiser.initialise(level.posterior(own, _stacked(maps)).encoded)
            value = level.posterior(own, _stacked(maps)).mode
            maps.insert(0, level.as_map(value.view(1, len(x), -1)))

    def update_buffers(
        self, trace: Trace, total: Callable[[Tensor], Tensor], *, leader: bool = True, counted: bool = True
    ) -> None:
        """Moves the codebooks after the batch of a step that was taken, unless their side, the decoder's, is frozen."""
        decoder = list(self.likelihood.parameters())
        if decoder and not any(p.requires_grad for p in decoder):
            return
        for level, z in zip(self.levels, trace.latents, strict=True):
            if isinstance(z.q, CodeAssignment):
                encoded, indices = z.q.encoded.flatten(0, -2), z.q.indices.flatten()
                rows = slice(None) if counted else slice(0)
                level.quantiser.update_buffers(encoded[rows], indices[rows], total, leader=leader)

    def pop_metrics(self) -> dict[str, Any]:
        """Usage (share of codes used) and perplexity since the last call, of each level."""
        found = {name: level.quantiser.pop_metrics() for name, level in zip(self.names, self.levels, strict=True)}
        return {"codes": found} if any(used["usage"] for used in found.values()) else {}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of codebooks and decoder ("generative"), of encoders ("inference"), and of priors ("prior")."""
        inference = [p for level in self.levels for part in (level.encoder, level.head) for p in part.parameters()]
        codebooks = [p for level in self.levels for p in level.quantiser.parameters()]
        generative = [*codebooks, *self.likelihood.parameters()]
        return {"generative": generative, "inference": inference, "prior": self.prior_parameters()}

    def prior_parameters(self) -> list[nn.Parameter]:
        """Those of the priors of all levels."""
        return [p for level in self.levels for p in level.prior.parameters()]

    def group_buffers(self) -> dict[str, list[Tensor]]:
        """Those of the codebooks, which are the generative side's however they learn."""
        return {"generative": [buffer for level in self.levels for buffer in level.quantiser.buffers()]}


def resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps (N, C, h, w) at another size, by nearest neighbours."""
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="nearest")


def _stacked(maps: list[Tensor]) -> Tensor | None:
    """Maps (K, B, C, h, w), lowest first, side by side at the first one's size; None where there are none."""
    if len(maps) < 2:
        return maps[0] if maps else None
    samples = max(m.shape[0] for m in maps)
    size = maps[0].shape[-2:]
    parts = [resized(m.flatten(0, 1), size).unflatten(0, m.shape[:2]).expand(samples, *[-1] * 4) for m in maps]
    return torch.cat(parts, 2)


@part("model", "quantised")
@dataclass(frozen=True)
class QuantisedStructure(Structure):
    """Grids of codes: VQ-VAE and its like with one level, VQ-VAE-2 with more.

    With a convolutional encoder there is a code for each position of its last map (its `smallest` says how small that
    is); an example is ``latent`` codes where the encoder gives plain features.
    """

    latent: int = option(16, "codes per example, where the encoder gives a vector and not a map", minimum=1)
    halvings: tuple[int, ...] = option(
        (),
        "for each level above the lowest, from low to high: how often the grid of the level below is halved",
        minimum=1,
    )
    sections: ClassVar[Mapping[str, Slot]] = {
        **INFERRED,
        "prior": Slot("uniform", (CodePriorSettings,), why="its latents are grids of codes"),
        "posterior": Slot("vq", (CodePosteriorSettings,), why="its latents are grids of codes"),
        "draw": Slot("straight-through"),
    }

    @property
    def level_count(self) -> int:
        """Those above and the lowest."""
        return 1 + len(self.halvings)

    def assemble(self, config: Parts, shapes: Shapes) -> Quantised:
        """Encoders upwards, a codebook and a prior a level, one decoder that sees all codes."""
        assert isinstance(config.posterior, CodePosteriorSettings)
        assert isinstance(config.prior, CodePriorSettings)
        levels: list[CodeLevel] = []
        ways = self._ways(config, shapes)
        grids = [_grid(map_, self.latent) for _, map_ in ways]
        quantisers = [config.posterior.quantiser() for _ in ways]
        widths = [q.dim for q in quantisers]
        for i, (encoder, map_) in enumerate(ways):
            channels = sum(widths[i + 1 :])
            above: ContextShape = _map(channels, grids[i + 1]) if channels else 0
            head = _head(map_, widths[i], self.latent, channels)
            prior = config.prior.over_codes(quantisers[i].size, grids[i], above, shapes.condition)
            levels.append(CodeLevel(encoder, head, quantisers[i], prior, map_, grids[i]))
        seen = _map(sum(widths), grids[0]) if len(grids[0]) == 2 else sum(widths) * grids[0][0]
        return Quantised(levels, likelihood_given(config, replace(shapes, latent=context_size(seen)), seen))

    def _ways(self, config: Parts, shapes: Shapes) -> list[tuple[nn.Module, tuple[int, ...]]]:
        """The encoder of each level and the shape of its features, lowest first."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        found = [(encoder, _features(encoder))]
        for halvings in self.halvings:
            if not isinstance(config.encoder, ConvEncoder) or len(found[-1][1]) != 3:
                raise ConfigError(
                    "model.halvings asks for maps above the lowest; use encoder=conv, or model.halvings=[]"
                )
            below = found[-1][1]
            if 2 ** (halvings - 1) >= max(below[1:]):
                raise ConfigError(
                    f"model.halvings={list(self.halvings)}: a map of {below[1]} x {below[2]} can't be halved "
                    f"{halvings} times; give fewer levels or halvings, or a larger encoder.smallest"
                )
            side = -(-max(below[1:]) // 2**halvings)
            settings = replace(config.encoder, smallest=side, channels=config.encoder.channels[-1:])
            found.append((upper := settings.build(below, shapes.condition), _features(upper)))
        return found


def _features(encoder: nn.Module) -> tuple[int, ...]:
    """The shape of an encoder's features: a map (C, h, w) where it has one, else (F,)."""
    shape: tuple[int, ...] | None = optional_hook(encoder, "map_shape")
    features = encoder.features
    assert isinstance(features, int)
    return (features,) if shape is None else shape


def _map(channels: int, grid: tuple[int, ...]) -> tuple[int, int, int]:
    return channels, grid[0], grid[1]


def _grid(features: tuple[int, ...], codes: int) -> tuple[int, ...]:
    return features[1:] if len(features) == 3 else (codes,)


def _head(features: tuple[int, ...], dim: int, codes: int, above: int) -> nn.Module:
    """Features (and the map above them) to what is quantised."""
    if len(features) == 1:
        return affine(features[0], codes * dim)
    return nn.Conv2d(features[0] + above, dim, 3 if above else 1, padding=1 if above else 0)
