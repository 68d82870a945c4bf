"""Rates level by level against closed forms; the levels held are held, the others are not."""

import dataclasses
import json
import math

import pytest
import torch

import lambent
import lambent.evaluation.bounds as module
import lambent.runs.hierarchy as levels
from lambent.distributions import Normal, StandardNormal
from lambent.errors import ConfigError, ShapeError
from lambent.evaluation.bounds import bounds
from lambent.evaluation.summary import DataFacts, LatentFacts, summarise
from lambent.models import VAE, LatentModel, MarkovChain
from lambent.trace import Latent, Trace
from lambent.training import step_metrics as terms
from lambent.training.collapse_monitor import idle_levels, judged_levels
from support.linear_levels import Line, Prior

UP = ((0.8, 0.5), (-0.6, 0.7), (1.1, 0.4), (0.3, 1.2))
"""Slope and standard deviation of q(z1|x), q(z2|z1), ..."""
DOWN = ((0.7, 0.9), (1.2, 0.6), (-0.5, 0.8))
"""Of p(z1|z2), p(z2|z3), ...; p(x|z1) is N(2 z1, 0.3^2)."""
NAMES = ("z1", "z2", "z3", "z4")


class Seen(Line):
    def as_input(self, x):
        return x


def chain(up=UP, down=DOWN):
    return MarkovChain(Prior(), [Line(*part) for part in up], [Line(*part) for part in down], Seen(2.0, 0.3))


def closed_rates(x, up=UP, down=DOWN):
    """Of each level for one x: q is Normal all the way up, so that only its mean and variance are needed."""
    mean, variance, rates = x, 0.0, []
    for i, (slope, scale) in enumerate(up):
        mean, variance = slope * mean, slope**2 * variance + scale**2
        if i + 1 == len(up):
            rates.append(0.5 * (mean**2 + variance - 1 - math.log(scale**2)))
            continue
        (b, s), (c, v) = down[i], up[i + 1]
        distance = (1 - b * c) ** 2 * (mean**2 + variance) + b**2 * v**2
        rates.append(0.5 * (distance / s**2 - 1 - math.log(scale**2 / s**2)))
    return rates


def evaluated(model, x, **settings):
    return bounds(model, lambda a, b: (x[a:b], None), len(x), **{"samples": 50, **settings})


def check_closed():
    """Mean rates of 400 examples that are alike, against the closed form: every level within 5 standard errors."""
    x = torch.full((400, 1), 1.5, dtype=torch.float64)
    found = evaluated(chain(), x)
    assert found.names == NAMES
    for rate, exact in zip(found.rates, closed_rates(1.5), strict=True):
        assert abs(rate.mean() - exact) < 5 * rate.std() / len(x) ** 0.5 + 1e-12


def test_rates_of_a_linear_chain_are_its_closed_form():
    check_closed()


def upside_down(trace, real=module.level_rates):
    return real(trace).flip(0)


def of_one_draw(trace):
    return torch.stack([z.rate[0] + 0.1 for z in trace.latents])


@pytest.mark.parametrize("fault", [upside_down, of_one_draw])
def test_rates_of_other_levels_are_caught(fault, monkeypatch):
    monkeypatch.setattr(module, "level_rates", fault)
    with pytest.raises(AssertionError):
        check_closed()


def test_a_rate_that_forgets_the_level_above_is_caught(monkeypatch):
    """Scored under N(0, s^2) in place of p(z_l|z_l+1)."""
    given = Line.given
    monkeypatch.setattr(Line, "given", lambda self, v, c=None: given(self, v * (self.slope not in (0.7, 1.2)), c))
    with pytest.raises(AssertionError):
        check_closed()


