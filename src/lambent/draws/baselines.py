"""What a score function's signal is compared with: every baseline leaves the gradient unbiased.

Each takes (credit, prediction), both (K, B): what the objective credits a sample with, and the same predicted from the
other samples; it returns credit less baseline, and the loss by which the baseline itself is learnt (None: it isn't).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def leave_one_out(credit: Tensor, prediction: Tensor) -> tuple[Tensor, None]:
    """The others' prediction, independent of the own sample (Mnih & Rezende 2016, section 2.5; Kool et al. 2019)."""
    return credit - prediction, None


class RunningMean(nn.Module):
    """An exponential mean of earlier batches' credits; this batch enters it only after it was judged.

    >>> baseline = RunningMean(decay=0.5)
    >>> baseline(None, torch.full((1, 2), 4.0), torch.zeros(1, 2))[0]
    tensor([[4., 4.]])
    >>> baseline(None, torch.full((1, 2), 4.0), torch.zeros(1, 2))[0]
    tensor([[0., 0.]])
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, x: Tensor | None, credit: Tensor, prediction: Tensor) -> tuple[Tensor, None]:
        """Credit less the mean so far (0 at first)."""
        baseline = self.mean / self.weight.clamp_min(1e-12)
        if self.training:
            self._remember(credit.detach().mean())
        return credit - baseline, None

    def _remember(self, seen: Tensor) -> None:
        """Takes a batch in, unless it is not finite: its step is skipped, and the mean must outlive it."""
        finite, kept = seen.isfinite(), self.decay
        self.mean = torch.where(finite, kept * self.mean + (1 - kept) * seen, self.mean).to(self.mean.dtype)
        self.weight = torch.where(finite, kept * self.weight + (1 - kept), self.weight)


def scalar_net(inputs: int, units: int) -> nn.Module:
    """One hidden layer from ``inputs`` numbers to one, which starts at 0."""
    last = nn.Linear(units, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, units), nn.Tanh(), last)


class LearnedBaseline(nn.Module):
    """NVIL's baseline: a network of x beside the running mean, fitted to the credit by least squares.

    Mnih & Gregor 2014, section 2.3, without their division by the running deviation, which would change the gradient's
    scale.
    """

    def __init__(self, inputs: int, units: int = 100) -> None:
        super().__init__()
        self.mean = RunningMean()
        self.net = scalar_net(inputs, units)

    def forward(self, x: Tensor, credit: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Credit less both baselines, and the mean squared remainder."""
        centred, _ = self.mean(x, credit, prediction)
        remainder = centred.detach() - self.net(x.flatten(1)).squeeze(-1)
        return remainder.detach(), remainder.square().mean()
