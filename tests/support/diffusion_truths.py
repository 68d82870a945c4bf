"""Diffusions of Gaussian data with the best possible denoiser: bounds, chains and samples by Gaussian algebra.

Signal and noise are written out as a = 1/sqrt(1 + e^gamma) and s = e^(gamma/2) a, and every KL is one of Gaussians:
nothing here is shared with the code under test but gamma itself.
"""

import math

import numpy as np
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from lambent.distributions.gaussian_diffusion import GaussianDiffusion
from lambent.networks.diffusion.schedules import schedule

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.3]], dtype=torch.float64)
POWER, AXES = torch.linalg.eigh(COVARIANCE)
EYE = torch.eye(3, dtype=torch.float64)
LOW, HIGH = -6.0, 5.0


def parts(gamma):
    """Signal a and noise s."""
    signal = 1 / math.sqrt(1 + math.exp(gamma))
    return signal, math.exp(gamma / 2) * signal


def marginal(gamma):
    """q(z_t) of the data."""
    signal, spread = parts(gamma)
    return MultivariateNormal(signal * MEAN, signal**2 * COVARIANCE + spread**2 * EYE)


def best(predict):
    """E[eps|z], E[y|z] or E[v|z], (N, 3) of z (N, 3) and gamma (N,)."""

    def denoise(z, gamma, condition=None):
        signal = (1 / (1 + gamma.double().exp()).sqrt()).unsqueeze(-1)
        spread = ((gamma.double() / 2).exp().unsqueeze(-1)) * signal
        gain = signal * POWER / (signal**2 * POWER + spread**2)
        clean = MEAN + (((z.double() - signal * MEAN) @ AXES) * gain) @ AXES.T
        noise = (z.double() - signal * clean) / spread
        return {"eps": noise, "x": clean, "v": signal * noise - spread * clean}[predict].to(z.dtype)

    return denoise


def chain(name="linear", steps=None, predict="eps", low=LOW, high=HIGH):
    """The chain of best denoisers under that schedule."""
    torch.manual_seed(5)
    curve = schedule(name, low, high, 16).double().requires_grad_(requires_grad=False)
    return GaussianDiffusion(curve, best(predict), predict, steps)


def gammas(found, steps):
    """Of levels 0, 1/T, ..., 1, as numbers."""
    return found.schedule(torch.arange(steps + 1, dtype=torch.float64) / steps)[0].tolist()


def corners(covariance):
    """Equally likely points with mean 0 and that covariance: the mean over them of a quadratic is exact."""
    root = torch.linalg.cholesky(covariance)
    return math.sqrt(len(root)) * torch.cat([root.T, -root.T])


def error(gamma, y):
    """E|eps - E[eps|z]|^2 over eps and over items y (N, 3)."""
    signal, spread = parts(gamma)
    inverse = torch.linalg.inv(signal**2 * COVARIANCE + spread**2 * EYE)
    left = EYE - spread**2 * inverse
    return (left.square().sum() + (signal * spread * (y - MEAN) @ inverse).square().sum(1).mean()).item()


def backward(below, above, y):
    """q(z_s|z_t, y) as (matrix, offset, variance) by Bayes' rule from q(z_s|y) and q(z_t|z_s)."""
    (signal_s, spread_s), (signal_t, spread_t) = parts(below), parts(above)
    ratio = signal_t / signal_s
    added = spread_t**2 - ratio**2 * spread_s**2
    variance = 1 / (1 / spread_s**2 + ratio**2 / added)
    return variance * ratio / added, variance * signal_s * y / spread_s**2, variance


def generative(below, above):
    """p(z_s|z_t) = q(z_s|z_t, E[y|z_t]) as (matrix (3, 3), offset (3,), variance)."""
    signal, spread = parts(above)
    gain = signal * COVARIANCE @ torch.linalg.inv(signal**2 * COVARIANCE + spread**2 * EYE)
    rest = MEAN - gain @ (signal * MEAN)
    along, clean, variance = backward(below, above, EYE)
    return along * EYE + clean @ gain, clean @ rest, variance


def level_kl(below, above, y):
    """E KL(q(z_s|z_t,y)||p(z_s|z_t)) over q(z_t|y)."""
    along, offset, variance = backward(below, above, y)
    matrix, rest, _ = generative(below, above)
    signal, spread = parts(above)
    left = along * EYE - matrix
    mean = left @ (signal * y) + offset - rest
    return ((mean.square().sum() + spread**2 * left.square().sum()) / (2 * variance)).item()


def end_kl(gamma, y):
    """KL(q(z_1|y)||N(0, I))."""
    signal, spread = parts(gamma)
    q = MultivariateNormal(signal * y, spread**2 * EYE)
    return kl_divergence(q, MultivariateNormal(torch.zeros(3, dtype=torch.float64), EYE)).item()


def joint(steps_gammas, y=None):
    """All of z_0..z_1 together, lowest first: q given ``y``, or p without; mean and covariance."""
    top = steps_gammas[-1]
    signal, spread = parts(top)
    mean = [torch.zeros_like(MEAN) if y is None else signal * y]
    cov = EYE.clone() if y is None else spread**2 * EYE
    blocks = cov
    for below, above in zip(reversed(steps_gammas[:-1]), reversed(steps_gammas[1:]), strict=True):
        if y is None:
            matrix, offset, variance = generative(below, above)
        else:
            along, offset, variance = backward(below, above, y)
            matrix = along * EYE
        first = blocks[:3]
        across = matrix @ first
        own = matrix @ first[:, :3] @ matrix.T + variance * EYE
        blocks = torch.cat([torch.cat([own, across], 1), torch.cat([across.T, blocks], 1)])
        mean.insert(0, matrix @ mean[0] + offset)
    return MultivariateNormal(torch.cat(mean), 0.5 * (blocks + blocks.T))


def reconstruction(gamma):
    """E[-log p(y|z_0)] for p(y|z_0) = N(z_0/a_0, s_0^2/a_0^2)."""
    return 1.5 * (1 + math.log(2 * math.pi) + gamma)


def entropy():
    """Of the data."""
    return MultivariateNormal(MEAN, COVARIANCE).entropy().item()


def limit(low, high):
    """The bound of infinitely many levels: entropy, and what the ends of the chain lose."""
    signal, spread = parts(low)
    exact = torch.linalg.inv(torch.linalg.inv(COVARIANCE) + signal**2 / spread**2 * EYE)
    after_eos = MultivariateNormal(MEAN, exact).entropy().item()
    normal = MultivariateNormal(torch.zeros_like(MEAN), EYE)
    return entropy() + kl_divergence(marginal(high), normal).item() + reconstruction(low) - after_eos


def nodes(count):
    """Gauss-Legendre positions and weights on 0..1."""
    at, weight = np.polynomial.legendre.leggauss(count)
    return torch.tensor((at + 1) / 2), torch.tensor(weight / 2)
