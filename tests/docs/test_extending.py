"""The worked examples of docs/extending.md are the files in examples/extending, and they do what the page says."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lambent
from lambent import ELBO, IWAE, Pathwise, Trace
from lambent.distributions import Normal, StandardNormal
from lambent.objectives.iwae import effective_samples
from lambent.settings import registry
from lambent.shapes import Shapes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/extending"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def example():
    """Imports an example by name; what it registered is gone after the module's tests."""
    before = {kind: dict(parts) for kind, parts in registry.parts.items()}
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(FOLDER))
        for path in FILES:
            sys.modules.pop(path.stem, None)
        for kind, parts in registry.parts.items():
            for name in parts.keys() - before.get(kind, {}).keys():
                del parts[name]


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_shows_the_file(path):
    assert path.read_text() in blocks(), f"{path.name} and its block in docs/extending.md differ; copy one to the other"


def test_the_page_trains_with_each(example):
    uses = [block for block in blocks() if not block.startswith('"""')]
    assert len(uses) == len(FILES)
    for block in uses:
        assert "epochs=5" in block
        exec(compile(block.replace("epochs=5", "epochs=1"), "docs/extending.md", "exec"), {})


def test_the_student_t_prior_is_one(example):
    example("student_t_prior")
    run = lambent.fit("vae", prior="student-t", df=3.0, latent=2, epochs=2, quiet=True)
    z = torch.tensor([[0.5, -2.0]])
    # density of Student's t at 3 degrees of freedom: 2 / (pi sqrt(3) (1 + z^2 / 3)^2)
    by_hand = sum(math.log(2 / (math.pi * math.sqrt(3) * (1 + v * v / 3) ** 2)) for v in (0.5, -2.0))
    assert run.model.prior().log_prob(z).item() == pytest.approx(by_hand, abs=1e-5)
    result = run.evaluate(samples=50)
    assert result.elbo.value < result.iwae.value


def renyi_in_closed_form(alpha: float) -> float:
    """Of z ~ N(0, 1), x = 1 given z ~ N(z, 1), q = p(z): E[p(x|z)^s]^(1/s) for s = 1 - alpha is a Gaussian integral."""
    s = 1 - alpha
    return (-s / 2 * math.log(2 * math.pi) - math.log(1 + s) / 2 - s / (2 * (1 + s))) / s


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_renyi_bound_is_the_closed_form(example, alpha):
    objective = example("renyi_objective").Renyi(alpha=alpha)
    zero, x = torch.zeros(1, 1), torch.ones(1, 1)
    draw = Pathwise(samples=400_000, generator=torch.Generator().manual_seed(0))
    z = draw("z", StandardNormal((1,)), Normal(zero, zero))
    estimate = objective(Trace(Normal(z.value, zero), (z,)), x)
    assert estimate.value.item() == pytest.approx(renyi_in_closed_form(alpha), abs=4e-3)
    assert estimate.kind == "lower bound"


def test_the_renyi_bound_lies_between_elbo_and_iwae(example):
    renyi = example("renyi_objective").Renyi
    run = lambent.fit("vae", objective="renyi", alpha=0.3, draw__samples=5, latent=2, epochs=2, quiet=True)
    x = torch.bernoulli(torch.full((20, 1, 8, 8), 0.3))
    trace = run.model(x, Pathwise(samples=20))
    low, high = renyi(alpha=0.9)(trace, x).value, renyi(alpha=0.1)(trace, x).value
    assert (low <= high).all()
    assert (high <= IWAE()(trace, x).value).all()


def test_the_laplace_likelihood_integrates_to_one_and_finds_the_entropy(example):
    family = example("laplace_likelihood").LaplaceLikelihood()
    shapes = Shapes((1,), latent=1)
    grid = torch.linspace(-40, 40, 160_001).view(1, -1, 1)
    p = family.distribution(torch.full((1, 1, 1, 1), 0.7), torch.tensor(0.4), shapes)
    assert torch.trapezoid(p.log_prob(grid).exp(), grid.squeeze(-1)).item() == pytest.approx(1.0, abs=1e-4)
    data = np.random.default_rng(0).laplace(2.0, 0.5, (2000, 3)).astype(np.float32)
    settings = {"likelihood": "laplace", "binarize": "none", "data__scale": "none", "hidden": [8], "lr": 1e-2}
    run = lambent.fit("made", data, epochs=30, quiet=True, **settings)
    log_likelihood = run.evaluate(data).log_likelihood
    assert log_likelihood.value == pytest.approx(-3 * (1 + math.log(2 * 0.5)), abs=0.1)  # minus the entropy


def test_the_auxiliary_structure_agrees_with_quadrature(example):
    example("auxiliary_structure")
    run = lambent.fit("vae", model="auxiliary", latent=1, auxiliary=1, epochs=2, quiet=True)
    model = run.model.eval()
    noise = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((1, 1, 8, 8), 0.3), generator=noise)
    line = torch.linspace(-8, 8, 401)
    z, a = (t.reshape(-1, 1, 1) for t in torch.meshgrid(line, line, indexing="ij"))
    with torch.no_grad():
        model.q_z.weight[0, -1] = 0.7  # so that z depends on a, and a on z
        model.p_a[2].weight[0].mul_(4)
        log_p = model.prior().log_prob(z) + model.p_a(z).log_prob(a)
        log_p = log_p + model.likelihood(torch.cat([z, a], -1)).log_prob(x)
        exact = torch.logsumexp(log_p, 0) + 2 * math.log(16 / 400)
        trace = model(x, Pathwise(samples=50_000, generator=noise))
        error = effective_samples(trace.log_weight(x)).rsqrt().item()
        assert error < 0.03
        assert IWAE()(trace, x).value.item() == pytest.approx(exact.item(), abs=5 * error)
        elbo = ELBO()(trace, x).value.item()
        assert elbo == pytest.approx(trace.log_weight(x).mean().item(), abs=0.05)  # closed-form KLs where they hold
        assert elbo < exact.item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"posterior": "full-cov"}, "both are diagonal Normals"),
        ({"prior": "categorical"}, "its latents are continuous"),
        ({"penalty": "mmd"}, "one latent"),
        ({"draw": "dreg", "objective": "iwae"}, "draw=dreg with model=auxiliary"),
    ],
)
def test_what_the_auxiliary_structure_lacks_is_refused(example, settings, message):
    example("auxiliary_structure")
    with pytest.raises(lambent.LambentError, match=message):
        lambent.fit("vae", model="auxiliary", epochs=1, quiet=True, **settings)
