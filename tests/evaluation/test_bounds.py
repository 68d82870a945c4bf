"""The evaluator's numbers depend on data, K and seed alone: not on threads, processes, or what else is evaluated."""

import itertools
import math
import tracemalloc

import pytest
import torch
from torch import nn

import lambent.evaluation.bounds as module
from lambent.distributions import Normal, StandardNormal
from lambent.draws import Enumerate
from lambent.evaluation.active_units import active_units
from lambent.evaluation.bounds import Bounds, bounds
from lambent.evaluation.summary import DataFacts, LatentFacts, mean_estimate, summarise
from lambent.likelihoods import BernoulliLikelihood, LikelihoodModule
from lambent.models import VAE, LatentModel
from lambent.networks import MLPDecoder, MLPEncoder
from lambent.objectives import ELBO
from lambent.posteriors import AmortisedPosteriorModule, DeltaPosterior, NormalPosterior
from lambent.priors import FlatPriorModule, MixturePriorModule, NormalPriorModule
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace

N = 150  # not a multiple of any block
ROWS = ("elbo", "rate", "rates", "distortion", "iwae", "effective")


def vae(prior=None, family=None):
    torch.manual_seed(0)
    shapes = Shapes((12,), 2)
    posterior = AmortisedPosteriorModule(family or NormalPosterior(), MLPEncoder((8,)).build((12,)), 2)
    return VAE(
        prior or NormalPriorModule(2),
        posterior,
        LikelihoodModule(BernoulliLikelihood(), MLPDecoder((8,)).build(2, (1, 12)), shapes),
    )


def data(n=N):
    return (torch.rand(n, 12, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def evaluated(model=None, x=None, **settings) -> Bounds:
    x = data() if x is None else x
    return bounds(model or vae(), lambda a, b: (x[a:b], None), len(x), **{"samples": 40, **settings})


def assert_same(one, other):
    for name in ROWS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("prior", [None, MixturePriorModule(3, 2, 1.0)])
def test_numbers_do_not_depend_on_the_pool(threads, prior):
    assert_same(evaluated(vae(prior)), evaluated(vae(prior), threads=threads))


def test_numbers_do_not_depend_on_torchs_threads():
    """Sums of long products differ in their last digits from one thread to two; every worker has one."""
    torch.manual_seed(0)
    shapes = Shapes((784,), 50)
    posterior = AmortisedPosteriorModule(NormalPosterior(), MLPEncoder((200,)).build((784,)), 50)
    likelihood = LikelihoodModule(BernoulliLikelihood(), MLPDecoder((200,)).build(50, (1, 784)), shapes)
    model, x = VAE(NormalPriorModule(50), posterior, likelihood), data(96).repeat(1, 66)[:, :784]
    before, found = torch.get_num_threads(), []
    try:
        for own, pool in itertools.product((1, 2), (1, 2)):
            torch.set_num_threads(own)
            found.append(evaluated(model, x, samples=60, threads=pool))
            assert torch.get_num_threads() == own
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert_same(found[0], other)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_that_share_the_blocks_count_every_example_once(world):
    parts = [evaluated(share=(rank, world)) for rank in range(world)]
    summed = {name: torch.stack([getattr(part, name) for part in parts]).sum(0) for name in ROWS}
    whole = evaluated()
    for name in ROWS:
        assert torch.equal(summed[name], getattr(whole, name))
    filled = torch.stack([part.elbo != 0 for part in parts]).sum(0)
    assert torch.equal(filled, torch.ones(N, dtype=filled.dtype))


def test_summing_over_processes_keeps_what_a_number_is():
    other = evaluated(share=(1, 2))
    found = evaluated(share=(0, 2)).summed(iter_add(other))
    assert_same(found, evaluated())
    assert (found.elbo_kind, found.samples) == ("lower bound", 40)


def iter_add(other):
    names = iter(ROWS)
    return lambda row: row + getattr(other, next(names))


def test_a_process_without_work_agrees_on_which_numbers_exist():
    """Three blocks on four processes: an autoencoder has no weights on any of them, so that all sum the same rows."""
    for model in (vae(FlatPriorModule(2), DeltaPosterior()), vae()):
        parts = [evaluated(model, share=(rank, 5), samples=1000) for rank in range(6 - 1)]
        assert len({(p.iwae is None, p.effective is None, p.elbo_kind, p.iwae_kind) for p in parts}) == 1
        assert any(bool((p.elbo == 0).all()) for p in [evaluated(model, data(3), share=(1, 2))])


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 150])
@pytest.mark.parametrize("samples", [1, 7, 1000])
def test_every_example_is_counted_and_all_samples_used(n, samples):
    seen = []

    class Counted(VAE):
        def forward(self, x, draw, condition=None):
            trace = super().forward(x, draw, condition)
            seen.append((x, trace.px.batch_shape[0]))
            return trace

    model = vae()
    counted = Counted(model.prior, model.posterior, model.likelihood)
    x = torch.arange(n, dtype=torch.float32).unsqueeze(1).expand(n, 12) / 1000
    found = bounds(counted, lambda a, b: (x[a:b], None), n, samples=samples)
    used = torch.zeros(n)
    for chunk, k in seen:
        used[(chunk[:, 0] * 1000).round().long()] += k
    assert torch.equal(used, torch.full((n,), float(samples)))
    assert found.elbo.shape == found.iwae.shape == (n,)
    assert bool((found.effective >= 1 - 1e-9).all())
    assert bool((found.effective <= samples + 1e-6).all())


