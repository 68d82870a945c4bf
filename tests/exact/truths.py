"""Independent truths: closed forms, quadrature and enumeration, written without lambent.

The one-dimensional model is z ~ N(origin, 1), x | z ~ N(z + shift, 1), x = 1, with q = N(mean, exp(log_scale)^2);
origin and shift are 0, and there for their gradients.
"""

import math

import numpy as np
import torch
from scipy import stats

X = 1.0
LOG_P = float(stats.norm.logpdf(X, 0.0, math.sqrt(2.0)))
POSTERIOR = (0.5, 0.5 * math.log(0.5))
C1, C2, C3 = POSTERIOR, (0.0, 0.0), (0.5, math.log(0.8))

DESIGN = {  # (case, K): (value, standard error), as printed in the design
    ("C2", 1): (-1.9189385332, 0.0),
    ("C2", 2): (-1.6534737866, 0.0),
    ("C2", 10): (-1.53505, 1.0e-4),
    ("C2", 50): (-1.51907, 0.9e-4),
    ("C3", 1): (-1.5320820845, 0.0),
    ("C3", 2): (-1.5225401731, 0.0),
    ("C3", 10): (-1.51682, 0.3e-4),
    ("C3", 50): (-1.51574, 0.2e-4),
}
CASES = {"C1": C1, "C2": C2, "C3": C3}


def weights_of(z, mean, log_scale, shift=0.0, origin=0.0):
    """w = p(x|z) p(z) / q(z) at ``z``, by the formula."""
    log_px = -0.5 * (X - z - shift) ** 2 - 0.5 * math.log(2 * math.pi)
    log_pz = -0.5 * (z - origin) ** 2 - 0.5 * math.log(2 * math.pi)
    log_qz = -0.5 * ((z - mean) / torch.exp(log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)
    return torch.exp(log_px + log_pz - log_qz)


def gauss_hermite(n):
    """Nodes and probabilities that integrate polynomials of degree 2n-1 under N(0, 1) exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.tensor(nodes), torch.tensor(weights / weights.sum())


def bound(samples, mean, log_scale, shift=0.0, origin=0.0):
    """L_K = E log (1/K) sum_k w_k to about 1e-9, for any K, differentiable.

    log S = int_0^inf (exp(-t) - exp(-t S)) / t dt, and E exp(-t S) = phi(t/K)^K with phi(s) = E exp(-s w): two
    one-dimensional integrals (trapezia, which converge geometrically here; t = e^u).
    """
    mean, log_scale, shift, origin = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, log_scale, shift, origin))
    noise = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    mass = torch.exp(-0.5 * noise**2)
    mass = mass / mass.sum()
    w = weights_of(mean + torch.exp(log_scale) * noise, mean, log_scale, shift, origin)
    u = torch.linspace(-45, 45, 1801, dtype=torch.float64)
    t = torch.exp(u)
    phi = (torch.exp(-(t / samples).unsqueeze(1) * w) * mass).sum(1)
    step = (u[1] - u[0]).item()
    return (torch.exp(-t) - phi**samples).sum() * step


def gradient(samples, mean, log_scale):
    """d L_K / d (mean, log_scale, shift, origin), by differentiating the quadrature."""
    at = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, log_scale, 0.0, 0.0)]
    return [g.item() for g in torch.autograd.grad(bound(samples, *at), at)]


def bound_by_gauss_hermite(samples, mean, log_scale, n=100):
    """L_1 or L_2 by Gauss-Hermite quadrature, a second way."""
    nodes, mass = gauss_hermite(n)
    scale = torch.tensor(log_scale, dtype=torch.float64)
    w = weights_of(mean + math.exp(log_scale) * nodes, mean, scale)
    if samples == 1:
        return (mass * w.log()).sum().item()
    return (mass.unsqueeze(1) * mass * (0.5 * (w.unsqueeze(1) + w)).log()).sum().item()


class PPCA:
    """The case C5."""

    W = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.5, 0.25]])
    b = np.array([0.0, 1.0, -1.0, 0.5, 0.0])
    variance = 0.25
    x = np.array([1.0, 0.0, 0.5, -0.5, 1.0])
    design_log_p, design_mean_field, design_mean = -12.2506061166, -12.2512804256, (0.5533063, 0.5074224)

    @classmethod
    def log_p(cls):
        covariance = cls.W @ cls.W.T + cls.variance * np.eye(5)
        return float(stats.multivariate_normal.logpdf(cls.x, cls.b, covariance))

    @classmethod
    def precision(cls):
        return np.eye(2) + cls.W.T @ cls.W / cls.variance

    @classmethod
    def posterior_mean(cls):
        return np.linalg.solve(cls.precision(), cls.W.T @ (cls.x - cls.b) / cls.variance)

    @classmethod
    def mean_field_gap(cls):
        """KL of the best diagonal Normal from the posterior: half the log of the determinants' ratio."""
        precision = cls.precision()
        return 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])


class MIXTURE:
    """The case C6."""

    weights, means, scales, x = (0.2, 0.5, 0.3), (-2.0, 0.0, 3.0), (0.5, 1.0, 2.0), 0.7
    design = -1.6765531837

    @classmethod
    def log_p(cls):
        terms = [w * stats.norm.pdf(cls.x, m, s) for w, m, s in zip(cls.weights, cls.means, cls.scales, strict=True)]
        return math.log(math.fsum(terms))


def assert_mean(values, truth, delta, truth_se=0.0):
    """|z| <= 5 at a standard error of at most delta/10: a bias of delta would be seen."""
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    se = math.hypot(values.std().item() / math.sqrt(len(values)), truth_se)
    difference = values.mean().item() - truth
    z = difference / se if se > 0 else math.copysign(math.inf, difference)
    assert se <= delta / 10, f"standard error {se:.2g} is too large to see a bias of {delta:g}"
    assert abs(z) <= 5, f"z = {z:.1f}: {values.mean().item():.6f} against {truth:.6f}"
