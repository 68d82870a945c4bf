"""One side of a model held while the other is trained, and weights taken from another run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import lambent
from lambent.draws import Mode
from lambent.errors import CheckpointError, CombinationError, ConfigError
from lambent.storage import checkpoint
from support.listening import Heard, fit_heard

X = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
SMALL = {"latent": 2, "hidden": [8], "quiet": True, "data__scale": "none"}


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def side(tensors, part):
    return {name: value for name, value in tensors.items() if name.startswith(part)}


def same(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_side") / "source"
    return lambent.fit("gaussian-vae", X, out=folder, epochs=6, **SMALL)


@pytest.mark.parametrize(
    ("recipe", "frozen", "trained"),
    [("fixed-encoder", "posterior", "likelihood"), ("gan-inverter", "likelihood", "posterior")],
)
def test_a_side_taken_from_a_run_stays_that_runs_to_the_last_bit(recipe, frozen, trained, source, tmp_path):
    console = Heard()
    settings = {**SMALL, "train__init": str(source.folder.path)}
    run = fit_heard(console, recipe, X, out=tmp_path / "run", epochs=3, weight_decay=0.1, ema=50, **settings)
    before, after = weights(source), weights(run)
    assert same(side(before, frozen), side(after, frozen)) == []
    assert same(side(before, trained), side(after, trained)) == list(side(after, trained))
    last = checkpoint.newest(run.folder.path).tensors["model"]
    assert same(side(before, frozen), side(last, frozen)) == []
    taken = len(side(before, frozen))
    assert any(f"took {taken} of {len(after)} tensors" in line for line in console.lines)


def test_the_weights_are_those_of_the_best_checkpoint_and_all_of_them_unless_one_side_is_asked_for(source):
    run = lambent.fit("gaussian-vae", X, epochs=0, train__init=str(source.folder.path), **SMALL)
    assert same(weights(source), weights(run)) == []
    best = checkpoint.load(checkpoint.path_of(source.folder.path, source.step)).tensors["model"]
    assert same(best, weights(run)) == []
    half = lambent.fit("gaussian-vae", X, epochs=0, train__init=str(source.folder.path), init_side="inference", **SMALL)
    fresh = lambent.fit("gaussian-vae", X, epochs=0, **SMALL)
    assert same(side(weights(half), "posterior"), side(best, "posterior")) == []
    assert same(side(weights(half), "likelihood"), side(weights(fresh), "likelihood")) == []


def test_weights_that_do_not_fit_are_named_and_refused_where_they_matter(source):
    init, wider, console = str(source.folder.path), {**SMALL, "hidden": [9]}, Heard()
    with pytest.raises(CheckpointError, match=r"decoder.*expected all of the frozen generative side"):
        lambent.fit("gan-inverter", X, train__init=init, **{**SMALL, "latent": 3})
    fit_heard(console, "gaussian-vae", X, epochs=0, train__init=init, **wider)
    assert any("not taken" in line and "there [8" in line for line in console.lines)
    with pytest.raises(CheckpointError, match="no tensor that fits"):
        lambent.fit("gmm", X, epochs=0, train__init=init, latent=7, quiet=True)
    with pytest.raises(ConfigError, match=r"likelihood.sigma is 0.1 there, found 0.5"):
        lambent.fit("gan-inverter", X, train__init=init, sigma=0.5, **SMALL)


def test_what_would_hold_a_random_generator_or_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"train.init=RUN.*decoder=MODULE"):
        lambent.fit("gan-inverter", X, epochs=1, **SMALL)
    with pytest.raises(CombinationError, match=r"train\.freeze=generative"):
        lambent.fit("gmm", X, freeze="generative", latent=2, quiet=True)


def generator():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 6))


def test_a_users_generator_is_inverted_and_left_as_it_was():
    """z -> G(z) -> z by the encoder alone: the mean squared error falls far below the prior mean's, 2."""
    module = generator()
    before, asked = copy.deepcopy(module.state_dict()), [p.requires_grad for p in module.parameters()]
    settings = {**SMALL, "hidden": [64], "decoder": module, "lr": 3e-3, "validate_every": 10**6}
    fresh, run = (lambent.fit("gan-inverter", X, steps=steps, **settings) for steps in (0, 1500))
    assert same(before, module.state_dict()) == []
    assert [p.requires_grad for p in module.parameters()] == asked
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(9))
    errors = [(r.encode(r.decode(z).numpy()) - z).square().sum(1).mean().item() for r in (fresh, run)]
    assert errors[0] > 1
    assert errors[1] < 0.1


def test_a_users_encoder_stays_as_it_was():
    torch.manual_seed(6)
    module = nn.Linear(6, 5)
    before = copy.deepcopy(module.state_dict())
    run = lambent.fit("fixed-encoder", X, encoder=module, epochs=3, **SMALL)
    assert same(before, module.state_dict()) == []
    bounds = [row["valid"]["bound"] for row in run.history if "valid" in row]
    assert bounds[-1] > bounds[0]


def test_a_vaes_decoder_is_inverted_better_than_by_its_own_encoder(tmp_path):
    """On the digits, mean squared error of z ~ N(0, I), 8 dimensions, from x = E[x|z]; the prior's mean has 8."""
    settings = {"latent": 8, "quiet": True, "validate_every": 50}
    vae = lambent.fit("gaussian-vae", "digits", out=tmp_path / "vae", epochs=100, **settings)
    given = {**settings, "train__init": str(tmp_path / "vae")}
    before, after = (lambent.fit("gan-inverter", "digits", epochs=epochs, **given) for epochs in (0, 100))
    z = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1))
    x = vae.decode(z)
    errors = {}
    for name, run in {"vae": vae, "before": before, "after": after}.items():
        with torch.inference_mode():
            squared = (run.model(x, Mode()).latents[0].value[0] - z).square().sum(1)
        errors[name] = squared.mean().item()
        print(f"{name}: {errors[name]:.4f} +- {squared.std().item() / len(z) ** 0.5:.4f}")
    assert errors["before"] > 5
    assert errors["after"] < 0.3 * errors["vae"] < 0.1