def test_no_examples():
    found = evaluated(x=data(0))
    assert found.elbo.shape == (0,)


def test_the_seed_is_what_changes_the_noise():
    assert_same(evaluated(seed=3), evaluated(seed=3))
    assert not torch.equal(evaluated(seed=3).iwae, evaluated(seed=4).iwae)
    model, before = vae(), torch.get_rng_state()
    assert_same(evaluated(model, seed=3), evaluated(model, seed=3))
    assert torch.equal(before, torch.get_rng_state())


def test_one_example_alone_is_within_its_error_of_itself_among_others():
    """Noise is keyed by block, so the numbers agree in distribution: exactly for the rate, which has no noise."""
    model, x = vae(), data(40)
    together = evaluated(model, x, samples=2000)
    alone = [evaluated(model, x[i : i + 1], samples=2000, seed=i + 1) for i in range(40)]
    rates = torch.cat([a.rate for a in alone])
    torch.testing.assert_close(rates, together.rate, rtol=1e-5, atol=1e-6)
    difference = torch.cat([a.iwae for a in alone]) - together.iwae
    assert abs(difference.mean().item()) <= 5 * difference.std().item() / math.sqrt(40)


def peak(samples):
    """Elements of the largest trace while evaluating."""
    largest = 0

    class Watched(VAE):
        def forward(self, x, draw, condition=None):
            nonlocal largest
            trace = super().forward(x, draw, condition)
            largest = max(largest, trace.px.logits.numel())
            return trace

    model = vae()
    evaluated(Watched(model.prior, model.posterior, model.likelihood), samples=samples)
    return largest


def test_memory_does_not_grow_with_the_number_of_samples():
    limit = module.ROWS * 12
    assert peak(10) <= limit
    assert peak(100) <= limit
    assert peak(5000) <= limit
    x = data(33)
    sizes = []
    for samples in (1000, 5000):
        tracemalloc.start()
        evaluated(x=x, samples=samples)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sizes[1] <= 1.5 * sizes[0] + 50_000


def test_an_autoencoder_has_no_bound_and_no_weights():
    found = evaluated(vae(FlatPriorModule(2), DeltaPosterior()))
    assert (found.elbo_kind, found.iwae_kind, found.iwae, found.effective) == (*["not a bound"] * 2, None, None)
    torch.testing.assert_close(found.elbo, -found.distortion)
    report = summarise(found, DataFacts("d", 12, discrete=True), LatentFacts(torch.zeros(4, 2)))
    assert report.bits_per_dim is None
    assert set(report.to_dict()) >= {"n", "elbo", "rate", "distortion", "active_units", "bits_per_dim"}
    assert not any(key.startswith(("iwae", "log_likelihood")) for key in report.to_dict())


class Chain(LatentModel):
    """A diffusion in miniature: one level drawn, one known by its rate alone."""

    def __init__(self):
        super().__init__()
        self.likelihood = nn.Identity()

    def forward(self, x, draw, condition=None):
        z = draw("z", StandardNormal((2,)), Normal(torch.zeros(len(x), 2), torch.zeros(())))
        k = z.value.shape[0]
        rest = Latent("levels 1..T", None, known={"kl": torch.full((k, len(x)), 3.0)})
        return Trace(Normal(torch.zeros(k, len(x), 12), torch.zeros(())), (z, rest))

    def groups(self):
        return {"generative": [], "inference": []}


