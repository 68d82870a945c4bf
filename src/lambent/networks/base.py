"""What every network here is: an encoder to features or a decoder to parameters, on a flat batch (N, ...)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lambent.errors import ShapeError
from lambent.settings import Part


class EncoderModule(nn.Module):
    """Tensors to features: ``module(x (N, *in_shape), condition (N, c) or None) -> (N, features)``."""

    features: int

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The features of each item, shape (N, features)."""
        raise NotImplementedError


class DecoderModule(nn.Module):
    """Latents to parameters: ``module(z (N, latent), condition (N, c) or None) -> (N, *out_shape)``.

    ``out_shape`` is (P, *event): P parameters for each element of an event.
    """

    out_shape: tuple[int, ...]

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The parameters of each item, shape (N, P, *event)."""
        raise NotImplementedError

    def output_bias(self) -> nn.Parameter | None:
        """The parameter added last, with one element per output (viewable as ``out_shape``); None if there is none."""
        return None


class EncoderSettings(Part, ABC):
    """Settings that build an encoder: the dataclasses registered as part("encoder", ...), or a wrapped module."""

    @abstractmethod
    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """An encoder for items of shape ``in_shape``, with a condition vector of width ``condition`` (0: none)."""


class DecoderSettings(Part, ABC):
    """Settings that build a decoder: the dataclasses registered as part("decoder", ...), or a wrapped module."""

    @abstractmethod
    def build(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> DecoderModule:
        """A decoder from ``latent`` numbers to ``out_shape`` = (P, *event)."""


def optional_hook(module: object, name: str) -> Any:
    """The method or attribute ``name`` of a module, or None where it has none.

    Modules given by users need no base class of ours; this is the one place where what they may offer is looked up:

    - a likelihood: ``initialise(x)``, ``as_input(x)``, ``support``, ``family`` and ``decoder``;
    - a decoder: ``output_bias()`` and ``affine``, the one affine map that it is;
    - an encoder: ``map_shape``, the shape (C, h, w) of features that are a map, and ``penalties()``.
    """
    return getattr(module, name, None)


def join(flat: Tensor, condition: Tensor | None, width: int) -> Tensor:
    """``flat`` (N, d) with its condition (N, width) beside it; ``flat`` itself where the network has no condition."""
    condition = checked(condition, flat.shape[0], width)
    return flat if condition is None else torch.cat((flat, condition.to(flat.dtype)), dim=1)


def checked(condition: Tensor | None, items: int, width: int) -> Tensor | None:
    """``condition``, if it is what a network built for a condition of ``width`` numbers expects.

    Raises:
        ShapeError: a condition missing, unasked for, or of another shape than (items, width).
    """
    found = None if condition is None else tuple(condition.shape)
    expected = (items, width) if width else None
    if found != expected:
        raise ShapeError(
            f"condition of a network: found {found or 'none'}, expected {expected or 'none'}; "
            "build the model with the width of the condition that it is given"
        )
    return condition


def flat_items(x: Tensor, size: int) -> Tensor:
    """``x`` (N, ...) as (N, size), without a copy where it is contiguous.

    Raises:
        ShapeError: items of another size than the network was built for.
    """
    if x.dim() == 2 and x.shape[1] == size:
        return x
    if prod(x.shape[1:]) != size or x.dim() < 1:
        raise ShapeError(
            f"input of a network: found items of shape {tuple(x.shape[1:])}, expected {size} numbers an item; "
            "build the network for the shape of the data"
        )
    return x.reshape(x.shape[0], size)
