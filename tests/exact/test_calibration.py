"""C13: simulation-based calibration (Talts et al. 2018) of linear-Gaussian posteriors, drawn as lambent draws them.

z ~ p(z), x ~ p(x|z), z_1 .. z_L ~ q(z|x): where q is the posterior, the rank of z among them, by any function of z and
x, is uniform on 0 .. L. Functions are each dimension of every level, and log p(x|z).
"""

import pytest
import torch
from scipy import stats

from exact import chain_checks as checks
from lambent.distributions import CholeskyNormal, StandardNormal
from lambent.distributions.sampling import sample
from lambent.draws import Ancestral, Given, Pathwise
from lambent.likelihoods import LikelihoodModule
from support.random_numbers import generator

DRAWS, EXAMPLES = 19, 6000
LEAST = 1e-7
"""p-value below which ranks aren't called uniform: that of 5.2 standard errors."""
CASES = [("chain", 1), ("chain", 3), ("ladder", 3)]


@torch.no_grad()
def ranks(kind, levels, seed=0):
    """Name of the function to the ranks (EXAMPLES,)."""
    _, _, model, _ = checks.case(kind, levels, q="exact")
    noise = generator(seed)
    drawn = model(None, Ancestral(1, noise, batch=EXAMPLES))
    x = sample(drawn.px, (), noise)[0]
    found = model(x, Pathwise(DRAWS, noise))
    same = model(x, Given(values={z.name: z.value for z in drawn.latents}))
    pairs = {"log p(x|z)": (found.log_px(x), same.log_px(x))}
    for z, true in zip(found.latents, drawn.latents, strict=True):
        for d in range(z.value.shape[-1]):
            pairs[f"{z.name}[{d}]"] = (z.value[..., d], true.value[..., d])
    return {name: (several < one).sum(0) for name, (several, one) in pairs.items()}


def p_value(rank):
    """Of chi^2 over all DRAWS + 1 ranks."""
    return stats.chisquare(torch.bincount(rank, minlength=DRAWS + 1).numpy()).pvalue


def calibrated(kind, levels):
    worst = {name: p_value(rank) for name, rank in ranks(kind, levels).items()}
    uneven = [name for name, p in worst.items() if p < LEAST]
    assert not uneven, f"ranks of {', '.join(uneven)} are not uniform"


@pytest.mark.parametrize(("kind", "levels"), CASES)
def test_ranks_of_latents_and_of_the_likelihood_are_uniform(kind, levels):
    calibrated(kind, levels)


def wide(patch):
    """The posterior's scale times 1.2."""
    real = CholeskyNormal._sample
    patch.setattr(CholeskyNormal, "_sample", lambda self, *a: self.loc + 1.2 * (real(self, *a) - self.loc))


def shifted(patch):
    """Its mean a quarter of the scale away."""
    real = CholeskyNormal._sample
    patch.setattr(CholeskyNormal, "_sample", lambda self, *a: real(self, *a) + 0.25 * self.variance.sqrt())


def narrow_prior(patch):
    """Draws of the prior times 0.8."""
    real = StandardNormal._sample
    patch.setattr(StandardNormal, "_sample", lambda self, *a: 0.8 * real(self, *a))


def another_likelihood(patch):
    """p(x|z) at 0.9 z, of which q is not the posterior."""
    real = LikelihoodModule.encode_latent
    patch.setattr(LikelihoodModule, "encode_latent", lambda self, z: 0.9 * real(self, z))


@pytest.mark.parametrize(("kind", "levels"), CASES)
@pytest.mark.parametrize("plant", [wide, shifted, narrow_prior, another_likelihood])
def test_planted_faults_are_caught(plant, kind, levels, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        calibrated(kind, levels)
    print(f"caught: {kind} of {levels}, {plant.__doc__}", str(caught.value).splitlines()[0])
