"""Chains of one-dimensional linear Normal levels, in float64."""

import math

import torch
from torch import nn

from lambent.distributions import Normal, StandardNormal


class Line(nn.Module):
    """N(slope v, scale^2), one dimension."""

    def __init__(self, slope, scale):
        super().__init__()
        self.slope, self.log_scale = slope, torch.tensor(math.log(scale), dtype=torch.float64)

    def forward(self, value, condition=None):
        return Normal(self.slope * value, self.log_scale.view(1))

    given = forward


class Prior(nn.Module):
    """N(0, 1)."""

    def forward(self, condition=None):
        return StandardNormal((1,), dtype=torch.float64)