@pytest.mark.parametrize("samples", [1, 7, 300])
def test_the_levels_sum_to_the_rate_and_the_elbo_is_what_is_left(samples):
    x = torch.linspace(-2, 2, 37, dtype=torch.float64).unsqueeze(1)
    found = evaluated(chain(), x, samples=samples)
    scale = found.rates.abs().sum(0)
    assert bool(((found.rates.sum(0) - found.rate).abs() <= 4e-16 * scale).all())
    assert torch.equal(found.elbo, -(found.rate + found.distortion))


def test_every_sample_counts_once_however_they_are_cut(monkeypatch):
    """Chunks of 5, 5 and 2 samples: a mean of chunk means would weigh the last two too much."""
    seen = []

    class Kept(MarkovChain):
        def forward(self, x, draw, condition=None):
            trace = super().forward(x, draw, condition)
            seen.append(torch.stack([z.rate for z in trace.latents]))
            return trace

    base = chain()
    kept = Kept(base.prior, list(base.posteriors), list(base.conditionals), base.likelihood)
    monkeypatch.setattr(module, "ROWS", 20)
    found = evaluated(kept, torch.ones(4, 1, dtype=torch.float64), samples=12)
    assert [part.shape[1] for part in seen] == [5, 5, 2]
    assert torch.allclose(found.rates, torch.cat(seen, 1).mean(1), rtol=1e-13)


def test_processes_share_the_rates():
    x = torch.linspace(-2, 2, 100, dtype=torch.float64).unsqueeze(1)
    parts = [evaluated(chain(), x, share=(rank, 3)) for rank in range(3)]
    others = iter([[getattr(part, name) for part in parts[1:]] for name in ROWS])
    whole = parts[0].summed(lambda row: row + sum(next(others)))
    assert torch.equal(whole.rates, evaluated(chain(), x).rates)
    assert whole.names == NAMES


ROWS = ("elbo", "rate", "rates", "distortion", "iwae", "effective")


class RateOnly(LatentModel):
    """Two levels without values, as a diffusion has them."""

    def __init__(self):
        super().__init__()
        self.likelihood = Seen(1.0, 1.0)

    def forward(self, x, draw, condition=None):
        z = draw("start", StandardNormal((1,), dtype=torch.float64), Normal(x, torch.zeros(1, dtype=torch.float64)))
        kls = (z.value[..., 0].square(), x[:, 0].abs().expand(draw.samples, -1))
        known = [Latent(name, None, known={"kl": kl}) for name, kl in zip(("levels", "end"), kls, strict=True)]
        return Trace(self.likelihood(z.value), tuple(known))

    def groups(self):
        return {}


def test_levels_without_values_have_rates_too():
    x = torch.full((200, 1), 2.0, dtype=torch.float64)
    found = evaluated(RateOnly(), x)
    assert found.names == ("levels", "end")
    assert found.iwae is None
    assert torch.equal(found.rates[1], x[:, 0].abs())
    assert abs(found.rates[0].mean() - 5) < 5 * found.rates[0].std() / 200**0.5
    summary = summarise(found, DataFacts("d", 1, discrete=False), LatentFacts(torch.zeros(200, 0)))
    assert list(summary.to_dict()["rates"]) == ["levels", "end"]


def test_the_parts_of_a_bound_without_weights_add_up_in_bits():
    x = torch.full((200, 1), 2.0, dtype=torch.float64)
    bits, nats, latents = DataFacts("d", 3, discrete=True), DataFacts("d", 3, discrete=False), LatentFacts(x[:, :0])
    summary = summarise(evaluated(RateOnly(), x), bits, latents)
    parts = summary.to_dict()["bits_per_dim_parts"]
    assert list(parts) == ["levels", "end", "distortion"]
    assert sum(parts.values()) == pytest.approx(summary.bits_per_dim, rel=1e-12)
    assert parts["end"] == pytest.approx(2.0 / (3 * math.log(2)), rel=1e-12)
    assert f"from elbo: levels {parts['levels']:.5f} + end {parts['end']:.5f}" in str(summary)
    assert summarise(evaluated(RateOnly(), x), nats, latents).parts_in_bits is None
    assert summarise(evaluated(chain(), x), bits, latents).parts_in_bits is None  # the IWAE bound is better


