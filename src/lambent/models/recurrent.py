"""Latents one after the other, by the same two networks at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.draws import Draw, Given
from lambent.likelihoods import LikelihoodModule, TextLikelihood
from lambent.models.base import LatentModel
from lambent.models.structure import INFERRED, Parts, Slot, Structure
from lambent.networks import LinearEncoder
from lambent.networks.fold import fold_together
from lambent.networks.recurrent.draw import CanvasDecoder, CanvasDecoderModule, ReaderEncoder
from lambent.posteriors import AmortisedPosteriorModule
from lambent.priors.base import SMOOTH
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace


class Recurrent(LatentModel):
    """p(zT) ... p(z1) p(x|z1..zT) with q(zT|x) q(zT-1|x,zT) ...: DRAW (Gregor et al. 2015).

    All steps have the same prior and share their networks. A writer turns the latents, in turn, into a canvas; a reader
    looks at x and at what the canvas still lacks, x less the mean of p(x|canvas), before each. zT comes first, z1 last,
    so that as in other deep models the highest levels fix what the lowest refine.

    Args:
        prior: p of every latent, ``prior(condition)``.
        posterior: q from the reader's output (K, B, units), by ``given``.
        reader: `lambent.networks.recurrent.draw.Reader`.
        writer: `lambent.networks.recurrent.draw.Writer`.
        likelihood: p(x|z), called with the canvas, flat (K, B, numbers).
        steps: T.
    """

    likelihood: Any

    def __init__(
        self, prior: nn.Module, posterior: nn.Module, reader: Any, writer: Any, likelihood: nn.Module, steps: int
    ) -> None:
        super().__init__()
        self.prior, self.likelihood, self.steps = prior, likelihood, steps
        self.posterior: Any = posterior
        self.reader, self.writer = reader, writer

    @property
    def names(self) -> list[str]:
        """Of the latents, the last first: z1, z2, ..., zT."""
        return [f"z{i + 1}" for i in range(self.steps)]

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs all steps, seeing a batch ``x`` (B, *event) or generating."""
        seen = None if x is None else self.as_input(x).to(self.writer.cell.start.dtype)
        draw = draw if seen is None else draw.informed(self.control, seen)
        p, latents = self.prior(condition), list[Latent]()
        state = memory = None
        for name in reversed(self.names):
            q = None
            if seen is not None:
                state, memory = self._read(seen, state, memory, condition)
                q = self._posterior(memory)
            latents.insert(0, draw(name, p, q))
            state, memory = self._write(latents[0].value, state, memory, condition)
        return Trace(self._shown(state), tuple(latents))

    def _read(
        self, x: Tensor, state: Tensor | None, memory: Tensor | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The writer's state, and the reader's after one more look, (K, B, *); K is 1 before the first draw."""
        if state is None or memory is None:
            state = self.writer.begin(len(x)).unsqueeze(0)
            memory = self.reader.cell.start.expand(1, len(x), -1)
        error = x - self.as_input(self._shown(state).mean)
        return state, fold_together(self.reader, (memory, self.writer.output(state), error), (x, condition))

    def _posterior(self, memory: Tensor) -> Distribution:
        """q, of batch shape (K, B), or (B,) before the first draw (and where K is 1)."""
        features = memory[..., : self.reader.features]
        found: Distribution = self.posterior(features[0]) if len(features) == 1 else self.posterior.given(features)
        return found

    def _write(
        self, z: Tensor | None, state: Tensor | None, memory: Tensor | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Both states for all K samples, the writer's one step on."""
        assert z is not None
        samples, batch = z.shape[:2]
        state = self.writer.begin(batch).unsqueeze(0) if state is None else state
        state = state.expand(samples, -1, -1)
        memory = None if memory is None else memory.expand(samples, -1, -1)
        return fold_together(self.writer, (state, z.to(state.dtype)), (condition,)), memory

    def _shown(self, state: Tensor | None) -> Distribution:
        """p(x|z), given the final canvas."""
        assert state is not None
        px: Distribution = self.likelihood(self.writer.canvas(state))
        return px

    @staticmethod
    def _under_prior(trace: Trace) -> Tensor:
        """Values of all steps, which share one prior, as further samples."""
        return torch.cat([z.value for z in trace.latents if z.value is not None])

    def code(self, trace: Trace) -> Tensor:
        """All latents side by side, z1 first, (K, B, T D)."""
        return torch.cat([latent.value for latent in trace.latents if latent.value is not None], -1)

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) at the values of all latents side by side, (K, B, T D)."""
        values = dict(zip(self.names, code.chunk(self.steps, -1), strict=True))
        px: Distribution = self(None, Given(values=values), condition).px
        return px

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative") and of q ("inference")."""
        generative = [p for part in (self.prior, self.writer, self.likelihood) for p in part.parameters()]
        inference = [*self.reader.parameters(), *self.posterior.parameters()]
        return {"generative": generative, "inference": inference, **self.control_group()}


@part("model", "recurrent")
@dataclass(frozen=True)
class RecurrentStructure(Structure):
    """A latent a step, read and written by recurrent networks that all steps share (DRAW, Gregor et al. 2015)."""

    sections: ClassVar[Mapping[str, Slot]] = {
        **INFERRED,
        "encoder": Slot("draw-reader", (ReaderEncoder,), why="it reads and writes step by step"),
        "decoder": Slot("draw-writer", (CanvasDecoder,), why="it reads and writes step by step"),
    }
    latent: int = option(10, "latent dimensions of each glimpse (DRAW's step)", minimum=1)
    glimpses: int = option(10, "steps", minimum=1)

    @property
    def level_count(self) -> int:
        """A level a step."""
        return self.glimpses

    def conflicts(self, parts: Parts) -> Conflict | None:
        """Its latents are continuous, and its canvas is compared with x."""
        if parts.posterior.latent_kind not in SMOOTH:
            return Conflict(("model", "posterior"), "its steps have continuous latents; use posterior=normal")
        if isinstance(parts.likelihood, TextLikelihood) or not parts.likelihood.elementwise:
            why = "its canvas is compared with an example, element by element; use likelihood=bernoulli"
            return Conflict(("model", "likelihood"), why)
        return None

    def assemble(self, config: Parts, shapes: Shapes) -> Recurrent:
        """A reader, a writer, and the canvas as p(x|z)."""
        assert isinstance(config.encoder, ReaderEncoder)
        assert isinstance(config.decoder, CanvasDecoder)
        out, family = config.likelihood.out_shape(shapes), config.likelihood
        writer = config.decoder.build_writer(self.latent, out, shapes.condition)
        reader = config.encoder.build_reader(family.input_shape(shapes), writer.features, shapes.condition)
        posterior = AmortisedPosteriorModule(config.posterior, LinearEncoder().build((reader.features,)), self.latent)
        likelihood = LikelihoodModule(family, CanvasDecoderModule(out), shapes)
        return Recurrent(config.prior.build(shapes), posterior, reader, writer, likelihood, self.glimpses)

    def state_count(self, config: Parts) -> None:
        """None: its latents are continuous."""
        return
