"""Closed-form EM against scikit-learn, closed forms and two theorems: Q is flat after an M step, log p never falls.

``pytest tests/training/em -s`` prints the figures and lists the planted faults.
"""

import math

import pytest
import torch
from torch import nn

import lambent.training.em.mixture as mixtures
from lambent.data import DataOptions, load
from lambent.draws import Enumerate
from lambent.errors import CombinationError, NumericsError
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.training.em.em import maximise, maximiser, require_ascent, rounding
from support.em_checks import (
    KINDS,
    agrees_with_sklearn,
    build,
    data_for,
    fa_agrees_with_sklearn,
    m_step_is_flat,
    mean_log_p,
    never_falls,
    ppca_evidence,
    ppca_reaches_the_maximum,
    q_is_the_posterior,
)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_an_m_step_leaves_no_slope(kind):
    m_step_is_flat(*kind)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_likelihood_never_falls(kind, dtype):
    never_falls(*kind, dtype=dtype)


def test_a_gmm_reaches_scikit_learns_likelihood():
    agrees_with_sklearn()


def test_factor_analysis_reaches_scikit_learns_likelihood():
    fa_agrees_with_sklearn()


def test_ppca_reaches_the_closed_form():
    ppca_reaches_the_maximum()


def test_the_elbo_is_the_evidence_after_a_step():
    q_is_the_posterior()


def test_ppca_on_the_digits_in_float32():
    """Real images, pixels that never vary among them: the maximum of the recipe's model, to 1e-5 nats."""
    x = load("digits", options=DataOptions(), split="train").x.flatten(1).float() / 16
    torch.manual_seed(0)
    config = configure("ppca", tokens=("latent=5",))
    model = config.model.build(config, Shapes((64,), 5))
    for _ in range(300):
        maximise(model, x)
    short = ppca_evidence(x.double(), 5) - mean_log_p(model, x.double()).item()
    print(f"digits: {short:.1e} nats short of the maximum")
    assert -1e-6 < short < 1e-5


def test_stretches_add_up(monkeypatch):
    for recipe, scale in (("gmm", "element"), ("ppca", "model")):
        x, models = data_for("normal").double(), []
        for size in (1 << 21, 50):
            monkeypatch.setattr(mixtures, "CHUNK", size)
            models.append(build(recipe, "normal", scale))
            log_p = maximise(models[-1], x)
        assert (log_p - maximise(build(recipe, "normal", scale), x)).abs().max() < 1e-10
        for one, two in zip(*(model.parameters() for model in models), strict=True):
            assert (one - two).abs().max() < 1e-10


def test_images_are_vectors():
    x = data_for("normal").double()
    config = configure("gmm", tokens=("latent=3",))
    images = config.model.build(config, Shapes((1, 2, 3), 3)).double()
    flat = build("gmm", "normal", "element")
    images.load_state_dict(flat.state_dict())
    assert torch.allclose(maximise(images, x.view(-1, 1, 2, 3)), maximise(flat, x), rtol=1e-12)
    weights = [model.likelihood.decoder.affine.weight for model in (images, flat)]
    assert torch.allclose(*weights, rtol=1e-12)


@pytest.mark.parametrize(("family", "scale"), [kind[1:] for kind in KINDS if kind[0] == "gmm"])
def test_an_empty_state_keeps_its_parameters(family, scale):
    x, model = data_for(family).double(), build("gmm", family, scale)
    with torch.no_grad():
        model.prior.logits[1] = -60.0
        if scale:
            model.likelihood.decoder.affine.weight[:6, 1] = 1e3
    before = MixtureNumbers(model)
    maximise(model, x)
    after, again = MixtureNumbers(model), maximise(model, x)
    assert torch.isfinite(again).all()
    assert torch.allclose(after.numbers[1], before.numbers[1], rtol=1e-12)
    assert after.weights[1] < 1e-15
    trace = model(x, Enumerate())
    assert torch.isfinite(trace.average(trace.log_px(x) - trace.rate)).all()


class MixtureNumbers:
    def __init__(self, model):
        affine = model.likelihood.decoder.affine
        self.numbers = (affine.weight + affine.bias.unsqueeze(1)).T.detach().clone()
        self.weights = model.prior.logits.softmax(0).detach()


def test_a_state_with_one_example_stays_at_the_smallest_scale():
    x = torch.cat([data_for("normal").double(), torch.full((1, 6), 100.0).double()])
    model, before = build("gmm", "normal", "element"), None
    with torch.no_grad():
        model.likelihood.decoder.affine.weight[:6, 0] = 100.0
    for _ in range(10):
        now = maximise(model, x).mean().item()
        require_ascent(before, now, rounding(model, x))
        before = now
    scale = mixtures.MixtureStep(model)._states().log_scale[0]
    assert torch.allclose(scale, torch.tensor(-6.99).double())


def test_pixels_that_never_vary_stay_finite():
    for family in ("bernoulli", "poisson"):
        x, model = torch.zeros(20, 6).double(), build("gmm", family, "")
        for _ in range(3):
            assert torch.isfinite(maximise(model, x)).all()
        assert maximise(model, x).min() > -1e-5


def test_frozen_sides_keep_their_values():
    x = data_for("normal").double()
    for recipe, scale in (("gmm", "element"), ("ppca", "model")):
        for part in ("prior", "likelihood", "posterior"):
            model = build(recipe, "normal", scale)
            if not any(True for _ in getattr(model, part, nn.Identity()).parameters()):
                continue
            getattr(model, part).requires_grad_(False)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            maximise(model, x)
            same = {name: torch.equal(value, before[name]) for name, value in model.state_dict().items()}
            assert all(same[name] == name.startswith(part) for name in same), (recipe, part, same)


@pytest.mark.parametrize(
    ("recipe", "tokens", "fix"),
    [
        ("gmm", ("likelihood=negative-binomial",), "likelihood=normal, bernoulli or poisson"),
        ("gmm", ("decoder=mlp",), "decoder=linear"),
        ("ppca", ("likelihood=bernoulli",), "likelihood=normal"),
        ("ppca", ("likelihood.scale=element",), "likelihood.scale=model"),
        ("ppca", ("decoder=mlp",), "decoder=linear"),
        ("ppca", ("encoder=mlp",), "encoder=linear"),
        ("ppca", ("posterior.shared=false",), "posterior.shared=true"),
        ("ppca", ("prior=mixture",), "prior=normal"),
    ],
)
def test_models_without_a_closed_form_are_refused(recipe, tokens, fix):
    config = configure(recipe, tokens=("latent=2", *tokens))
    model = config.model.build(config, Shapes((3,), 2))
    with pytest.raises(CombinationError, match=fix):
        maximiser(model)


def test_conditions_and_half_frozen_parts_are_refused():
    model, x = build("gmm", "normal", "element"), data_for("normal").double()
    with pytest.raises(CombinationError, match="condition"):
        maximise(model, x, x)
    model.likelihood.decoder.affine.bias.requires_grad_(False)
    with pytest.raises(CombinationError, match="frozen in part"):
        maximise(model, x)


def test_a_fall_or_a_number_that_is_none_stops():
    require_ascent(None, -5.0, 0.0)
    require_ascent(-5.0, -5.0 - 1e-8, 1e-7)
    for now in (-5.1, math.nan, -math.inf):
        with pytest.raises(NumericsError):
            require_ascent(-5.0, now, 1e-7)
