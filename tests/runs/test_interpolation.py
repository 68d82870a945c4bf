"""Lines between latents: where there are any, and that Python and the command line have the same ones."""

import numpy as np
import pytest
import torch

import lambent
from lambent.errors import ConfigError, ShapeError
from lambent.runs.export import write_interpolations

SMALL = {"epochs": 0, "threads": 1, "quiet": True}
NET = {"encoder": "mlp", "decoder": "mlp", "hidden": [8]}


@pytest.mark.parametrize(
    ("recipe", "settings", "why"),
    [
        ("vq-vae-ema", {"codebook_size": 8, "latent": 3, **NET}, "between discrete latents there is nothing to decode"),
        ("gumbel-vae", {"hidden": [8]}, "between discrete latents there is nothing to decode"),
        ("gmm", {"latent": 3}, "between discrete latents there is nothing to decode"),
        ("made", {}, "this model has no latents to go between"),
    ],
)
def test_what_has_nothing_between_is_refused_alike_in_python_and_in_files(recipe, settings, why, tmp_path):
    run = lambent.fit(recipe, "digits", **SMALL, **settings)
    z = torch.zeros(2, 3) if recipe == "made" else run.encode("digits")[:2]
    with pytest.raises(ConfigError, match=why) as found:
        run.interpolate(z[:1], z[1:])
    with pytest.raises(ConfigError) as written:
        write_interpolations(run, "digits", tmp_path / "x.npz")
    assert str(written.value) == str(found.value)


def test_lines_on_a_sphere_stay_on_it_and_are_those_of_files(tmp_path):
    run = lambent.fit("hyperspherical-vae", "digits", latent=3, hidden=[8], **SMALL)
    write_interpolations(run, "digits", tmp_path / "x.npz", pairs=2, steps=4)
    z = run.encode("digits")[:4]
    x = run.interpolate(z[0::2], z[1::2], steps=4)
    assert torch.allclose(run.between(z[0::2], z[1::2], 4).norm(dim=-1), torch.ones(2, 4), atol=1e-6)
    with np.load(tmp_path / "x.npz") as file:
        assert np.allclose(file["x"], x.numpy(), atol=1e-6)


def test_lines_of_less_than_two_points_and_latents_without_a_partner_are_refused():
    run = lambent.fit("vae", "digits", latent=2, hidden=[8], **SMALL)
    z = torch.zeros(2, 2)
    with pytest.raises(ConfigError, match="steps=1: expected at least 2"):
        run.interpolate(z, z, steps=1)
    with pytest.raises(ShapeError, match=r"shapes \(2, 2\) and \(1, 2\): expected"):
        run.interpolate(z, z[:1])
    with pytest.raises(ShapeError, match="expected 2 numbers an item"):
        run.interpolate(torch.zeros(2, 3), torch.zeros(2, 3))
