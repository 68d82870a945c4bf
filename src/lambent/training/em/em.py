"""One iteration of EM: alternating maximisation of the ELBO, over q and then over the parameters, both in closed form.

Over q the maximum is the exact posterior, where the ELBO is log p(x); so no iteration lowers the likelihood (Neal &
Hinton 1998, theorem 2). Arithmetic is in float64, parameters stay in the model's own type.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lambent.errors import CombinationError, ConfigError, NumericsError
from lambent.models import VAE, LatentModel, Mixture
from lambent.training.em.linear_gaussian import LinearGaussianStep
from lambent.training.em.mixture import MixtureStep
from lambent.training.schedule import Phase

Step = MixtureStep | LinearGaussianStep


def maximise(model: LatentModel, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """One iteration of EM on all of ``x``, written into the model; log p(x) of the parameters before it.

    Supported: `Mixture` with a categorical prior and Normal, Bernoulli or Poisson likelihood, and linear-Gaussian `VAE`
    (PPCA, factor analysis) with one covariance shared by all posteriors; decoders affine. See `MixtureStep` and
    `LinearGaussianStep` for what happens at the edges (empty components, variances of 0). A prior, likelihood or
    posterior that is frozen (``requires_grad`` False) is left as it is.

    Args:
        model: Its parameters are overwritten.
        x: The whole data set, (B, *event), in the data's support; read in blocks.
        condition: Must be None: no closed form here knows conditions.

    Returns:
        Exact log p(x) of each example under the parameters before the M step, (B,), float64, nats.

    Raises:
        CombinationError: no closed-form M step exists; says what would do.

    >>> from lambent.recipes import configure
    >>> from lambent.shapes import Shapes
    >>> gmm = configure("gmm", tokens=("latent=1",))
    >>> model = gmm.model.build(gmm, Shapes((1,), 1))
    >>> _ = maximise(model, torch.tensor([[1.0], [3.0]]))
    >>> maximise(model, torch.tensor([[1.0], [3.0]])).tolist()  # N(2, 1) at distance 1
    [-1.4189385332046727, -1.4189385332046727]
    """
    if condition is not None:
        raise CombinationError("schedule=em: closed-form M steps know no condition; use schedule=joint")
    with torch.no_grad():
        return maximiser(model)(x)


def maximiser(model: LatentModel) -> Step:
    """The EM step of a model, x (B, *event) -> log p(x) (B,); for asking before training whether there is one.

    Raises:
        CombinationError: there is none; says what would do.
    """
    if isinstance(model, Mixture):
        return MixtureStep(model)
    if isinstance(model, VAE):
        return LinearGaussianStep(model)
    raise CombinationError(
        f"schedule=em with {type(model).__name__}: no closed-form M step is known; use model=mixture, "
        "or model=vae with linear decoder and likelihood=normal"
    )


@torch.no_grad()
def rounding(model: LatentModel, x: Tensor) -> float:
    """How far the rounding of what is stored may have lowered the mean log p(x), nats per example.

    With u the unit roundoff of the parameters' type, D elements an example, a the largest number in units of its own
    noise (max |x| / min s for Normals): D u (8 + u a^2) + 64 u64 D (1 + a). An exact maximum is flat, so what is stored
    a relative u off costs u^2 a^2 / 2; where a bound holds a scale the slope is at most 7; the last term is that of
    computing log p in float64.
    """
    eps = torch.finfo(next(model.likelihood.parameters()).dtype).eps
    sharp, dims = maximiser(model).sharpness(x), math.prod(x.shape[1:])
    return dims * eps * (8 + eps * sharp**2) + 64 * dims * torch.finfo(torch.float64).eps * (1 + sharp)


def require_ascent(before: float | None, now: float, slack: float) -> None:
    """Holds EM to its theorem: from one iteration to the next the mean log p(x) of the same data never falls.

    Args:
        before: Mean log p(x) of the iteration before, nats; None at the first.
        now: That of this one.
        slack: By how much it may fall: what `rounding` allows.

    Raises:
        NumericsError: it fell by more than that, or is not finite.

    >>> require_ascent(-2.0, -2.1, slack=1e-6)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    lambent.errors.NumericsError: EM lowered the mean log-likelihood from -2 to -2.1 nats, 1e-06 is what ...
    """
    if not math.isfinite(now):
        raise NumericsError(f"EM: the mean log-likelihood is {now}; check the data for extreme values")
    if before is not None and now < before - slack:
        raise NumericsError(
            f"EM lowered the mean log-likelihood from {before:.10g} to {now:.10g} nats, {slack:.3g} is what rounding "
            "explains; train on the whole data at once (train.batch_size)"
        )


def require_closed_form(model: LatentModel, steps_per_epoch: int, processes: int) -> None:
    """Refuses what EM can't do, before the first step.

    Raises:
        CombinationError: no closed-form M step exists for this model; says what would do.
        ConfigError: a batch smaller than the training set, or several processes.
    """
    maximiser(model)
    if steps_per_epoch != 1:
        raise ConfigError(
            f"schedule=em: an epoch has {steps_per_epoch} batches, expected 1, as an EM step takes the whole training "
            "set; set train.batch_size to its size or more"
        )
    if processes != 1:
        raise ConfigError(f"schedule=em: found {processes} processes, expected 1; start it without torchrun")


def em_step(model: LatentModel, x: Tensor, condition: Tensor | None, phase: Phase) -> tuple[Tensor, Phase]:
    """One EM iteration; log p(x) of each example before it, (B,), nats, and the phase that remembers its mean.

    Raises:
        NumericsError: the mean fell by more than rounding explains.
    """
    slack = rounding(model, x)
    log_p = maximise(model, x, condition)
    mean = float(log_p.mean())
    require_ascent(phase.last, mean, slack)
    return log_p, replace(phase, last=mean)