def test_a_level_known_by_its_rate_is_evaluated_without_weights():
    found = evaluated(Chain())
    assert found.iwae is None
    assert (found.elbo_kind, found.samples) == ("lower bound", 40)
    torch.testing.assert_close(found.rate, torch.full((N,), 3.0, dtype=torch.float64))


class Density(LatentModel):
    """No latents at all."""

    def __init__(self):
        super().__init__()
        self.likelihood = nn.Identity()

    def forward(self, x, draw, condition=None):
        return Trace(Normal(torch.zeros(1, len(x), 12), torch.zeros(())))

    def groups(self):
        return {"generative": [], "inference": []}


def test_a_density_is_exact_whatever_the_samples():
    found = evaluated(Density(), samples=3000)
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(data().double()).sum(1)
    assert (found.elbo_kind, found.iwae) == ("exact", None)
    torch.testing.assert_close(found.elbo, truth, rtol=1e-6, atol=1e-6)
    assert float(found.rate.abs().max()) == 0
    assert ELBO()(Density()(data(), None), data()).kind == "exact"


def test_enumeration_ignores_the_number_of_samples():
    from lambent.models import Mixture
    from lambent.priors import CategoricalPriorModule

    torch.manual_seed(0)
    shapes = Shapes((12,), 3)
    model = Mixture(
        CategoricalPriorModule(3), LikelihoodModule(BernoulliLikelihood(), MLPDecoder(()).build(3, (1, 12)), shapes)
    )
    one, many = (evaluated(model, samples=k, draw=Enumerate()) for k in (1, 500))
    torch.testing.assert_close(one.iwae, many.iwae)
    torch.testing.assert_close(one.iwae.float(), model.log_prob(data()).detach(), rtol=1e-5, atol=1e-5)


def test_a_model_that_fails_is_left_in_the_mode_it_was_in():
    model = vae().train()
    with pytest.raises(ZeroDivisionError):
        bounds(model, lambda a, b: 1 / 0, 10)
    assert model.training


def test_a_figure_is_a_mean_with_its_standard_error():
    found = mean_estimate(torch.tensor([1.0, 2.0, 6.0]), "lower bound")
    assert found.value == 3.0
    assert found.se == pytest.approx(math.sqrt(7 / 3))
    assert math.isnan(mean_estimate(torch.tensor([1.0]), "exact").se)
    assert mean_estimate(torch.tensor([1.0, math.inf]), "exact").value == -math.inf
    assert mean_estimate(torch.tensor([1.0, math.nan]), "exact").to_dict() == {
        "value": "-inf",
        "se": "nan",
        "unit": "nats",
        "kind": "exact",
    }


def test_the_report_names_the_tightest_number_it_has():
    found = evaluated()
    plain = summarise(found, DataFacts("d", 12, discrete=True), LatentFacts(torch.zeros(4, 2)))
    name, best = plain.best
    assert (name, best.value) == ("iwae_40", plain.iwae.value)
    assert plain.bits_per_dim == pytest.approx(-best.value / (12 * math.log(2)))
    assert plain.to_dict()["bits_per_dim_se"] == pytest.approx(best.se / (12 * math.log(2)))
    exact = summarise(found, DataFacts("d", 12, discrete=True), LatentFacts(torch.zeros(4, 2)), found.iwae + 1)
    assert exact.best[0] == exact.to_dict()["bits_per_dim_from"] == "log_likelihood"
    assert summarise(found, DataFacts("d", 12, discrete=False), LatentFacts(torch.zeros(4, 2))).bits_per_dim is None


def test_any_number_that_is_not_finite_is_counted():
    found, exact = evaluated(), torch.zeros(N)
    found.elbo[3] = math.nan
    found.iwae[4] = -math.inf
    exact[[4, 5]] = math.inf
    report = summarise(found, DataFacts("d", 12, discrete=False), LatentFacts(torch.zeros(4, 2)), exact)
    assert report.non_finite == 3
    assert report.elbo.value == report.iwae.value == report.log_likelihood.value == -math.inf


def test_active_units_of_any_latent_shape():
    means = torch.zeros(100, 2, 3)
    means[:, 0, 1] = torch.linspace(-1, 1, 100)
    means[:, 1, 2] = 5.0
    assert active_units(means) == 1
    assert active_units(means[:1]) == 0
