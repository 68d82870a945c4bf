"""Invertible networks of zuko (Rozet et al., github.com/probabilists/zuko)."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

_SWITCHES = ("_validate_args", "arg_constraints")


def zuko() -> ModuleType:
    """The library, imported when first asked for.

    On import it switches off the validation of arguments by all of torch's distributions; here that stays as it was.
    """
    base = torch.distributions.Distribution
    before = {name: vars(base)[name] for name in _SWITCHES}
    try:
        return importlib.import_module("zuko")
    finally:
        for name, value in before.items():
            setattr(base, name, value)


class AutoregressiveTransforms(nn.Module):
    """u = f(z), f a composition of maps z_i -> g(z_i; z_<i), each g monotonic; every second one goes backwards.

    Args:
        features: Numbers of z.
        transforms: How many maps.
        hidden: Units of the hidden layers of each map's network.
        spline: Whether g is a rational-quadratic spline (Durkan et al. 2019), else affine (Papamakarios et al. 2017).
    """

    def __init__(self, features: int, transforms: int, hidden: tuple[int, ...], *, spline: bool = False) -> None:
        super().__init__()
        flows = zuko().flows
        family = flows.NSF if spline else flows.MAF
        self.transform = family(features, transforms=transforms, hidden_features=hidden).transform

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U (*, features), in one pass, and log |det du/dz| (*)."""
        u, log_det = self.transform().call_and_ladj(z)
        return u, log_det

    def inverse(self, u: Tensor) -> Tensor:
        """Z (*, features), in as many passes as features."""
        z: Tensor = self.transform().inv(u)
        return z
