"""Weighted squared errors of a diffusion against integrals over its noise levels, and the faults these must show."""

import math

import pytest
import torch
from torch import nn

from lambent.draws import Pathwise
from lambent.errors import CombinationError
from lambent.likelihoods import NoisyLikelihoodModule, NormalLikelihood
from lambent.models.diffusion.model import Diffusion, DrawnTimesteps, Timesteps
from lambent.networks.diffusion.schedules import schedule
from lambent.objectives import ELBO, SNRWeighted
from lambent.recipes import configure
from lambent.shapes import Shapes

LOW, HIGH, NUMBERS, LIMIT = -6.0, 3.0, 2, 5.0
BEND = -math.log(LIMIT)
"""Gamma from which min-snr counts in full."""
REFUSED = 5


class Known(nn.Module):
    """eps_hat = scale exp(gamma/4) in every number, so that E|eps - eps_hat|^2 = D (1 + scale^2 exp(gamma/2))."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, gamma, condition):
        return (self.scale * torch.exp(gamma / 4)).unsqueeze(-1).expand_as(z)


def diffusion(steps, importance):
    torch.manual_seed(0)
    likelihood = NoisyLikelihoodModule(NormalLikelihood(scale="model"), Shapes((NUMBERS,), 0), LOW / 2)
    model = Diffusion(Known(), schedule("linear", LOW, HIGH), likelihood, Timesteps(steps, "eps", 10, importance))
    model.losses.squares.copy_(torch.linspace(0.01, 9.0, len(model.losses.squares)))
    model.losses.seen.fill_(100)
    return model.double().train()


def integral(power, low, high):
    """Of exp(power gamma) between two gammas."""
    return high - low if power == 0 else (math.exp(power * high) - math.exp(power * low)) / power


def expected(weight, steps):
    """D/2 E_t[w (1 + exp(gamma/2))] for scale = 1, and its derivative by the scale, D E_t[w exp(gamma/2)]."""
    if steps is not None:
        gammas = [LOW + (HIGH - LOW) * (i + 1) / steps for i in range(steps)]
        w = [min(1.0, LIMIT * math.exp(g)) if weight == "min-snr" else 1.0 for g in gammas]
        plain, grown = (sum(x * math.exp(p * g) for x, g in zip(w, gammas, strict=True)) / steps for p in (0, 0.5))
    elif weight == "simple":
        plain, grown = (integral(p, LOW, HIGH) / (HIGH - LOW) for p in (0, 0.5))
    else:
        plain, grown = ((LIMIT * integral(1 + p, LOW, BEND) + integral(p, BEND, HIGH)) / (HIGH - LOW) for p in (0, 0.5))
    return 0.5 * NUMBERS * (plain + grown), NUMBERS * grown


def z_scores(weight, steps, importance):
    """Of the charge and of its gradient, over batches that are spread over the levels each by itself."""
    model, rate = diffusion(steps, importance), SNRWeighted(weight, LIMIT)
    generator = torch.Generator().manual_seed(1)
    charges, slopes = [], []
    for _ in range(400):
        trace = model(torch.zeros(64, NUMBERS, dtype=torch.float64), Pathwise(generator=generator))
        end = next(latent.rate for latent in trace.latents if latent.name == "end")
        charge = (rate(trace) - end).mean()
        slopes.append(torch.autograd.grad(charge, model.denoiser.scale)[0])
        charges.append(charge.detach())
    found = [torch.stack(values) for values in (charges, slopes)]
    return [
        ((v.mean() - truth) / (v.std() / math.sqrt(len(v)))).item()
        for v, truth in zip(found, expected(weight, steps), strict=True)
    ]


SYSTEMS = [(w, s, i) for w in ("simple", "min-snr") for s in (None, 4) for i in ("never", "always")]


@pytest.mark.parametrize(("weight", "steps", "importance"), SYSTEMS)
def test_charge_and_gradient_are_those_of_the_integral(weight, steps, importance):
    assert max(map(abs, z_scores(weight, steps, importance))) < REFUSED


def bounds_own(self, latent):
    return latent.rate


def without_share(self, latent):
    if not isinstance(latent, DrawnTimesteps):
        return latent.rate
    return 0.5 * self.weights(latent.gamma) * latent.errors


def whole(self, latent):
    if not isinstance(latent, DrawnTimesteps):
        return latent.rate
    return latent.weight * self.weights(latent.gamma) * latent.errors


def detached(self, latent):
    if not isinstance(latent, DrawnTimesteps):
        return latent.rate
    scale = latent.errors / latent.errors.detach()
    return 0.5 * latent.weight * self.weights(latent.gamma) * latent.errors.detach() + 0.0 * scale


FAULTS = {
    "the bound's own weights": ("_charge", bounds_own),
    "levels drawn by cost, as if evenly": ("_charge", without_share),
    "no half": ("_charge", whole),
    "no gradient": ("_charge", detached),
    "signal to noise upside down": ("weights", lambda self, gamma: (self.limit * (-gamma).exp()).clamp_max(1.0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault, monkeypatch):
    monkeypatch.setattr(SNRWeighted, *FAULTS[fault])
    assert max(map(abs, z_scores("min-snr", None, "always"))) > REFUSED


def test_what_is_reported_is_the_bound_all_the_same():
    model = diffusion(4, "never")
    x = torch.zeros(8, NUMBERS, dtype=torch.float64)
    trace = model(x, Pathwise(generator=torch.Generator().manual_seed(0)))
    plain, weighted = ELBO()(trace, x), ELBO(SNRWeighted())(trace, x)
    assert torch.equal(plain.value, weighted.value)
    assert -weighted.losses["all"] > plain.value.mean() + 1, "which is why it is called no bound"
    assert not SNRWeighted().is_bound


def test_ddpm_is_trained_by_it_and_a_learned_schedule_is_not():
    assert configure("ddpm").charged == SNRWeighted("simple")
    with pytest.raises(CombinationError, match="rate=snr-weighted with posterior=noising: a schedule learns"):
        configure("vdm", tokens=("rate=snr-weighted",))
