"""A ladder whose top level has a diffusion for its prior: samples with levels held visit as many levels as asked."""

import pytest
import torch

import lambent
from lambent.errors import ConfigError, ShapeError

SMALL = {"latent": 3, "upper_latents": [2], "between_hidden": [8], "encoder__hidden": [8], "decoder__hidden": [8]}


@pytest.fixture(scope="module")
def run():
    settings = {
        "prior": "latent-diffusion",
        "prior__hidden_dim": 8,
        "prior__blocks": 1,
        "prior__sampling_steps": 7,
        "epochs": 0,
    }
    return lambent.fit("lvae-small", "digits", threads=1, quiet=True, **SMALL, **settings)


@pytest.mark.parametrize(("steps", "noise"), [(2, 0.0), (3, 1.0), (None, None)])
def test_with_nothing_held_a_sample_is_one_without(run, steps, noise):
    asked = {"steps": steps, "noise": noise, "seed": 5, "mean": True}
    assert torch.equal(run.sample(4, held={}, **asked), run.sample(4, **asked))


def test_steps_matter_where_a_lower_level_is_held(run):
    held = {"z1": run.infer("digits")["z1"][:4]}
    two, own = (run.sample(4, held=held, steps=steps, seed=5, mean=True) for steps in (2, None))
    assert not torch.equal(two, own)


def test_codes_of_another_width_are_refused_by_their_width(run):
    with pytest.raises(ShapeError, match="latents of 4 numbers, expected 5"):
        run.decode(torch.zeros(2, 4))
    assert run.decode(torch.zeros(2, 5)).shape == (2, 1, 8, 8)


def test_held_values_may_be_arrays(run):
    z = run.infer("digits")["z1"][:3]
    assert torch.equal(run.sample(3, held={"z1": z.numpy()}), run.sample(3, held={"z1": z}))


def test_no_samples_at_all_are_refused(run):
    with pytest.raises(ConfigError, match="n=0: expected at least 1"):
        run.sample(0)
    with pytest.raises(ConfigError, match="samples=0: expected at least 1"):
        run.evaluate("digits", samples=0)
