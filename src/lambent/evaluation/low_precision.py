"""p(x|z) of all samples in low precision, and of a few of them again in float32: faster, and the bounds stay bounds.

With weights w of K draws and their low-precision values v, (sum_k v_k) w_i / v_i has the mean sum_k w_k if sample i is
chosen with a probability proportional to v_i. So the estimate of p(x) stays unbiased whatever v is (but 0 where w is
not), and its logarithm a lower bound in the mean. That bound is the looser the more log w - log v varies from sample
to sample; its standard deviation is estimated, and above `LOOSE` nats the evaluation is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lambent.distributions.base import Distribution
from lambent.errors import ConfigError, NumericsError
from lambent.models import LatentModel
from lambent.networks.base import optional_hook
from lambent.networks.mlp import MLPDecoderModule

PRECISIONS = ("float32", "bfloat16", "int8")
LOOSE = 0.5
"""Largest standard deviation over samples of the error of log p(x|z), nats."""
FEW = 3
"""Fewest samples for which low precision saves time: two of each chunk are computed again."""
Arithmetic = Callable[[], AbstractContextManager[Any]]


class LowPrecision(Distribution):
    """p(x|z), (K, B), in low precision, with what computes it in full precision for some of the z.

    Args:
        found: The distribution in low precision.
        again: (chosen (M, B) of the K) -> the distribution in full precision, of batch shape (M, B).
        arithmetic: The context in which ``found`` is evaluated.
        precision: Its name.
    """

    def __init__(
        self,
        found: torch.distributions.Distribution,
        again: Callable[[Tensor], torch.distributions.Distribution],
        arithmetic: Arithmetic,
        precision: str,
    ) -> None:
        self.found, self.again, self.arithmetic, self.precision = found, again, arithmetic, precision
        super().__init__(found.batch_shape, found.event_shape)

    @property
    def mean(self) -> Tensor:
        """The mean in low precision, given to DRAW's q: the bound holds for any q that scores its own draws."""
        return self.found.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats, with the rounding error of the arithmetic."""
        with self.arithmetic():
            return self.found.log_prob(value).float()

    def corrections(
        self, x: Tensor, log_px: Tensor, log_weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Corrections to add to the mean of ``log_px`` and to log sum_k v_k, (B,) each, nats.

        The first is unbiased, as is the exponential of the second, from one sample an example each.

        Args:
            x: (B, *event).
            log_px: log p(x|z) in low precision, (K, B).
            log_weight: log v, (K, B).
            generator: Of the choice of samples.
        """
        anyone = torch.randint(len(log_px), log_px.shape[1:], generator=generator, device=log_px.device)
        at = torch.stack([anyone, _drawn(log_weight, generator)])
        exact, low = self.again(at).log_prob(x).double(), log_px.gather(0, at)
        missed = torch.where(exact == low, 0.0, exact - low)
        return missed[0], missed[1]


def _drawn(log_weight: Tensor, generator: torch.Generator) -> Tensor:
    """One of K for each of B, (B,), by their weights (K, B); any, where all of them are 0."""
    share = torch.softmax(log_weight.T, 1).nan_to_num(1.0)
    return torch.multinomial(share, 1, generator=generator).squeeze(1)


class LowPrecisionLikelihood(nn.Module):
    """A likelihood that gives `LowPrecision` distributions; all else is the exact one's.

    Args:
        exact: p(x|z) in full precision.
        precision: "bfloat16" or "int8".
        device: Kind of device.

    Raises:
        ConfigError: "int8" where p(x|z) has another decoder than an MLP, or isn't on a CPU.
    """

    def __init__(self, exact: nn.Module, precision: str, device: str) -> None:
        super().__init__()
        self.exact, self.precision, self.low = exact, precision, exact
        self.arithmetic: Arithmetic = partial(torch.autocast, device, torch.bfloat16)
        if precision == "int8":
            self.low, self.arithmetic = _in_int8(exact, device), nullcontext

    def forward(self, z: Tensor, condition: Tensor | None = None) -> LowPrecision:
        """p(x|z) of batch shape (K, B), from z (K, B, latent)."""
        columns = torch.arange(z.shape[1], device=z.device)
        with self.arithmetic():
            found = self.low(z, condition)
        again = lambda chosen: self.exact(z[chosen, columns], condition)  # noqa: E731
        return LowPrecision(found, again, self.arithmetic, self.precision)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("exact"), name)


