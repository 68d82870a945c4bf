"""The checks that closed-form EM must pass and every planted fault must fail; each raises AssertionError."""

import math
import warnings

import numpy as np
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.mixture import GaussianMixture

import lambent.training.em.linear_gaussian as linear
from lambent.draws import Pathwise
from lambent.errors import NumericsError
from lambent.evaluation.exact import exact_log_prob
from lambent.likelihoods.scale import raw_scale
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.training.em.em import maximise, require_ascent, rounding
from support.random_numbers import generator

SCALES = ("fixed", "model", "dimension", "element")
KINDS = [*(("gmm", "normal", scale) for scale in SCALES), ("gmm", "bernoulli", ""), ("gmm", "poisson", "")]
KINDS += [("ppca", "normal", scale) for scale in SCALES[:3]]


def data_for(family, n=200, dims=6, seed=0):
    """Three clusters of whole numbers, so that float32 holds the data exactly."""
    noise = generator(seed)
    centres = 4 * torch.randn(3, dims, generator=noise)
    real = centres[torch.randint(3, (n,), generator=noise)] + torch.randn(n, dims, generator=noise)
    return {"normal": (8 * real).round() / 8, "bernoulli": (real > 0) * 1.0, "poisson": real.abs().round()}[family]


def build(recipe, family, scale, *, latent=3, dims=6, seed=0, dtype=torch.float64):
    """A model at a random start."""
    tokens = [f"latent={latent}", f"likelihood={family}", *([f"likelihood.scale={scale}"] if scale else [])]
    torch.manual_seed(seed)
    config = configure(recipe, tokens=tuple(tokens))
    model = config.model.build(config, Shapes((dims,), latent)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def mean_log_p(model, x):
    return exact_log_prob(model)(x, None).double().mean()


def ppca_evidence(x, latent):
    """Mean log p(x) at the closed-form maximum (Tipping & Bishop 1999, eq. 4, 7 and 8)."""
    values = torch.linalg.svdvals(x - x.mean(0)).square() / len(x)
    d = x.shape[1]
    noise = values[latent:].sum() / (d - latent)
    return float(-0.5 * (d * math.log(2 * math.pi) + values[:latent].log().sum() + (d - latent) * noise.log() + d))


def expected_joint(model, x, frozen):
    """Q = mean E_q log p(x, z), q the posterior of ``frozen``, differentiable in ``model``."""
    if model.__class__.__name__ == "Mixture":
        z = torch.eye(model.states, dtype=x.dtype).unsqueeze(1).expand(-1, len(x), -1)
        joint = [m.likelihood(z).log_prob(x) + m.prior().log_prob(z) for m in (model, frozen)]
        return (joint[1].detach().softmax(0) * joint[0]).sum(0).mean()
    affine, scale = frozen.likelihood.decoder.affine, linear.own_log_scale(frozen.likelihood).exp()
    covariance = torch.linalg.inv(
        torch.eye(affine.in_features, dtype=x.dtype) + (affine.weight.T / scale**2) @ affine.weight
    )
    mean = (x - affine.bias) / scale**2 @ affine.weight @ covariance
    root = torch.linalg.cholesky(len(covariance) * covariance).T.detach()
    nodes = mean.detach() + torch.cat([root, -root]).unsqueeze(1)  # quadratics are averaged exactly
    return model.likelihood(nodes).log_prob(x).mean()


def m_step_is_flat(recipe="gmm", family="normal", scale="element"):
    """After one step no parameter of p has a slope in Q, the ELBO at the old posterior."""
    x, model = data_for(family).double(), build(recipe, family, scale)
    if recipe == "ppca":  # the step sets b to the mean before its E step
        model.likelihood.decoder.affine.bias.data.copy_(x.mean(0))
    old = build(recipe, family, scale)
    old.load_state_dict(model.state_dict())
    maximise(model, x)
    parts = [p for part in (model.prior, model.likelihood) for p in part.parameters()]
    slopes = torch.autograd.grad(expected_joint(model, x, old), parts)
    worst = max(slope.abs().max().item() for slope in slopes)
    assert worst < 1e-9, f"{recipe} {family} {scale}: slope {worst:.2g} after the M step"


def never_falls(recipe="gmm", family="normal", scale="element", dtype=torch.float64, starts=3, steps=25):
    """From random starts, at every iteration; and what is reported is log p(x) before the step."""
    x = data_for(family).to(dtype)
    for seed in range(starts):
        model, before = build(recipe, family, scale, seed=seed, dtype=dtype), None
        for _ in range(steps):
            exact = mean_log_p(model, x).item()
            now = maximise(model, x).mean().item()
            assert abs(now - exact) < (1e-9 if dtype == torch.float64 else 1e-4) * abs(exact)
            try:
                require_ascent(before, now, rounding(model, x))
            except NumericsError as error:
                raise AssertionError(f"{recipe} {family} {scale}: {error}") from None
            before = now


def iris():
    return torch.tensor(load_iris().data)


def sklearn_start(model, x):
    """The start that both get: distinct examples as means, the data's variances, unequal weights."""
    weights, variance = np.array([0.5, 0.3, 0.2]), x.var(0, correction=0)
    means = x[[3, 70, 120]]
    with torch.no_grad():
        model.prior.logits.copy_(torch.tensor(weights).log())
        raw = raw_scale(variance, model.likelihood.family.sigma)
        columns = torch.stack([means, raw.expand_as(means)], 1).flatten(1)
        model.likelihood.decoder.affine.weight.copy_(columns.T)
        model.likelihood.decoder.affine.bias.zero_()
    precisions = (1 / variance).expand_as(means).numpy()
    return {"means_init": means.numpy(), "weights_init": weights, "precisions_init": precisions}


def agrees_with_sklearn(iterations=(1, 5, 30, 400)):
    """Mean log p(x) after as many iterations of scikit-learn's EM from the same start, to 1e-6 nats."""
    x = iris()
    for count in iterations:
        model = build("gmm", "normal", "element", dims=4)
        start = sklearn_start(model, x)
        for _ in range(count):
            maximise(model, x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it did not converge in so many iterations
            theirs = GaussianMixture(3, covariance_type="diag", tol=0, reg_covar=0, max_iter=count, **start)
            score = theirs.fit(x.numpy()).score(x.numpy())
        found = mean_log_p(model, x).item()
        print(f"{count:4d} iterations: {found:.10f} against {score:.10f}")
        assert abs(found - score) < 1e-6


def wine():
    x = torch.tensor(load_wine().data)
    return (x - x.mean(0)) / x.std(0, correction=0)


def ascended(recipe, scale, x, latent, steps):
    model = build(recipe, "normal", scale, latent=latent, dims=x.shape[1])
    for _ in range(steps):
        maximise(model, x)
    return model


def fa_agrees_with_sklearn():
    """Factor analysis at convergence, to 1e-5 nats (scikit-learn stops within that of its own limit)."""
    x = wine()
    found = mean_log_p(ascended("factor-analysis", "dimension", x, 3, 2000), x).item()
    theirs = FactorAnalysis(3, tol=1e-10, max_iter=20_000, svd_method="lapack").fit(x.numpy()).score(x.numpy())
    print(f"factor analysis: {found:.8f} against {theirs:.8f}")
    assert abs(found - theirs) < 1e-5


def ppca_reaches_the_maximum():
    """PPCA at convergence, to 1e-6 nats of the closed form."""
    x = wine()
    found, truth = mean_log_p(ascended("ppca", "model", x, 3, 1000), x).item(), ppca_evidence(x, 3)
    print(f"ppca: {found:.10f} against {truth:.10f}")
    assert abs(found - truth) < 1e-6


def q_is_the_posterior():
    """Every importance weight of the stored posterior is p(x)."""
    x = data_for("normal").double()
    for scale in SCALES[:3]:
        model = build("ppca", "normal", scale)
        maximise(model, x)
        weight = model(x, Pathwise(samples=5, generator=generator(0))).log_weight(x)
        assert (weight - exact_log_prob(model)(x, None)).abs().max() < 1e-9
