"""The recurrent networks of DRAW: one reads an image piece by piece, one writes on a canvas (Gregor et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.networks.base import DecoderModule, checked, flat_items, join
from lambent.networks.conv import image_shape
from lambent.networks.mlp import affine
from lambent.networks.recurrent.gaussian_window import Window
from lambent.settings import Part, option, part


class Cell(nn.Module):
    """An LSTM cell whose state (N, 2 units) is its output, then its memory; forget gates start open, at bias 1."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.cell = nn.LSTMCell(inputs, units)
        self.start = nn.Parameter(torch.zeros(2 * units))
        with torch.no_grad():
            self.cell.bias_ih.zero_()
            self.cell.bias_hh.zero_()
            self.cell.bias_ih[units : 2 * units] = 1

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The next state (N, 2 units)."""
        output, memory = state.split(self.units, 1)
        return torch.cat(self.cell(inputs, (output.contiguous(), memory.contiguous())), 1)


class Reader(nn.Module):
    """h_t = LSTM(h_{t-1}, [read(x, error), writer's output]): what q has seen so far (eq. 4 and 5).

    ``read`` is both images whole (eq. 17), or both through one window that the writer's output places (eq. 27).
    """

    def __init__(self, event: tuple[int, ...], settings: ReaderEncoder, writer: int, condition: int) -> None:
        super().__init__()
        self.condition, self.features = condition, settings.hidden_dim
        self.image, self.window = (prod(event), 1, 1), None
        if settings.patch:
            self.image = image_shape(event, "reader with a window", "encoder.patch=0")
            self.window = Window(writer, self.image[1:], settings.patch)
        seen = prod(event) if self.window is None else self.image[0] * settings.patch**2
        self.cell = Cell(2 * seen + writer + condition, settings.hidden_dim)

    def forward(self, state: Tensor, written: Tensor, error: Tensor, x: Tensor, condition: Tensor | None) -> Tensor:
        """The next state (N, 2 units), from the writer's output (N, *), what the canvas lacks, and x (N, *event)."""
        pair = torch.cat([x.reshape(-1, *self.image), error.reshape(-1, *self.image)], 1)
        glimpse = pair if self.window is None else self.window.read(written, pair)
        inputs = join(torch.cat([glimpse.flatten(1), written], 1), condition, self.condition)
        step: Tensor = self.cell(inputs, state)
        return step


class Writer(nn.Module):
    """h_t = LSTM(h_{t-1}, z_t), c_t = c_{t-1} + write(h_t): the generative side (eq. 7 and 8).

    The state (N, 2 units + numbers) is the cell's, then the canvas c, flat. ``write`` is an affine map to the whole
    canvas (eq. 18), or to a patch that a window puts there (eq. 28 and 29).
    """

    def __init__(self, latent: int, out_shape: tuple[int, ...], settings: CanvasDecoder, condition: int) -> None:
        super().__init__()
        self.condition, self.features, self.numbers = condition, settings.hidden_dim, prod(out_shape)
        self.cell = Cell(latent + condition, settings.hidden_dim)
        self.patch: tuple[int, int, int] | None = None
        self.window: Window | None = None
        if settings.patch:
            channels, *size = image_shape(out_shape[1:], "canvas with a window", "decoder.patch=0")
            self.patch = (out_shape[0] * channels, settings.patch, settings.patch)
            self.window = Window(settings.hidden_dim, (size[0], size[1]), settings.patch)
        self.paint = affine(settings.hidden_dim, self.numbers if self.patch is None else prod(self.patch))

    def begin(self, items: int) -> Tensor:
        """The first state: a learned one of the cell, and an empty canvas."""
        return torch.cat([self.cell.start, self.cell.start.new_zeros(self.numbers)]).expand(items, -1)

    def output(self, state: Tensor) -> Tensor:
        """The cell's output (..., units)."""
        return state[..., : self.features]

    def canvas(self, state: Tensor) -> Tensor:
        """What is on the canvas (..., numbers)."""
        return state[..., 2 * self.features :]

    def forward(self, state: Tensor, z: Tensor, condition: Tensor | None) -> Tensor:
        """The next state, from z (N, latent)."""
        cell = self.cell(join(z, condition, self.condition), state[:, : 2 * self.features])
        h = cell[:, : self.features]
        stroke = self.paint(h)
        if self.window is not None and self.patch is not None:
            stroke = self.window.write(h, stroke.view(-1, *self.patch))
        return torch.cat([cell, self.canvas(state) + stroke.flatten(1)], 1)


class CanvasDecoderModule(DecoderModule):
    """The canvas as parameters of p(x|z), above one learned number each: the canvas it started from."""

    def __init__(self, out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.bias = nn.Parameter(torch.zeros(prod(out_shape)))

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """A canvas (N, numbers) as (N, P, *event)."""
        checked(condition, len(z), 0)
        return (flat_items(z, len(self.bias)) + self.bias).view(-1, *self.out_shape)

    def output_bias(self) -> nn.Parameter:
        """The numbers of the empty canvas."""
        return self.bias


@part("encoder", "draw-reader")
@dataclass(frozen=True)
class ReaderEncoder(Part):
    """An LSTM that reads an image step by step, through a window of Gaussian filters or whole."""

    reserved: ClassVar[str] = "it runs step by step as part of DRAW; use model=recurrent, or encoder=mlp"
    hidden_dim: int = option(256, "LSTM units", minimum=1)
    patch: int = option(2, "side N of the N x N attention grid; 0 reads all of x, of any shape", minimum=0)

    def build_reader(self, event: tuple[int, ...], writer: int, condition: int = 0) -> Reader:
        """The network for events of a shape, beside a writer of ``writer`` units.

        Raises:
            ConfigError: a window on what is no image.
        """
        return Reader(event, self, writer, condition)


@part("decoder", "draw-writer")
@dataclass(frozen=True)
class CanvasDecoder(Part):
    """An LSTM that adds to a canvas step by step, through a window of Gaussian filters or everywhere."""

    reserved: ClassVar[str] = "it runs step by step as part of DRAW; use model=recurrent, or decoder=mlp"
    hidden_dim: int = option(256, "LSTM units", minimum=1)
    patch: int = option(5, "side N of the N x N attention grid; 0 writes everywhere, in any shape", minimum=0)

    def build_writer(self, latent: int, out_shape: tuple[int, ...], condition: int = 0) -> Writer:
        """The network from ``latent`` numbers a step to a canvas of ``out_shape`` = (P, *event).

        Raises:
            ConfigError: a window on what is no image.
        """
        return Writer(latent, out_shape, self, condition)
