"""A user's own nn.Module as encoder or decoder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from lambent.errors import ConfigError, ShapeError
from lambent.networks.base import DecoderModule, DecoderSettings, EncoderModule, EncoderSettings, checked

_DRY_ITEMS = 7


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _call(module: nn.Module, arguments: tuple[Tensor, ...]) -> Any:
    # Lazy modules learn their shapes from this call; of all others not even a buffer may change.
    if any(is_lazy(t) for t in (*module.parameters(), *module.buffers())):
        return module(*arguments)
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    return functional_call(module, buffers, arguments)


def _zeros(module: nn.Module, shape: tuple[int, ...], condition: int) -> tuple[Tensor, ...]:
    floats = (p for p in module.parameters() if p.is_floating_point() and not is_lazy(p))
    like = next(floats, torch.empty(0))
    shapes = [shape, (condition,)] if condition else [shape]
    return tuple(torch.zeros(_DRY_ITEMS, *s, dtype=like.dtype, device=like.device) for s in shapes)


def _dry_run(module: nn.Module, role: str, shape: tuple[int, ...], condition: int) -> Tensor:
    """The output for a few zero items, leaving the module's buffers and mode and torch's generators as they were."""
    arguments = _zeros(module, shape, condition)
    devices = [d.index] if (d := arguments[0].device).type == "cuda" else []
    where = f"{role} {type(module).__name__}"
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), _evaluating(module):
            output = _call(module, arguments)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ShapeError(f"{where}: {reason}, on items of shape {shape}; build it for this shape") from error
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{where}: found an output of type {type(output).__name__}, expected one tensor; return the tensor alone"
        )
    if output.dim() < 1 or output.shape[0] != _DRY_ITEMS:
        raise ShapeError(
            f"{where}: found output {tuple(output.shape)} for {_DRY_ITEMS} items, expected ({_DRY_ITEMS}, ...); "
            "keep the batch first"
        )
    return output


def _check_arguments(module: nn.Module, role: str, condition: int) -> None:
    expected = 2 if condition else 1
    try:
        inspect.signature(module.forward).bind(*[None] * expected)
    except TypeError as error:
        form = "forward(x, condition)" if condition else "forward(x)"
        raise ConfigError(
            f"{role} {type(module).__name__}: {error}; expected {form}, as the model has "
            f"{'a' if condition else 'no'} condition"
        ) from None


class UserEncoderModule(EncoderModule):
    """A user's module whose output, flattened, is the features."""

    def __init__(self, module: nn.Module, in_shape: tuple[int, ...], condition: int) -> None:
        super().__init__()
        _check_arguments(module, "encoder", condition)
        self.condition, self.module = condition, module
        self.features = prod(_dry_run(module, "encoder", in_shape, condition).shape[1:])

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features (N, features) of x (N, *in_shape)."""
        condition = checked(condition, x.shape[0], self.condition)
        features: Tensor = self.module(x) if condition is None else self.module(x, condition)
        return features.reshape(x.shape[0], self.features)


class UserDecoderModule(DecoderModule):
    """A user's module whose output, reshaped, is the parameters (P, *event)."""

    def __init__(self, module: nn.Module, latent: int, out_shape: tuple[int, ...], condition: int) -> None:
        super().__init__()
        _check_arguments(module, "decoder", condition)
        self.out_shape, self.condition, self.module = tuple(out_shape), condition, module
        self._check(_dry_run(module, "decoder", (latent,), condition))

    def _check(self, output: Tensor) -> None:
        found, expected = tuple(output.shape[1:]), prod(self.out_shape)
        if prod(found) != expected:
            raise ShapeError(
                f"decoder {type(self.module).__name__}: found {prod(found)} numbers an item {found}, expected "
                f"{expected} for (parameters, *event) = {self.out_shape}; let its last layer give {expected}"
            )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Parameters (N, P, *event) from z (N, latent)."""
        condition = checked(condition, z.shape[0], self.condition)
        output: Tensor = self.module(z) if condition is None else self.module(z, condition)
        return output.reshape(z.shape[0], *self.out_shape)


@dataclass(frozen=True, eq=False)
class UserEncoder(EncoderSettings):
    """A user's own module as encoder: ``module(x)`` or, in a model with a condition, ``module(x, condition)``.

    Its output may have any trailing shape; flattened, it is the features. The module itself is used, not a copy, so
    its weights are trained in place. The number of features is found by running it once, in evaluation mode, on zeros;
    this changes neither its buffers nor torch's generators.

    >>> UserEncoder(nn.Conv2d(1, 4, 3, stride=2)).build((1, 9, 9)).features
    64
    """

    module: nn.Module

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The module as an encoder of items of shape ``in_shape``.

        Raises:
            ConfigError: a forward that doesn't take what it will be given, or gives something else than a tensor.
            ShapeError: an output without the batch first.
        """
        return UserEncoderModule(self.module, in_shape, condition)


@dataclass(frozen=True, eq=False)
class UserDecoder(DecoderSettings):
    """A user's own module as decoder: ``module(z)`` or, in a model with a condition, ``module(z, condition)``.

    Its output may have any shape with P numbers for each element of an event, parameter by parameter: it is reshaped
    to (N, P, *event).

    >>> UserDecoder(nn.Linear(2, 18)).build(2, (2, 1, 3, 3))(torch.zeros(5, 2)).shape
    torch.Size([5, 2, 1, 3, 3])
    """

    module: nn.Module

    def build(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> DecoderModule:
        """The module as a decoder from ``latent`` numbers to ``out_shape`` = (P, *event).

        Raises:
            ConfigError: a forward that doesn't take what it will be given, or gives something else than a tensor.
            ShapeError: an output of another size than P numbers for each element.
        """
        return UserDecoderModule(self.module, latent, out_shape, condition)


def as_encoder(spec: EncoderSettings | nn.Module) -> EncoderSettings:
    """Settings of an encoder as they are; a user's module wrapped."""
    return UserEncoder(spec) if isinstance(spec, nn.Module) else spec


def as_decoder(spec: DecoderSettings | nn.Module) -> DecoderSettings:
    """Settings of a decoder as they are; a user's module wrapped."""
    return UserDecoder(spec) if isinstance(spec, nn.Module) else spec
