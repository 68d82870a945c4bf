"""What a run is measured on: only what it was not trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lambent
from lambent.errors import ConfigError

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)


def fit(data, **settings):
    return lambent.fit("sigma-vae", data, latent=1, epochs=1, hidden=[4], quiet=True, **settings)


def test_a_run_on_arrays_is_measured_on_what_was_held_out(tmp_path):
    for out in (None, tmp_path / "run"):
        assert fit(X, out=out).evaluate(samples=2).n == 6
    with pytest.raises(ConfigError, match="trained on arrays"):
        lambent.load(tmp_path / "run").evaluate(samples=2)


def test_with_validation_data_of_its_own_nothing_of_the_training_source_is_held_out(tmp_path):
    np.save(tmp_path / "train.npy", X)
    run = fit(str(tmp_path / "train.npy"), valid=X[:7] + 1, out=tmp_path / "run")
    assert run.history[-1]["valid"]["n"] == 7
    with pytest.raises(ConfigError, match="nothing was held out"):
        lambent.load(tmp_path / "run").evaluate(samples=2)


def test_the_held_out_part_is_found_again_and_disjoint(tmp_path):
    np.save(tmp_path / "train.npy", X)
    run = fit(str(tmp_path / "train.npy"), out=tmp_path / "run")
    held = lambent.load(tmp_path / "run").prepare().dataset
    trained = 54
    assert len(held) == len(X) - trained == run.evaluate(samples=1).n


def test_networks_by_name_and_conditional_recipes_take_bare_settings():
    assert type(fit(X, encoder="linear").config.encoder).__name__ == "LinearEncoder"
    run = lambent.fit("cvae", "digits", hidden=[8], latent=2, epochs=1, quiet=True)
    line = run.interpolate(torch.zeros(1, 2), torch.ones(1, 2), steps=3, label="7")
    assert line.shape == (1, 3, 1, 8, 8)
    assert not torch.equal(line, run.interpolate(torch.zeros(1, 2), torch.ones(1, 2), steps=3, label="1"))


def test_a_run_from_before_an_option_came_is_opened_and_resumed(tmp_path):
    settings = {"channels": 4, "layers": 2, "out": tmp_path / "run", "quiet": True, "threads": 1}
    lambent.fit("pixelcnn", "digits", train__steps=2, **settings)
    recipe = tmp_path / "run" / "recipe.toml"
    text = recipe.read_text()
    assert "\nposition_channels = 0\n" in text
    recipe.write_text(text.replace("\nposition_channels = 0\n", "\n"))
    assert lambent.load(tmp_path / "run").step == 2
    assert lambent.fit("pixelcnn", "digits", train__steps=2, resume=True, **settings).step == 2
    recipe.write_text(recipe.read_text().replace("\nchannels = 4\n", "\nchannels = 5\n"))
    with pytest.raises(ConfigError, match=r"decoder\.channels: 5 -> 4"):
        lambent.fit("pixelcnn", "digits", train__steps=2, resume=True, **settings)
