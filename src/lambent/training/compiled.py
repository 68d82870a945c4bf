"""A step's bound and losses as one compiled function, held to the plain one before it is trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lambent.draws import Draw
from lambent.errors import CombinationError, LambentError, NumericsError
from lambent.models import LatentModel
from lambent.objectives import Objective
from lambent.priors.base import AdaptivePriorModule
from lambent.trace import Estimate

Judgement = tuple[Tensor, dict[str, Tensor], Any]
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest distance of a compiled gradient from the plain one, as a share of its length, by the products' numbers."""
ROUNDING = 1e-5
"""The same as a share of all of them together: what rounding leaves of terms that cancel in some."""


class Compiled:
    """Model and objective as one function of the batch, compiled by torch.

    It is compiled for one objective, draw and shape of batch, at the first step that has them, and is then run beside
    the plain computation with the same noise: bound, losses and every parameter's gradient must be the same. Whatever
    else comes (a smaller last batch) is left to the plain computation. Noise is torch's own, as without compiling.

    Args:
        model: One that learns by gradients alone.
        parameters: Those to compare gradients of.
        precision: The numbers that products are done in, ``train.precision``.

    Raises:
        CombinationError: the model learns from its traces, or torch can't compile it here.
    """

    def __init__(self, model: LatentModel, parameters: list[Tensor], precision: str) -> None:
        own = type(model).update_buffers is not LatentModel.update_buffers
        if own or isinstance(model.top_prior, AdaptivePriorModule):
            raise CombinationError(
                "train.compile=true: this model also learns from what it drew, which a compiled step doesn't show; "
                "use train.compile=false"
            )
        self.model, self.parameters, self.tolerance = model, parameters, TOLERANCE[precision]
        self._key: tuple[Any, ...] | None = None
        self._function: Callable[..., Judgement] | None = None

    def __call__(self, objective: Objective, draw: Draw, x: Tensor, condition: Tensor | None) -> Estimate:
        """The estimate of a step.

        Raises:
            CombinationError: torch can't compile it.
            NumericsError: what it compiled is not the same function.
        """
        key = (objective, draw, x.shape, None if condition is None else condition.shape)
        if key != self._key:
            self._compile(objective, draw, x, condition)
            self._key = key
        assert self._function is not None
        value, losses, kind = self._function(x, condition)
        return Estimate(value.detach(), losses, kind)

    def _compile(self, objective: Objective, draw: Draw, x: Tensor, condition: Tensor | None) -> None:
        def plain(x: Tensor, condition: Tensor | None) -> Judgement:
            trace, seen = objective.observe(self.model, x, draw, condition)
            estimate = objective(trace, seen)
            return estimate.value, dict(estimate.losses), estimate.kind

        # the same draws as without compiling; the last batch of an epoch, smaller, is not worth a compilation
        self._function = torch.compile(plain, fullgraph=True, dynamic=False, options={"fallback_random": True})
        try:
            found = self._tried(self._function, x, condition)
        except LambentError:
            raise
        except Exception as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CombinationError(
                f"train.compile=true: torch can't compile this model here ({why}); use train.compile=false, or, where "
                "a C++ compiler is missing, install one"
            ) from error
        for truth, compiled in zip(self._tried(plain, x, condition), found, strict=True):
            self._require_same(truth, compiled)

    def _tried(
        self, function: Callable[..., Judgement], x: Tensor, condition: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Bound and losses, and their gradients, leaving no mark on the generators or the model's buffers."""
        devices = [x.device.index or 0] if x.device.type == "cuda" else []
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.random.fork_rng(devices=devices):
            value, losses, _ = function(x, condition)
            numbers = [value.detach(), *(loss.detach() for loss in losses.values())]
            gradients = _gradients(losses, self.parameters)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return numbers, gradients

    def _require_same(self, truth: list[Tensor], found: list[Tensor]) -> None:
        whole = math.hypot(*(float(a.norm()) for a in truth))
        for a, b in zip(truth, found, strict=True):
            distance, length = float((a - b).norm()), float(a.norm())
            if not distance <= self.tolerance * length + ROUNDING * whole:
                raise NumericsError(
                    f"train.compile=true: the compiled step is another function (off by {distance:.3g} of "
                    f"{length:.3g}); use train.compile=false"
                )


def _gradients(losses: Mapping[str, Tensor], parameters: list[Tensor]) -> list[Tensor]:
    found = []
    for i, loss in enumerate(losses.values()):
        grads = torch.autograd.grad(loss, parameters, retain_graph=i + 1 < len(losses), allow_unused=True)
        found += [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
    return found
