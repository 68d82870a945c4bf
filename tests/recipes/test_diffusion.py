"""Recipes of diffusions: the small ones learn on digits, the published sizes build."""

import re

import pytest
import torch

from lambent import fit
from lambent.recipes import RECIPES, configure

PUBLISHED = {"ddpm": 35.7e6, "cosine-diffusion": None, "vdm": None}
"""Weights of the denoiser that the paper states."""
FEW = {"channels": [8], "blocks": 1, "smallest": 4, "threads": 1, "lr": 5e-3, "ema": "none", "precision": "float32"}


@pytest.mark.parametrize("name", ["ddpm-small", "cosine-diffusion-small", "vdm-small"])
def test_small_recipes_learn_on_digits(name):
    """More than a network that always gives 0: its bound is that of a chain which knows nothing of the data."""
    run = fit(name, "digits", train__steps=60, warmup_steps=5, quiet=True, **FEW)
    x = run.prepare().batch(torch.arange(360))
    torch.manual_seed(0)
    untrained = run.config.model.build(run.config, run.model.likelihood.shapes)
    costs = []
    for model in (untrained, run.model):
        model.eval()
        with torch.no_grad():
            positions = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
            found = model.loss_at(x, positions, generator=torch.Generator().manual_seed(1))
        costs.append(found.mean(0))
    saved = (costs[0] - costs[1]).double()
    assert saved.mean() > 5 * saved.std() / 360**0.5
    assert saved.mean() > 0.3 * costs[0].mean()
    samples = run.sample(4, steps=5)
    assert samples.shape == (4, 1, 8, 8)
    assert ((samples >= 0) & (samples <= 31) & (samples == samples.round())).all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_build_with_the_weights_that_their_title_states(name):
    config = configure(name)
    with torch.device("meta"):
        net = config.decoder.build_denoiser((3, 32, 32))
    found = sum(p.numel() for p in net.parameters())
    stated = float(re.search(r"([\d.]+) million weights", RECIPES[name].title).group(1))
    assert stated == pytest.approx(found / 1e6, abs=0.05)
    if PUBLISHED[name] is not None:
        assert 0.8 < found / PUBLISHED[name] < 1.25


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_and_published_ones_differ_in_size_and_training_only(name):
    large, small = configure(name), configure(f"{name}-small")
    assert (large.model, large.posterior, large.likelihood) == (small.model, small.posterior, small.likelihood)


def test_noise_of_ddpm_is_that_of_its_thousand_levels():
    """Of beta rising linearly from 1e-4 to 0.02: log (1 - abar)/abar at both ends."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    left = (1 - beta).cumprod(0)
    gamma = torch.log((1 - left) / left)
    found = configure("ddpm").posterior
    assert (found.gamma_min, found.gamma_max) == pytest.approx((gamma[0].item(), gamma[-1].item()), abs=1e-3)


def test_noise_of_the_cosine_schedule_starts_at_its_first_level():
    """Of cos^2((t/T + s)/(1 + s) pi/2) relative to t = 0, at t = 1 of 4,000."""
    angles = (torch.tensor([0.0, 1 / 4000], dtype=torch.float64) + 0.008) / 1.008 * torch.pi / 2
    left = (angles[1].cos() / angles[0].cos()) ** 2
    assert configure("cosine-diffusion").posterior.gamma_min == pytest.approx(torch.log(1 / left - 1).item(), abs=1e-2)
