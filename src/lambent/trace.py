"""The ledger of nats: what one run of a model on one batch leaves behind.

Shapes: batch B and importance samples K lead, so ``x`` is (B, *event), ``z`` is (K, B, *latent) and every log density
is (K, B). All terms are natural logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.kl import closed_kl, closed_kl_elements
from lambent.errors import CombinationError, ShapeError

Kind = Literal["exact", "lower bound", "not a bound"]
STREAMS = 3
"""Versions of a sample that a control variate looks at: the draw, its relaxation, and one redrawn given the draw."""
Advantage = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(credit, its prediction from the other samples), both (K, B) -> credit less a baseline, and the baseline's loss."""


class PathWeights:
    """Factors of the gradient that goes back through a value, known once all is drawn.

    Attributes:
        factors: (K, B); None leaves the gradient as it is.
    """

    factors: Tensor | None = None

    def on(self, value: Tensor) -> Tensor:
        """``value`` (K, B, *), its gradient on the way back times the factors that are there by then."""
        return _Weighted.apply(value, self)


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weights: PathWeights) -> Tensor:
        ctx.weights = weights
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        factors = ctx.weights.factors
        if factors is None:
            return grads[0], None
        return grads[0] * factors.view(*factors.shape, *[1] * (grads[0].dim() - 2)), None