def test_one_level_needs_no_split():
    found = evaluated(VAE(Prior(), Line(0.5, 0.5), Seen(1.0, 1.0)), torch.ones(5, 1, dtype=torch.float64))
    assert torch.equal(found.rates[0], found.rate)
    summary = summarise(found, DataFacts("d", 1, discrete=False), LatentFacts(torch.zeros(5, 1), {"z": 1}))
    assert summary.rates is None
    assert "rates" not in summary.to_dict()


def test_an_evaluation_tells_rate_and_active_units_of_each_level():
    x = torch.linspace(-2, 2, 60, dtype=torch.float64).unsqueeze(1)
    found = evaluated(chain(), x)
    means = torch.cat([x, x * 0, x, x], 1)
    summary = summarise(found, DataFacts("d", 1, discrete=False), LatentFacts(means, dict.fromkeys(NAMES, 1)))
    table = json.loads(json.dumps(summary.to_dict()))["rates"]
    assert sum(level["value"] for level in table.values()) == pytest.approx(summary.rate.value, rel=1e-12)
    assert [level["active_units"] for level in table.values()] == [1, 0, 1, 1]
    assert {level["kind"] for level in table.values()} == {"not a bound"}  # of log p(x), as the ELBO beside it is
    assert summary.rate.kind == summary.distortion.kind == "not a bound"
    assert f"rate z2 {summary.rates['z2'].value:.4f}" in " ".join(str(summary).split())
    assert str(summary).count("units active)") == 4


def test_a_lower_level_of_a_chain_may_cost_nothing_and_is_not_called_idle_for_it():
    """x, z1 and z2 of variance 1, 1.25 and 1: the rate of z1 is 0, and I(x;z1|z2) = I(x;z1) - I(x;z2) 0.29 nats."""
    model = chain(((1.0, 0.5), (0.8, math.sqrt(0.2))), ((1.0, 0.5),))
    x = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, top = evaluated(model, x).rates
    assert abs(float(low.mean())) < 5 * float(low.std()) / 20_000**0.5 < 0.1
    assert 0.5 * math.log(1 + 1 / 0.25) + 0.5 * math.log(1 - 0.8**2) > 0.29
    found = {"z1": float(low.mean()), "z2": float(top.mean())}
    assert idle_levels(found, 0.1) == ["z1"]
    assert idle_levels(found, 0.1, judged_levels(model)) == []
    assert idle_levels({"z1": -1.0, "z2": 0.01}, 0.1, judged_levels(model)) == ["z2"]
    assert judged_levels(VAE(Prior(), Line(0.5, 0.5), Seen(1.0, 1.0))) is None


def test_training_logs_the_same_rates():
    """Sums over a batch, from the trace itself."""
    from lambent.draws import Pathwise

    x = torch.linspace(-2, 2, 6, dtype=torch.float64).unsqueeze(1)
    trace = chain()(x, Pathwise(3, torch.Generator().manual_seed(0)))
    found = terms.means(terms.sums(trace, x).tolist(), terms.levels(trace))
    for z in trace.latents:
        assert found["rates"][z.name] == pytest.approx(float(z.rate.mean()), rel=1e-12)
    assert found["rate"] == pytest.approx(sum(found["rates"].values()), rel=1e-12)
    alone = dataclasses.replace(trace, latents=trace.latents[:1])
    assert "rates" not in terms.means(terms.sums(alone, x).tolist(), terms.levels(alone))


def modes(x):
    found = []
    for slope, _ in UP:
        found.append(slope * (found[-1] if found else x))
    return found


def by_hand(x, top):
    """Up to the top level, down from the lowest one held along p's means, out by p(x|z1)."""
    z = modes(x)[len(UP) - top]
    for slope, _ in reversed(DOWN[: len(UP) - top]):
        z = slope * z
    return 2.0 * z


