"""A window on an image that is read or written through Gaussian filters (Gregor et al. 2015, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lambent.distributions.numerics import bounded_log_scale
from lambent.networks.mlp import affine


class Window(nn.Module):
    """A grid of ``patch`` x ``patch`` Gaussian filters whose position, stride, width and strength come from a vector.

    The vector h gives (x, y, log s^2, log d, log g) by one affine map. The centre is ((W + 1)/2 (x + 1),
    (H + 1)/2 (y + 1)), counting pixels from 1, the stride is d (max(H, W) - 1) / (patch - 1), and the filter of row i
    is F_Y[i, b] proportional to exp(-(b - m_i)^2 / (2 s^2)), summing to 1 over the H pixels b (eq. 19 to 26). The three
    logarithms are bounded smoothly; all numbers 0 mean a window as large as the image.

    Args:
        features: Numbers in h.
        size: (H, W) of the image.
        patch: Filters in each direction.
    """

    def __init__(self, features: int, size: tuple[int, int], patch: int) -> None:
        super().__init__()
        self.size, self.patch = size, patch
        self.place = affine(features, 5, gain=0.1)

    def read(self, h: Tensor, image: Tensor) -> Tensor:
        """The patch g F_Y image F_X^T, (N, C, n, n), of an image (N, C, H, W) seen from ``h`` (N, features)."""
        rows, columns, strength = self.filters(h)
        patch: Tensor = strength * (rows @ image @ columns.mT)
        return patch

    def write(self, h: Tensor, patch: Tensor) -> Tensor:
        """The image 1/g F_Y^T patch F_X, (N, C, H, W), that a patch (N, C, n, n) leaves."""
        rows, columns, strength = self.filters(h)
        image: Tensor = (rows.mT @ patch @ columns) / strength
        return image

    def filters(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F_Y (N, 1, n, H), F_X (N, 1, n, W), and g (N, 1, 1, 1)."""
        x, y, log_variance, log_stride, log_strength = self.place(h).unbind(-1)
        stride = bounded_log_scale(log_stride).exp() * (max(self.size) - 1) / max(1, self.patch - 1)
        variance = bounded_log_scale(log_variance).exp()
        rows = self._filter(y, stride, variance, self.size[0])
        columns = self._filter(x, stride, variance, self.size[1])
        return rows, columns, bounded_log_scale(log_strength).exp().view(-1, 1, 1, 1)

    def _filter(self, centre: Tensor, stride: Tensor, variance: Tensor, pixels: int) -> Tensor:
        """(N, 1, n, pixels)."""
        offsets = torch.arange(self.patch, device=centre.device) - (self.patch - 1) / 2
        means = 0.5 * (pixels + 1) * (centre.unsqueeze(1) + 1) + offsets * stride.unsqueeze(1)
        away = torch.arange(1, pixels + 1, device=centre.device) - means.unsqueeze(-1)
        # by a softmax, as a filter wholly outside the image would have nothing to be divided by
        return torch.softmax(-0.5 * away.square() / variance.view(-1, 1, 1), -1).unsqueeze(1)
