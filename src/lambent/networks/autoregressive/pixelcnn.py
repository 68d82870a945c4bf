"""PixelCNN, plain and gated: convolutions over the elements of an image before each one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.networks.autoregressive.base import (
    AutoregressiveNet,
    AutoregressiveSettings,
    Choose,
    ContextShape,
    InputDropout,
    context_size,
    input_dropout_option,
)
from lambent.networks.autoregressive.image_context import ContextTerms, PositionTerms, Term
from lambent.networks.autoregressive.masked_conv import (
    MaskedConv,
    Pass,
    RowByRow,
    RowsAbove,
    Stepwise,
    Whole,
    gate,
    groups_of,
)
from lambent.networks.base import checked, flat_items
from lambent.settings import option, part

RowAddends = Callable[[int, Tensor], list[Tensor | None]]
"""(row i, the data of the row before it (N, channels, W)) -> what each layer adds in row i."""
RESIDUAL = 0.1
"""Scale at which residual branches start: near the identity, so that depth costs nothing at first."""


class MaskedImageNet(AutoregressiveNet, ABC):
    """Masked convolutions between a lookup of the inputs and 1x1 layers to P numbers an element.

    Elements come row by row, left to right, the channels of a pixel in order, each of which sees those before it.

    Args:
        settings: Sizes and options.
        latent: What is seen of z.
        out_shape: (P, C, H, W) or (P, H, W).
        condition: Width of the condition.
        symbols: Values of an element, for an embedding.
    """

    stack: Any

    def __init__(
        self,
        settings: MaskedImageSettings,
        latent: ContextShape,
        out_shape: tuple[int, ...],
        condition: int,
        symbols: int | None,
    ) -> None:
        image = settings.image(out_shape[1:])
        super().__init__(out_shape, _pixel_order(image))
        self.image, self.size, self.context = image, image[1:], context_size(latent) + condition
        alphabet = settings.alphabet(symbols)
        self.embeds, width = alphabet > 0, settings.embedding or 1
        self.table = nn.Embedding(alphabet + 1, width) if self.embeds else None
        self.input_dropout = InputDropout(settings.input_dropout, alphabet)
        self.features, self.dropped = groups_of(settings.channels, image[0]), settings.dropout
        self.build_stack(torch.arange(image[0]).repeat_interleave(width), settings.reaches())
        head = groups_of(2 * settings.channels, image[0])
        self.hidden = MaskedConv(self.features, head, scale=2**0.5)
        numbers = torch.arange(image[0]).repeat(out_shape[0])
        self.output = MaskedConv(head, numbers, scale=0.1, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_shape))
        self.terms = ContextTerms(latent, condition, settings.context_map, self.size, self.sums())
        self.places = (
            PositionTerms(settings.position_channels, self.size, self.sums()) if settings.position_channels else None
        )

    @abstractmethod
    def build_stack(self, inputs: Tensor, reaches: list[int]) -> None:
        """Makes the layers from the groups of the inputs to those of the features."""

    @abstractmethod
    def data_layer(self) -> MaskedConv:
        """The one that sees the data of the same row."""

    @abstractmethod
    def sums(self) -> list[int]:
        """Channels of each sum that the context adds to."""

    @abstractmethod
    def addends(self, x: Tensor, term: Term) -> Iterable[Tensor | None]:
        """What each layer adds that is known of all elements at once, for inputs (N, channels, H, W)."""

    @abstractmethod
    def addends_by_row(self, items: int, term: Term) -> RowAddends:
        """The same, a row at a time."""

    @abstractmethod
    def across(self, run: Pass, x: Tensor, addends: Iterable[Tensor | None]) -> Tensor:
        """Features of the inputs."""

    def forward(self, x: Tensor, context: Tensor | None, ordering: int) -> Tensor:
        """Parameters (N, P, *event) of inputs (N, D)."""
        x = self.input_dropout(flat_items(x, self.elements))
        looked_up = self._look_up(x).view(len(x), *self.image, -1).movedim(-1, 2).flatten(1, 2)
        h = self.across(Whole(), looked_up, self.addends(looked_up, self._term(context, len(x))))
        return self._numbers(Whole(), h).reshape(-1, *self.out_shape) + self.bias

    def _look_up(self, x: Tensor) -> Tensor:
        """(*shape, width) of inputs of any shape."""
        return x.to(self.bias.dtype).unsqueeze(-1) if self.table is None else self.table(x.long())

    def _term(self, context: Tensor | None, items: int) -> Term:
        context = checked(context, items, self.context)
        term = self.terms.of(None if context is None else context.to(self.bias.dtype))
        return term if self.places is None else self.places.beside(term)

    def _numbers(self, run: Pass, h: Tensor) -> Tensor:
        # ELU where the papers have ReLU, of which two in three were dead after 25,000 steps of 5e-3 on MNIST
        return run.apply(self.output, F.elu(run.apply(self.hidden, F.elu(h))))

    @torch.no_grad()
    def unroll(self, items: int, context: Tensor | None, ordering: int, choose: Choose) -> None:
        """Row by row: what comes from above is computed for a row at once, the rest element by element."""
        layers = [m for m in self.modules() if isinstance(m, MaskedConv)]
        run = Stepwise(layers, self.data_layer(), items, self.size)
        of_row = self.addends_by_row(items, self._term(context, items))
        bias = self.bias.view(-1, *self.image)
        known = bias.new_zeros(items, len(self.data_layer().inputs), self.size[1])
        for i in range(self.size[0]):
            addends = of_row(i, known)
            run.start(i)
            for j, channel in product(range(self.size[1]), range(self.image[0])):
                run.move(i, j, channel)
                numbers = self._numbers(run, self.across(run, known, addends)) + bias[:, channel, i, j]
                element = (channel * self.size[0] + i) * self.size[1] + j
                run.reveal(self._look_up(choose(element, numbers)))
            known = run.end(i)

    def output_bias(self) -> nn.Parameter:
        """The bias of each parameter of each element, (P, *event)."""
        return self.bias


def _pixel_order(image: tuple[int, int, int]) -> Tensor:
    """(1, D): pixels row by row, the channels of each together."""
    return torch.arange(prod(image)).view(image).permute(1, 2, 0).reshape(1, -1)


class PixelCNN(MaskedImageNet):
    """Residual blocks of masked convolutions (van den Oord, Kalchbrenner & Kavukcuoglu 2016, section 3).

    Its kernels have a blind spot: n rows above, an element sees no further to the right than n (k // 2) columns
    (van den Oord et al. 2016, NeurIPS, figure 1).
    """

    def build_stack(self, inputs: Tensor, reaches: list[int]) -> None:
        """A first convolution with mask A, blocks with mask B."""
        self.first = MaskedConv(inputs, self.features, reaches[0], strict=True, above=True)
        self.stack = nn.ModuleList(Block(self.features, reach, self.dropped) for reach in reaches[1:])

    def data_layer(self) -> MaskedConv:
        """The first layer, which reads the image."""
        return self.first

    def sums(self) -> list[int]:
        """Of each convolution over several elements."""
        return [len(self.first.outputs), *(len(block.look.outputs) for block in self.stack)]

    def addends(self, x: Tensor, term: Term) -> Iterable[Tensor | None]:
        """Terms of the context that are added to the layers."""
        return map(term, range(1 + len(self.stack)))

    def addends_by_row(self, items: int, term: Term) -> RowAddends:
        """Terms of the context that are added to the layers, row by row."""
        terms = [term(k) for k in range(1 + len(self.stack))]
        return lambda i, known: terms

    def across(self, run: Pass, x: Tensor, addends: Iterable[Tensor | None]) -> Tensor:
        """Features of the inputs."""
        terms = iter(addends)
        h = run.add(run.apply(self.first, x), next(terms), self.first.outputs)
        for block, term in zip(self.stack, terms, strict=True):
            h = block(run, h, term)
        return h


class Block(nn.Module):
    """h + a 1x1 layer to half of the channels, a masked convolution, a 1x1 layer back (figure 5)."""

    def __init__(self, features: Tensor, reach: int, dropped: float) -> None:
        super().__init__()
        self.dropout = MapDropout(dropped)
        half = groups_of(max(len(features) // 2, int(features.max()) + 1), int(features.max()) + 1)
        self.narrow = MaskedConv(features, half, scale=2**0.5)
        self.look = MaskedConv(half, half, reach, above=True, scale=2**0.5)
        self.widen = MaskedConv(half, features, scale=RESIDUAL)

    def forward(self, run: Pass, h: Tensor, term: Tensor | None) -> Tensor:
        """Same shape as ``h``."""
        inner = run.apply(self.look, run.apply(self.narrow, h.relu()).relu())
        return h + run.apply(self.widen, self.dropout(run.add(inner, term, self.look.outputs).relu()))


class GatedPixelCNN(MaskedImageNet):
    """A stack over rows above, which feeds one along the row: nothing before an element is out of its sight.

    van den Oord et al. 2016 (NeurIPS), section 2.2 and figure 2, with the gates of eq. 2, to which eq. 3 and 4 add a
    context.
    """

    def build_stack(self, inputs: Tensor, reaches: list[int]) -> None:
        """A first layer that does not see the element itself, others that see features of it."""
        groups = [inputs] + [self.features] * (len(reaches) - 1)
        self.stack = nn.ModuleList(
            GatedLayer(g, self.features, reach, self.dropped, first=k == 0)
            for k, (g, reach) in enumerate(zip(groups, reaches, strict=True))
        )

    def data_layer(self) -> MaskedConv:
        """The first layer's convolutions, which read the image."""
        layer: MaskedConv = self.stack[0].left
        return layer

    def sums(self) -> list[int]:
        """Of each layer's two stacks."""
        return [len(self.data_layer().outputs)] * (2 * len(self.stack))

    def addends(self, x: Tensor, term: Term) -> Iterator[Tensor | None]:
        """From the stack over rows above, layer by layer."""
        v = x
        for k, layer in enumerate(self.stack):
            v = layer.downwards(layer.vertical(v), v, term(2 * k))
            yield plus(layer.down(v), term(2 * k + 1))

    def addends_by_row(self, items: int, term: Term) -> RowAddends:
        """The same from the rows so far."""
        rows = [RowByRow(layer.vertical, items, self.size) for layer in self.stack]
        terms = [term(k) for k in range(2 * len(self.stack))]

        def of_row(i: int, known: Tensor) -> list[Tensor | None]:
            found: list[Tensor | None] = []
            v = known.unsqueeze(2)
            for k, (layer, row) in enumerate(zip(self.stack, rows, strict=True)):
                at = i if k else i - 1
                if at >= 0:
                    row.put(at, v.squeeze(2))
                v = layer.downwards(row.get(i).unsqueeze(2), v, row_of(terms[2 * k], i))
                found.append(plus(layer.down(v), row_of(terms[2 * k + 1], i)))
            return found

        return of_row

    def across(self, run: Pass, x: Tensor, addends: Iterable[Tensor | None]) -> Tensor:
        """Features of the inputs."""
        h = x
        for layer, addend in zip(self.stack, addends, strict=True):
            h = layer(run, h, addend)
        return h


class GatedLayer(nn.Module):
    """A layer of both stacks, residual but for the first."""

    def __init__(self, inputs: Tensor, features: Tensor, reach: int, dropped: float, *, first: bool) -> None:
        super().__init__()
        self.dropout = MapDropout(dropped)
        self.residual, width, both = not first, len(features), torch.cat([features, features])
        self.vertical = RowsAbove(len(inputs), 2 * width, reach, strict=first)
        self.down = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.left = MaskedConv(inputs, both, reach, strict=first)
        self.out = MaskedConv(features, features, scale=1.0 if first else RESIDUAL)

    def downwards(self, total: Tensor, v: Tensor, term: Tensor | None) -> Tensor:
        """The stack over rows above, from its sums."""
        gated = self.dropout(gate(plus(total, term)))
        return v + gated if self.residual else gated

    def forward(self, run: Pass, h: Tensor, addend: Tensor | None) -> Tensor:
        """The stack along the row."""
        gated = self.dropout(gate(run.add(run.apply(self.left, h), addend, self.left.outputs)))
        new = run.apply(self.out, gated)
        return h + new if self.residual else new


class MapDropout(nn.Module):
    """In training, zeroes whole maps (Tompson et al. 2015, CVPR), and scales the others so that the mean stays."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        """Same shape as ``h``, (N, channels, H, W) in training."""
        return F.dropout2d(h, self.share) if self.training and self.share else h


def plus(h: Tensor, term: Tensor | None) -> Tensor:
    """The sum, or ``h`` alone."""
    return h if term is None else h + term


def row_of(term: Tensor | None, i: int) -> Tensor | None:
    """Row i of a term (N, channels, H or 1, W or 1)."""
    return term if term is None or term.shape[2] == 1 else term[:, :, i : i + 1]


@dataclass(frozen=True)
class MaskedImageSettings(AutoregressiveSettings):
    """What both networks have."""

    name: ClassVar[str] = ""
    net: ClassVar[type[MaskedImageNet]]
    channels: int = option(32, "channels of each layer", minimum=1)
    layers: int = option(6, "masked convolutions with kernels larger than 1, the first included", minimum=1)
    kernel: int = option(3, "side of the layers' kernels, odd", minimum=1)
    first_kernel: int = option(7, "side of the first layer's kernel, odd", minimum=3)
    receptive_field: int = option(
        0,
        "rows above and columns to either side that a pixel is conditioned on; 0: as far as the layers reach",
        minimum=0,
    )
    embedding: int = option(0, "embedding size of a symbol; 0: elements enter as numbers", minimum=0)
    context_map: int = option(
        0, "channels of a learned map computed from the latent (and the condition); 0: none", minimum=0
    )
    position_channels: int = option(0, "channels of a learned positional map, given to every layer; 0: none", minimum=0)
    input_dropout: float = input_dropout_option()
    dropout: float = option(0.0, "dropout probability of each layer's feature maps", minimum=0.0, maximum=0.99)

    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> MaskedImageNet:
        """The network, its weights from torch's current random state."""
        return self.net(self, latent, out_shape, condition, symbols)

    def image(self, event: tuple[int, ...]) -> tuple[int, int, int]:
        """(channels, height, width).

        Raises:
            ConfigError: an event that is no image, or more channels in it than features.
        """
        if len(event) not in (2, 3):
            raise ConfigError(
                f"decoder={self.name}: found items of shape {event}, expected (channels, height, width) or "
                "(height, width); use decoder=made for these"
            )
        channels, height, width = (1,) * (3 - len(event)) + tuple(event)
        if self.channels < channels:
            raise ConfigError(
                f"decoder.channels={self.channels}: found images of {channels} channels, expected as many or fewer; "
                f"use channels={16 * channels}"
            )
        return channels, height, width

    def alphabet(self, symbols: int | None) -> int:
        """Symbols in the table; 0 for no table.

        Raises:
            ConfigError: a table of endlessly many.
        """
        if self.embedding and symbols is None:
            raise ConfigError(
                f"decoder.embedding={self.embedding}: the likelihood's elements take no finite number of values; "
                "use embedding=0"
            )
        return symbols if self.embedding and symbols is not None else 0

    def reaches(self) -> list[int]:
        """How far each layer sees: together exactly ``receptive``, where that is given.

        Raises:
            ConfigError: an even kernel.
        """
        for name in ("kernel", "first_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ConfigError(f"decoder.{name}={getattr(self, name)} is even, expected an odd number; use one more")
        others = [self.kernel // 2] * (self.layers - 1)
        if not self.receptive_field:
            return [self.first_kernel // 2, *others]
        found = [min(self.receptive_field, max(self.first_kernel // 2, self.receptive_field - sum(others)))]
        for reach in others:
            found.append(min(reach, self.receptive_field - sum(found)))
        return found


@part("decoder", "pixelcnn")
@dataclass(frozen=True)
class PixelCNNDecoder(MaskedImageSettings):
    """PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016, ICML): `PixelCNN`.

    >>> net = PixelCNNDecoder(channels=64, layers=7).build(0, (1, 1, 28, 28))
    >>> net(torch.zeros(5, 784), None, 0).shape
    torch.Size([5, 1, 1, 28, 28])
    """

    name: ClassVar[str] = "pixelcnn"
    net: ClassVar[type[MaskedImageNet]] = PixelCNN


@part("decoder", "gated-pixelcnn")
@dataclass(frozen=True)
class GatedPixelCNNDecoder(MaskedImageSettings):
    """Gated PixelCNN (van den Oord et al. 2016, NeurIPS): `GatedPixelCNN`.

    >>> net = GatedPixelCNNDecoder(channels=32, layers=4).build(0, (1, 1, 28, 28))
    >>> sum(p.numel() for p in net.parameters())
    66640
    """

    name: ClassVar[str] = "gated-pixelcnn"
    net: ClassVar[type[MaskedImageNet]] = GatedPixelCNN
