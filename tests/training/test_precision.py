"""Steps in bfloat16: as good a model, the same measuring, weights and densities in float32."""

import pytest
import torch

from lambent import fit
from lambent.distributions import absorbing_diffusion as masked
from lambent.errors import CombinationError
from lambent.networks.quantisers.codebook import squared_distance
from lambent.recipes import configure

SMALL = {
    "latent": 4,
    "hidden": [32],
    "epochs": 2,
    "log_every": 2,
    "batch_size": 100,
    "threads": 1,
    "monitor_examples": 0,
}


def low():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def runs():
    return {kind: fit("vae", "digits", precision=kind, quiet=True, **SMALL) for kind in ("float32", "bfloat16")}


def test_a_step_in_bfloat16_is_another_one_and_nearly_as_good(runs):
    """8 bits of mantissa: relative errors of 2^-9 a product, averaged out over hundreds of pixels and examples."""
    exact, rough = ([r["train"]["bound"] for r in run.history if "train" in r] for run in runs.values())
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.01)
    rows = [[r["valid"] for r in run.history if "valid" in r][-1] for run in runs.values()]
    assert abs(rows[0]["bound"] - rows[1]["bound"]) < rows[0]["se"]


def test_the_bound_of_a_line_of_metrics_is_rate_and_distortion_in_more_than_16_bits(runs):
    """Every step is logged: a bound in bfloat16 would be off by up to 2^-9 of itself, 0.3 nats."""
    every = fit("vae", "digits", precision="bfloat16", quiet=True, **{**SMALL, "epochs": 1, "log_every": 1})
    for row in (r["train"] for r in every.history if "train" in r):
        assert row["bound"] == pytest.approx(-row["rate"] - row["distortion"], rel=1e-5)


def test_weights_stay_float32(runs):
    assert {t.dtype for t in runs["bfloat16"].model.state_dict().values()} == {torch.float32}


def test_measuring_does_not_know_how_the_weights_came_about(runs):
    """The validation of the last step, made in the training, is that of the weights in a model of float32."""
    rough, other = runs["bfloat16"], runs["float32"]
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    other.model.load_state_dict(rough.model.state_dict())
    try:
        assert other.evaluate("digits", samples=3).to_dict() == rough.evaluate("digits", samples=3).to_dict()
    finally:
        other.model.load_state_dict(before)


def test_densities_of_masked_codes_are_float32():
    logits, x = torch.randn(4, 9, 30), torch.randint(30, (4, 9))
    halved = logits.bfloat16()
    with low():
        found = masked._taken(halved, x)
    exact = halved.double().log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-5)


def test_distances_from_codes_are_float32():
    first, second = torch.randn(5, 300), torch.randn(5, 300)
    with low():
        found = squared_distance(first, second)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), (first - second).double().square().sum(1), rtol=1e-5)


def test_codes_found_in_a_step_are_the_nearest_of_its_outputs():
    config = configure("vq-vae-ema", tokens=("encoder.smallest=4", "encoder.channels=[4]", "decoder.channels=[4]"))
    quantiser = config.posterior.quantiser()
    z = torch.randn(50, quantiser.dim).bfloat16()
    quantiser.codes.normal_()
    with low():
        value, indices = quantiser.quantise(z)
    away = (z.double().unsqueeze(1) - quantiser.codes.double()).square().sum(-1)
    assert torch.equal(indices, away.argmin(1))
    assert value.dtype == torch.float32
    assert torch.equal(value, quantiser.codes[indices])


def test_equations_that_are_solved_take_no_bfloat16():
    with pytest.raises(CombinationError, match=r"schedule=em with train\.precision=bfloat16.*use train\.precision"):
        configure("ppca", tokens=("schedule=em", "precision=bfloat16"))


def test_densities_in_16_bits_are_caught(monkeypatch):
    monkeypatch.setattr(masked, "full_precision", lambda tensor: tensor)
    with pytest.raises(AssertionError):
        test_densities_of_masked_codes_are_float32()