class Int8Linear(nn.Module):
    """An affine map of whole numbers -127..127: the weights of each output, and all inputs, on scales of their own.

    >>> layer = nn.Linear(64, 8)
    >>> h = torch.randn(100, 64)
    >>> bool((Int8Linear(layer)(h) - layer(h)).std() < 0.02 * layer(h).std())
    True
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, exact: nn.Linear) -> None:
        super().__init__()
        scale = _unit(exact.weight.detach().abs().amax(1))
        self.register_buffer("weight", _whole(exact.weight.detach(), scale.unsqueeze(1)).T)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if exact.bias is None else exact.bias.detach())

    def forward(self, h: Tensor) -> Tensor:
        """(N, outputs) of (N, inputs)."""
        low, high = h.aminmax()
        scale = _unit(torch.maximum(high, -low))
        products = torch._int_mm(_whole(h, scale), self.weight)
        # as floats in their own memory: allocating memory of this size takes longer than the product
        found = products.view(torch.float32).copy_(products).mul_(scale * self.scale)
        return found if self.bias is None else found.add_(self.bias)


def _unit(largest: Tensor) -> Tensor:
    """The step at which numbers up to ``largest`` are -127..127 steps."""
    return largest.clamp_min(1e-30) / 127


def _whole(numbers: Tensor, unit: Tensor) -> Tensor:
    """In steps of ``unit``."""
    return (numbers * unit.reciprocal()).round_().to(torch.int8)


def require_tight(precision: str, error_sd: float) -> None:
    """Refuse a bound that low precision made loose.

    Raises:
        NumericsError: ``error_sd``, the standard deviation in nats, is above `LOOSE`, or not finite.
    """
    if not error_sd <= LOOSE:
        raise NumericsError(
            f"precision={precision}: the error of log p(x|z) has a standard deviation of {error_sd:.2g} nats over "
            f"samples, expected at most {LOOSE} so that the bound stays tight; use precision=float32"
        )


def in_low_precision(model: LatentModel, precision: str, samples: int) -> LatentModel:
    """``model``, sharing all its parts, but with its p(x|z) in low precision; the latents' p and q keep theirs.

    Args:
        model: Its likelihood is called with z (K, B, latent).
        precision: "bfloat16" (products and convolutions), "int8" (an MLP's affine maps, on a CPU), or "float32" for the
            model itself.
        samples: K, of each example.

    Raises:
        ConfigError: another precision, too few samples for it, or "int8" where p(x|z) has another decoder than an MLP,
            or isn't on a CPU.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return model
    if samples < FEW:
        raise ConfigError(
            f"precision={precision} is for importance samples: found {samples}, expected {FEW} or more; leave it out"
        )
    found, device = copy.copy(model), next(model.parameters()).device.type
    likelihood = LowPrecisionLikelihood(model.likelihood, precision, device)
    found.__dict__["_modules"] = {**model._modules, "likelihood": likelihood}
    return found


def _in_int8(likelihood: nn.Module, device: str) -> nn.Module:
    decoder = optional_hook(likelihood, "decoder")
    if device != "cpu" or not isinstance(decoder, MLPDecoderModule):  # others may read a map's weights themselves
        raise ConfigError(
            f"precision=int8 is for decoder=mlp on a CPU: found {type(decoder).__name__} on {device}; use "
            "precision=bfloat16, or leave it out"
        )
    return _replaced(likelihood)


def _replaced(module: nn.Module) -> nn.Module:
    """A copy that shares everything but its affine maps."""
    if type(module) is nn.Linear:
        return Int8Linear(module)
    found = copy.copy(module)
    children = {name: None if child is None else _replaced(child) for name, child in module._modules.items()}
    found.__dict__["_modules"] = children
    return found
