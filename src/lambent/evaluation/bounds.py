"""ELBO, rate, distortion and IWAE-K of every example, in memory that doesn't grow with K.

Examples go in fixed blocks, each with its own random generator keyed by (seed, block), and each block's samples in
chunks that stream through running logsumexps. So the numbers depend on the data, K and the seed alone: not on how many
threads or processes there are, or on which of them took which block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lambent.draws import Draw, Enumerate, Pathwise
from lambent.errors import ConfigError
from lambent.evaluation.blocks import EXAMPLES, ROWS, Batch, blocks_of, chunks_of, evaluating
from lambent.evaluation.low_precision import LowPrecision, LowPrecisionLikelihood
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.trace import Kind, Trace

ROUGH_ROWS, ROUGH_EXAMPLES = 4096, 16
"""Both in low precision: chunks of more samples, as two of each example and chunk are computed again."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Per-example terms, each (N,) float64 but for ``rates``, nats (``effective`` is a number of samples).

    Attributes:
        elbo: Mean over K of log p(x|z), minus the rate (closed form where there is one).
        rate: KL(q||p) of all levels together: the sum of ``rates``.
        rates: E_q[log q - log p] of each level, (L, N), in the order of ``names``; (0, N) without latents. That of a
            single level may be below 0 in a chain that is inferred upwards: p knows the level above, q the one below.
        names: The levels' names, lowest first in chains and ladders.
        distortion: -E log p(x|z).
        iwae: Log mean weight; None where no importance weight exists.
        effective: Effective sample size of the K weights.
        elbo_kind: What ``elbo`` is.
        iwae_kind: What ``iwae`` is.
        samples: K.
        precision: What p(x|z) was computed in; but for "float32" a few samples again, to correct the others.
        log_px_error_var: Variance over samples of the error of log p(x|z) before correction, (N,); None if exact.
    """

    elbo: Tensor
    rate: Tensor
    rates: Tensor
    names: tuple[str, ...]
    distortion: Tensor
    iwae: Tensor | None
    effective: Tensor | None
    elbo_kind: Kind
    iwae_kind: Kind
    samples: int
    precision: str = "float32"
    log_px_error_var: Tensor | None = None

    def summed(self, add: Callable[[Tensor], Tensor]) -> Bounds:
        """Over processes: each filled its own blocks and left 0 elsewhere, so that adding restores every number."""
        return replace(
            self,
            elbo=add(self.elbo.clone()),
            rate=add(self.rate.clone()),
            rates=add(self.rates.clone()),
            distortion=add(self.distortion.clone()),
            iwae=None if self.iwae is None else add(self.iwae.clone()),
            effective=None if self.effective is None else add(self.effective.clone()),
            log_px_error_var=None if self.log_px_error_var is None else add(self.log_px_error_var.clone()),
        )


@dataclass
class _Stream:
    """Running sums of one block's chunks."""

    count: int = 0
    distortion: Tensor | float = 0.0
    rates: Tensor | float = 0.0
    enumerated: bool = False
    log_sum: Tensor | None = None
    log_square_sum: Tensor | None = None
    log_corrected: Tensor | None = None
    log_px_error_var: Tensor | float = 0.0
    chunks: int = 0

    def add(self, trace: Trace, x: Tensor, count: int, generator: torch.Generator) -> None:
        """Takes in one chunk of ``count`` samples."""
        log_px = trace.log_px(x).double()
        samples = count if trace.latents else 1
        self.count += samples
        self.rates = self.rates + samples * level_rates(trace)
        log_weight = self._log_weight(trace, log_px, samples) if trace.weighted else None
        mean, total = trace.average(log_px), log_px.new_zeros(())
        if isinstance(trace.px, LowPrecision):
            if log_weight is None or trace.enumerated:
                raise ConfigError(f"precision={trace.px.precision} is for importance samples: found none; leave it out")
            missed, total = trace.px.corrections(x, log_px, log_weight, generator)
            self.log_px_error_var = self.log_px_error_var + 0.5 * (missed - total).square()
            mean, self.chunks = mean + missed, self.chunks + 1
        self.distortion = self.distortion - samples * mean
        if log_weight is not None:
            self._add_weights(log_weight, total)

    def _log_weight(self, trace: Trace, log_px: Tensor, samples: int) -> Tensor:
        self.enumerated = trace.enumerated
        # an enumerated level's terms are divided by the number of draws already, which differs between chunks
        return trace.log_terms(log_px).double() + (math.log(samples) if self.enumerated else 0.0)

    def _add_weights(self, log_weight: Tensor, correction: Tensor) -> None:
        first, second = torch.logsumexp(log_weight, 0), torch.logsumexp(2 * log_weight, 0)
        self.log_sum = _log_add(self.log_sum, first)
        self.log_square_sum = _log_add(self.log_square_sum, second)
        self.log_corrected = _log_add(self.log_corrected, first + correction)

    def rows(self) -> Tensor:
        """(5 + L, B): elbo, distortion, iwae, effective samples, error variance of log p(x|z), each level's rate."""
        rates, distortion = torch.as_tensor(self.rates) / self.count, torch.as_tensor(self.distortion) / self.count
        rates = rates.to(distortion.device)
        elbo, nothing = -(rates.sum(0) + distortion), torch.full_like(distortion, math.nan)
        if self.log_sum is None or self.log_square_sum is None or self.log_corrected is None:
            return torch.cat([torch.stack([elbo, distortion, nothing, nothing, nothing]), rates])
        log_px_error_var = torch.as_tensor(self.log_px_error_var).expand_as(elbo) / max(1, self.chunks)
        effective = nothing if self.enumerated else (2 * self.log_sum - self.log_square_sum).exp()
        iwae = self.log_corrected - math.log(self.count)
        return torch.cat([torch.stack([elbo, distortion, iwae, effective, log_px_error_var.to(elbo)]), rates])


