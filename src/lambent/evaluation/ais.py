"""Annealed importance sampling: from q(z|x) to p(z|x) in small steps, so that few weights carry the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions import AutoregressiveBernoulli, Bernoulli, VonMisesFisher
from lambent.distributions.base import Distribution as OwnDistribution
from lambent.draws import Detached, Given
from lambent.errors import CombinationError
from lambent.evaluation.blocks import Batch, blocks_of, evaluating
from lambent.evaluation.estimates import EvidenceEstimate, _estimate
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.trace import Trace


@dataclass(frozen=True, eq=False)
class _State:
    """Where the chains are: values (K, B, *latent) by level, log q(z|x) and log p(x, z), (K, B) each."""

    values: Mapping[str, Tensor]
    log_q: Tensor
    log_joint: Tensor

    def log_density(self, beta: float) -> Tensor:
        """Log of q^(1 - beta) p(x, z)^beta, unnormalised."""
        return (1 - beta) * self.log_q + beta * self.log_joint


def annealed_importance_sampling(
    model: LatentModel,
    batch: Batch,
    n: int,
    *,
    samples: int,
    temperatures: int = 100,
    step: float = 0.5,
    seed: int = 0,
    device: torch.device | None = None,
) -> EvidenceEstimate:
    """Log (1/K) sum_k w_k of K annealed chains (Neal 2001, Statistics and Computing 11), w unbiased for p(x); nats.

    Each chain starts at z ~ q(z|x) and passes the densities q^(1 - b) p(x, z)^b, b = 0, 1/T, ..., 1, with a Metropolis
    move at each: one binary variable of every level flipped, or a random-walk step of a continuous level.

    Args:
        model: One with importance weights and binary or continuous levels, in evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many there are.
        samples: K.
        temperatures: T; 1 is importance sampling.
        step: Standard deviation of the random walk.
        seed: Of the noise.
        device: Where the noise is made; the CPU by default.

    Raises:
        CombinationError: the model has no importance weights, or a level that is neither binary nor continuous.
    """
    device = device or torch.device("cpu")
    rows = torch.zeros(2, n, dtype=torch.float64)
    with evaluating(model), torch.inference_mode():
        for index, start, stop in blocks_of(n, samples):
            generator = torch.Generator(device).manual_seed(derive(seed, "evaluation block", index))
            weights = _chains(model, *batch(start, stop), samples, temperatures, step, generator).double()
            rows[:, start:stop] = torch.stack([weights.logsumexp(0), (2 * weights).logsumexp(0)]).cpu()
    return _estimate(rows[0], rows[1], samples)


def _chains(
    model: LatentModel,
    x: Tensor,
    condition: Tensor | None,
    samples: int,
    temperatures: int,
    step: float,
    generator: torch.Generator,
) -> Tensor:
    """Log weights of the chains, (K, B): each temperature's ratio at the state reached before it."""
    trace = model(x, Detached(samples, generator), condition)
    families = {z.name: z.q for z in trace.latents if z.q is not None}
    state, log_weight = _state(trace, x), torch.zeros(())
    for t in range(1, temperatures + 1):
        log_weight = log_weight + (state.log_joint - state.log_q) / temperatures
        if t < temperatures:
            proposal = {name: _moved(name, v, families[name], step, generator) for name, v in state.values.items()}
            proposed = _state(model(x, Given(values=proposal), condition), x)
            state = _accepted(state, proposed, t / temperatures, generator)
    return log_weight


def _state(trace: Trace, x: Tensor) -> _State:
    weights = trace.log_weight(x)
    log_q = sum((z.log_q for z in trace.latents[1:]), trace.latents[0].log_q)
    return _State({z.name: z.value for z in trace.latents if z.value is not None}, log_q, weights + log_q)


def _moved(name: str, value: Tensor, q: Distribution, step: float, generator: torch.Generator) -> Tensor:
    """A symmetric proposal for one level: one binary variable of it flipped, or a Normal step."""
    if isinstance(q, Bernoulli | AutoregressiveBernoulli):
        flat = value.flatten(2)
        at = torch.randint(flat.shape[-1], (*flat.shape[:2], 1), generator=generator, device=value.device)
        return flat.scatter(-1, at, 1 - flat.gather(-1, at)).view_as(value)
    if not q.has_rsample or (isinstance(q, OwnDistribution) and q.straight_through):
        raise CombinationError(
            f"latent {name!r}: {type(q).__name__} is neither binary nor continuous; use importance_sampling"
        )
    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype, device=value.device)
    moved = value + step * noise
    # on a sphere the step is brought back to it: symmetric, as its density depends on the angle moved only
    return moved / moved.norm(dim=-1, keepdim=True) if isinstance(q, VonMisesFisher) else moved


def _accepted(state: _State, proposed: _State, beta: float, generator: torch.Generator) -> _State:
    """The proposal where Metropolis takes it, the old state elsewhere."""
    ratio = proposed.log_density(beta) - state.log_density(beta)
    u = torch.rand(ratio.shape, generator=generator, dtype=ratio.dtype, device=ratio.device)
    taken = u.log() < ratio

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(taken.view(*taken.shape, *[1] * (new.dim() - 2)), new, old)

    values = {name: chosen(new, state.values[name]) for name, new in proposed.values.items()}
    return _State(values, chosen(proposed.log_q, state.log_q), chosen(proposed.log_joint, state.log_joint))