@dataclass(frozen=True, eq=False)
class Latent:
    """One level of latents, already drawn; every term is (K, B), in nats.

    Terms are computed from ``p``, ``q`` and ``value`` when first asked for, unless the draw knew them (``known`` may
    hold "log_p", "log_q" and "kl"), so that a bound with a closed-form KL never pays for two log densities.

    Attributes:
        name: Names the level in errors and logs.
        value: (K, B, *latent), or None when only a rate is known (a subsampled diffusion level).
        p: The prior this level was scored under.
        q: The posterior it was drawn from; None for a generated sample.
        known: Terms that the draw supplies itself.
        analytic: Whether the rate may use the closed-form KL where one exists.
        score: log q of a draw that autograd can't follow, (K, B); the objective supplies its signal.
        advantage: What is taken off that signal before it meets the score (a baseline); None takes off nothing.
        log_mass: (K, B) log probability of each slice when K runs over all values of this level (`Enumerate`).
        repeats: How often each value occurs along an enumerated K (so that other levels are drawn several times).
        doubly: Where the objective puts the normalised weights, by which the gradient through this value is to be
            weighted once more (DReG).
        control: A control variate's parameters; K then holds `STREAMS` versions of each sample, of which only the first
            third are draws of q.
        relaxed: The value stands for a discrete one but is none, so that no bound can be had from it.
    """

    name: str
    value: Tensor | None
    p: Distribution | None = None
    q: Distribution | None = None
    known: Mapping[str, Tensor] = field(default_factory=dict)
    analytic: bool = True
    score: Tensor | None = None
    advantage: Advantage | None = None
    log_mass: Tensor | None = None
    repeats: int = 1
    doubly: PathWeights | None = None
    control: Any = None
    relaxed: bool = False
    _found: dict[str, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def _once(self, name: str, compute: Callable[[], Tensor | None]) -> Any:
        """The term ``name``, computed when it is first asked for (functools' cached_property can't be compiled)."""
        if name not in self._found:
            self._found[name] = self.known[name] if name in self.known else compute()
        return self._found[name]

    @property
    def log_p(self) -> Tensor:
        """Log p(z) (given the levels above), (K, B)."""
        found: Tensor = self._once("log_p", lambda: self._log_prob(self.p, "p"))
        return found

    @property
    def log_q(self) -> Tensor:
        """Log q(z|x), (K, B)."""
        found: Tensor = self._once("log_q", lambda: self._log_prob(self.q, "q"))
        return found

    def _log_prob(self, distribution: Distribution | None, which: str) -> Tensor:
        if self.value is None:
            raise CombinationError(
                f"latent {self.name!r} only reports a rate: no log {which} exists; use objective=elbo"
            )
        if distribution is None:
            raise CombinationError(f"latent {self.name!r} was drawn without a {which}: no log {which} exists; give x")
        result = distribution.log_prob(self.value)
        expected = self.value.shape[: self.value.dim() - len(distribution.event_shape)]
        if result.shape != expected:
            raise ShapeError(f"log {which}({self.name}) has shape {tuple(result.shape)}, expected {tuple(expected)}")
        return result

    @property
    def kl(self) -> Tensor | None:
        """KL(q||p) in closed form, or the draw's unbiased estimate of it; None if there is neither."""
        found: Tensor | None = self._once("kl", self._closed_kl)
        return found

    def _closed_kl(self) -> Tensor | None:
        if not self.analytic or self.p is None or self.q is None or self.value is None:
            return None
        kl = closed_kl(self.q, self.p)
        return None if kl is None else kl.expand(self.value.shape[:2])

    @property
    def rate_elements(self) -> Tensor | None:
        """The closed-form KL before its event sum, (..., B, *latent); free bits are counted per dimension."""
        if not self.analytic or self.p is None or self.q is None:
            return None
        p, q = self.p, self.q
        found: Tensor | None = self._once("rate_elements", lambda: closed_kl_elements(q, p))
        return found

    @property
    def rate(self) -> Tensor:
        """KL(q||p): closed form where there is one, else log q - log p of the draw, (K, B)."""
        return self.log_q - self.log_p if self.kl is None else self.kl

    @property
    def normalised(self) -> bool:
        """Whether p and q are densities and the value is theirs, so that log p - log q belongs in a bound."""
        return not self.relaxed and all(getattr(d, "normalised", True) for d in (self.p, self.q) if d is not None)


@dataclass(frozen=True, eq=False)
class Trace:
    """The record of one run of a model: all that objectives and evaluators see.

    Attributes:
        px: p(x|z), with batch shape (K, B).
        latents: The levels, possibly none.
        penalties: Named terms that are not nats and never enter a bound, each (K, B), (B,) or a scalar.
        critics: The scalar losses by which penalties that learn train their own parameters, and nothing else.
    """

    px: Distribution
    latents: tuple[Latent, ...] = ()
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    critics: Mapping[str, Tensor] = field(default_factory=dict)

    def log_px(self, x: Tensor) -> Tensor:
        """Log p(x|z), (K, B).

        Raises:
            ShapeError: ``x`` would be broadcast against the likelihood instead of being scored by it, or the likelihood
                doesn't say which of its dimensions make one example.
        """
        if len(self.px.batch_shape) != 2:
            raise ShapeError(
                f"p(x|z) has batch shape {tuple(self.px.batch_shape)} and event shape {tuple(self.px.event_shape)}, "
                "expected the batch (K, B); declare the dimensions of one example as event"
            )
        expected = self.px.batch_shape[1:] + self.px.event_shape
        if x.shape != expected:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected {tuple(expected)} for the likelihood")
        result = self.px.log_prob(x)
        if result.shape != self.px.batch_shape:
            raise ShapeError(
                f"log p(x|z) has shape {tuple(result.shape)}, expected {tuple(self.px.batch_shape)}; "
                f"x {tuple(x.shape)} was broadcast"
            )
        return result

    @property
    def rate(self) -> Tensor:
        """Sum of the levels' rates, (K, B); 0 without latents."""
        if not self.latents:
            return torch.zeros(())
        return sum((latent.rate for latent in self.latents[1:]), self.latents[0].rate)

    def distortion(self, x: Tensor) -> Tensor:
        """-log p(x|z), (K, B)."""
        return -self.log_px(x)

    def log_weight(self, x: Tensor) -> Tensor:
        """Log w = log p(x|z) + log p(z) - log q(z|x), (K, B): never a closed-form KL, one number per draw."""
        self._require_weights()
        terms = [latent.log_p - latent.log_q for latent in self.latents]
        return sum(terms, self.log_px(x))

    def _require_weights(self) -> None:
        for latent in self.latents:
            if latent.value is None:
                raise CombinationError(
                    f"latent {latent.name!r} only reports a rate: no importance weight exists; use objective=elbo"
                )
            if not latent.normalised and not latent.relaxed:
                raise CombinationError(
                    f"latent {latent.name!r} has a flat prior or a point posterior: no importance weight exists; "
                    "use objective=elbo, or a proper prior and posterior"
                )
            if getattr(latent.p, "estimated", False) and self.samples > 1:
                raise CombinationError(
                    f"latent {latent.name!r}: log p is one random term of a bound here, of which no weights of several "
                    "samples can be made; use objective=elbo, or one sample"
                )

    def average(self, values: Tensor) -> Tensor:
        """E over the draws, (K, B, ...) -> (B, ...): the mean over K, or the q-weighted sum where K enumerates."""
        log_mass = self._log_mass
        if log_mass is None:
            drawn = self.drawn(values)
            return drawn.squeeze(0) if len(drawn) == 1 else drawn.mean(0)
        mass = log_mass.exp().view(*log_mass.shape, *[1] * (values.dim() - 2))
        return torch.where(mass == 0, torch.zeros_like(values), mass * values).sum(0)

    def drawn(self, values: Tensor) -> Tensor:
        """Those of (K, B) values that belong to draws of q: all, but for a control variate's versions of them."""
        return values[: self.samples] if self.controlled else values

    @property
    def samples(self) -> int:
        """K: draws of q for each example (a control variate's versions of them don't count)."""
        return self.px.batch_shape[0] // (STREAMS if self.controlled else 1)

    @property
    def followed(self) -> bool:
        """Whether autograd follows every draw, so that no objective need supply a signal."""
        return all(latent.score is None for latent in self.latents)

    @property
    def controlled(self) -> bool:
        """Whether K holds a control variate's versions of each sample."""
        return any(latent.control is not None for latent in self.latents)

    def log_mean_weight(self, x: Tensor) -> Tensor:
        """Log (1/K) sum_k w_k, (B,), by logsumexp; the exact log p(x) where K enumerates every level."""
        if not self.enumerated:
            weights = self.drawn(self.log_weight(x))
            return torch.logsumexp(weights, 0) - math.log(weights.shape[0])
        return torch.logsumexp(self.log_terms(self.log_px(x)), 0)

    def log_terms(self, log_px: Tensor) -> Tensor:
        """(K, B) terms whose logsumexp is log p(x), or estimates it where levels are drawn (and log K is still to go).

        On an enumerated level q cancels: each value counts once, with its prior mass.
        """
        self._require_weights()
        return sum(
            (z.log_p - math.log(z.repeats) if z.log_mass is not None else z.log_p - z.log_q for z in self.latents),
            log_px,
        )

    @property
    def enumerated(self) -> bool:
        """Whether K runs over all values of a level."""
        return any(latent.log_mass is not None for latent in self.latents)

    @property
    def _log_mass(self) -> Tensor | None:
        masses = [latent.log_mass for latent in self.latents if latent.log_mass is not None]
        return torch.stack(masses).sum(0) if masses else None

    @property
    def evidence_kind(self) -> Kind:
        """What `log_mean_weight` is: exact without latents or with all of them enumerated, else a lower bound."""
        if not self.normalised:
            return "not a bound"
        return "exact" if all(z.log_mass is not None for z in self.latents) else "lower bound"

    @property
    def elbo_kind(self) -> Kind:
        """What the average of ``log p(x|z) - rate`` is."""
        if not self.normalised:
            return "not a bound"
        return "lower bound" if self.latents else "exact"

    @property
    def weighted(self) -> bool:
        """Whether importance weights exist: there are levels, each has a value, and every distribution is a density.

        Not where log p(z) is only estimated: E[w] is no p(x) then.
        """
        known = all(z.value is not None and not getattr(z.p, "estimated", False) for z in self.latents)
        return bool(self.latents) and self.normalised and known

    @property
    def normalised(self) -> bool:
        """Whether every distribution in the trace is a density."""
        return all(z.normalised for z in self.latents) and bool(getattr(self.px, "normalised", True))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an objective makes of a trace.

    Attributes:
        value: (B,), nats, detached: the unmodified bound, the number to report.
        losses: Parameter group ("all", "generative", "inference", ...) to the scalar to differentiate for it.
        kind: What ``value`` is: "exact", "lower bound" or "not a bound".
    """

    value: Tensor
    losses: Mapping[str, Tensor]
    kind: Kind