def _log_add(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else torch.logaddexp(total, more)


def level_rates(trace: Trace) -> Tensor:
    """Each level's rate, averaged over the draws, (L, B) float64, nats.

    A level may have no value, and then reports the rate that its draw knew.
    """
    shape = trace.px.batch_shape
    rates = [trace.average(latent.rate.double().expand(shape)) for latent in trace.latents]
    return torch.stack(rates) if rates else torch.zeros(0, shape[1], dtype=torch.float64)


def bounds(
    model: LatentModel,
    batch: Batch,
    n: int,
    *,
    samples: int = 1,
    seed: int = 0,
    draw: Draw | None = None,
    device: torch.device | None = None,
    threads: int = 1,
    share: tuple[int, int] = (0, 1),
) -> Bounds:
    """The bounds of ``n`` examples.

    Args:
        model: In evaluation mode for the time of the call, whatever it was before. Where its p(x|z) is a
            `LowPrecision`, as `in_low_precision` makes it, ELBO, distortion and IWAE-K are corrected, and
            ``effective`` is of the low-precision weights.
        batch: Gives examples by position.
        n: How many there are; each counts once.
        samples: K.
        seed: Of the noise.
        draw: Kind of draw; pathwise unless the model needs another (enumeration).
        device: Where the noise is made; the CPU by default.
        threads: Blocks worked on at a time, each with one torch thread.
        share: (rank, world): the blocks this process takes; the other blocks' entries are 0, to be summed.
    """
    draw = Pathwise() if draw is None else draw
    device = device or torch.device("cpu")
    states = model.state_count or 1 if isinstance(draw, Enumerate) else 1
    precision = model.likelihood.precision if isinstance(model.likelihood, LowPrecisionLikelihood) else "float32"
    rows, most = (ROWS, EXAMPLES) if precision == "float32" else (ROUGH_ROWS, ROUGH_EXAMPLES)
    blocks = list(blocks_of(n, samples * states, most))
    mine = blocks[share[0] :: share[1]]
    kinds: list[tuple[Kind, Kind, bool]] = []
    names: list[tuple[str, ...]] = []

    def work(block: tuple[int, int, int]) -> Tensor:
        index, start, stop = block
        generator = torch.Generator(device).manual_seed(derive(seed, "evaluation block", index))
        stream = _Stream()
        with torch.inference_mode():
            x, condition = batch(start, stop)
            for first, count in chunks_of(samples, stop - start, draw, rows):
                part = replace(draw, samples=count, start=first, total=samples).using(generator)
                trace = model(x, part, condition)
                kinds.append((trace.elbo_kind, trace.evidence_kind, trace.weighted))
                names.append(tuple(latent.name for latent in trace.latents))
                stream.add(trace, x, count, generator)
        return stream.rows().cpu()

    with evaluating(model):
        parts = list(_map(work, mine, threads))
        if blocks and not mine:  # which numbers exist must be the same on every process
            parts = [work(blocks[0])]
    terms = torch.zeros(len(parts[0]) if parts else 5, n, dtype=torch.float64)
    for (_, start, stop), found in zip(mine, parts, strict=False):
        terms[:, start:stop] = found
    elbo_kind, iwae_kind, weighted = kinds[0] if kinds else ("lower bound", "lower bound", True)
    iwae, effective = (terms[2], terms[3]) if weighted else (None, None)
    log_px_error_var = None if precision == "float32" else terms[4]
    rates, kept = terms[5:], (elbo_kind, iwae_kind, samples, precision, log_px_error_var)
    return Bounds(terms[0], rates.sum(0), rates, names[0] if names else (), terms[1], iwae, effective, *kept)


def _map(
    work: Callable[[tuple[int, int, int]], Tensor], blocks: list[tuple[int, int, int]], threads: int
) -> Iterator[Tensor]:
    """In order; torch gets one thread a worker for the time of the call, so that products have the same last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1 or len(blocks) < 2:
            yield from map(work, blocks)
            return
        # a new thread's matrix products start with as many threads as the machine has, whatever torch says
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, blocks)
    finally:
        torch.set_num_threads(before)