def check_tops():
    x = torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    for top in (1, 2, 3, 4):
        assert torch.allclose(levels.reconstruct(chain(), x, top), by_hand(x, top), rtol=1e-12)


def test_reconstructions_from_the_top_levels_go_down_by_the_prior():
    check_tops()


def test_reconstructions_from_the_lowest_levels_are_caught(monkeypatch):
    """p(x|z) of a chain sees z1 alone: held at q's mode it would give the whole reconstruction for any number."""

    class Lowest(tuple):
        def __getitem__(self, key):
            return super().__getitem__(slice(0, len(self) - key.start))

    monkeypatch.setattr(levels, "require_levels", lambda model: Lowest(NAMES))
    with pytest.raises(AssertionError):
        check_tops()


def test_draws_below_the_top_spread_as_the_prior_does():
    x = torch.full((20_000, 1), 1.0, dtype=torch.float64)
    made = levels.reconstruct(chain(), x, 3, generator=torch.Generator().manual_seed(0))
    z = (made - by_hand(x, 3)) / (2.0 * DOWN[0][1])
    assert abs(float(z.mean())) < 5 / 20_000**0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / 20_000) ** 0.5


@pytest.fixture(scope="module")
def run():
    small = {
        "latent": 4,
        "upper_latents": [3, 2],
        "between_hidden": [],
        "encoder__hidden": (16,),
        "decoder__hidden": (16,),
    }
    return lambent.fit("iwae-2layer-small", "digits", epochs=2, threads=1, quiet=True, **small)


def test_a_run_reconstructs_and_samples_by_level(run):
    z = run.infer("digits")
    assert {name: value.shape[1] for name, value in z.items()} == {"z1": 4, "z2": 3, "z3": 2}
    whole = run.reconstruct("digits")
    assert torch.allclose(run.reconstruct("digits", top=3), whole, atol=1e-6)
    one, two = (run.reconstruct("digits", top=1, seed=seed) for seed in (0, 1))
    assert not torch.allclose(one, two)
    assert torch.equal(one, run.reconstruct("digits", top=1, seed=0))
    held = {"z1": z["z1"][:5]}
    assert torch.allclose(run.sample(5, held=held, mean=True, seed=3), whole[:5], atol=1e-6)
    free = [run.sample(5, held={"z3": z["z3"][:5]}, mean=True, seed=seed) for seed in (0, 1)]
    assert not torch.allclose(*free)


def test_what_cannot_be_held_is_refused(run):
    z = run.infer("digits")
    with pytest.raises(ConfigError, match=r"top=4: expected 1 to 3, the levels of this model \(z1, z2, z3\)"):
        run.reconstruct("digits", top=4)
    with pytest.raises(ConfigError, match="held: no level z9; this model has z1, z2, z3"):
        run.sample(2, held={"z9": z["z1"][:2]})
    with pytest.raises(ShapeError, match=r"held\['z1'\] has 3 rows, expected 2"):
        run.sample(2, held={"z1": z["z1"][:3]})
    with pytest.raises(ConfigError, match="no levels of latents to hold; train a chain or a ladder"):
        levels.infer(VAE(Prior(), Line(0.5, 0.5), Seen(1.0, 1.0)), torch.ones(2, 1, dtype=torch.float64))


def test_metrics_and_evaluation_of_a_run_agree(run):
    rows = [row["valid"] for row in run.history if "valid" in row]
    for valid in rows:
        assert sum(valid["rates"].values()) == pytest.approx(valid["rate"], rel=1e-10)
    found = run.evaluate(run.validation or "digits", samples=2)
    assert list(found.rates) == ["z1", "z2", "z3"]
    assert [size for _, size in found.units.values()] == [4, 3, 2]
    assert sum(active for active, _ in found.units.values()) == found.active_units
