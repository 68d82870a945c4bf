"""The checks that real code must pass and every planted fault must fail; each raises AssertionError."""

import itertools
import math

import torch
from scipy import stats
from torch import nn

from exact.tiny import (
    Nodes,
    TinyPrior,
    batch_of,
    full_covariance,
    mean_field,
    mixture,
    mixture_x,
    ones,
    ppca,
    ppca_likelihood,
    ppca_x,
    quadratic_nodes,
    tiny,
)
from exact.truths import CASES, LOG_P, MIXTURE, PPCA, assert_mean, bound, gauss_hermite, gradient
from lambent.data import DataOptions, Dataset, Transform
from lambent.distributions import Normal
from lambent.draws import DoublyReparameterised, Enumerate, Given, Pathwise, StickingTheLanding
from lambent.errors import ShapeError
from lambent.evaluation.active_units import active_units
from lambent.evaluation.bounds import bounds
from lambent.evaluation.exact import exact_log_prob
from lambent.evaluation.summary import DataFacts, LatentFacts, summarise
from lambent.likelihoods import CategoricalLikelihood, DiscretisedLogisticLikelihood, LikelihoodModule
from lambent.models import VAE
from lambent.networks import LinearDecoder
from lambent.objectives import ELBO, IWAE, Beta, Capacity, FreeBits, WarmUp, effective_samples
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace
from support.networks import WithoutCondition
from support.random_numbers import generator


def assert_close(found, truth, tolerance):
    found, truth = torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(truth, dtype=torch.float64)
    worst = (found - truth).abs().max().item()
    assert worst <= tolerance, (
        f"{found.flatten()[:3].tolist()} against {truth.flatten()[:3].tolist()}: off by {worst:.3g}"
    )


def constant_weights(tolerance=1e-12, dtype=torch.float64):
    """C1: at the true posterior every weight is p(x), so that every bound is log p(x)."""
    model, x = tiny("C1", 5).to(dtype), ones(5).to(dtype)
    trace = model(x, StickingTheLanding(7, generator(0)))
    assert trace.log_weight(x).shape == (7, 5)
    assert_close(trace.log_weight(x), LOG_P, tolerance)
    assert trace.log_weight(x).var() <= tolerance**2 * 10
    assert_close(IWAE()(trace, x).value, LOG_P, tolerance)
    assert_close(ELBO()(trace, x).value, LOG_P, tolerance)
    assert_close(effective_samples(trace.log_weight(x)), 7.0, 10 * tolerance)


def elbo_with_closed_rate(case):
    """L_1 with the KL in closed form and log p(x|z), a quadratic, averaged exactly."""
    model = tiny(case)
    trace = model(ones(1), Nodes(nodes=quadratic_nodes(1)))
    estimate = ELBO()(trace, ones(1))
    assert_close(estimate.value, bound(1, *CASES[case]), 1e-10)
    assert estimate.kind == "lower bound"
    assert_close(trace.average(trace.rate) + trace.average(trace.distortion(ones(1))), -estimate.value, 1e-12)


def single_weights(case):
    """L_1 as the quadrature of log w."""
    mean, log_scale = CASES[case]
    nodes, mass = gauss_hermite(40)
    given = Given(values={"z": (mean + math.exp(log_scale) * nodes).view(-1, 1, 1)})
    log_weight = tiny(case)(ones(1), given).log_weight(ones(1))
    assert_close((mass * log_weight.squeeze(1)).sum(), bound(1, mean, log_scale), 1e-10)


def pairs_of_weights(case):
    """L_2 as the quadrature of the bound of two weights."""
    mean, log_scale = CASES[case]
    nodes, mass = gauss_hermite(80)
    z = mean + math.exp(log_scale) * torch.cartesian_prod(nodes, nodes).T.unsqueeze(-1)
    model, x = tiny(case, z.shape[1]), ones(z.shape[1])
    value = IWAE()(model(x, Given(values={"z": z})), x).value
    assert_close((mass.outer(mass).flatten() * value).sum(), bound(2, mean, log_scale), 1e-9)


@torch.no_grad()
def sampled_bound(case, samples, n, delta, objective=None, chunks=1):
    """L_K by drawing: mean over ``n`` replicates of the objective's value."""
    model, x, noise = tiny(case, n // chunks), ones(n // chunks), generator(1)
    objective = IWAE() if objective is None else objective
    values = [objective(model(x, Pathwise(samples, noise)), x).value for _ in range(chunks)]
    truth = bound(1 if isinstance(objective, ELBO) else samples, *CASES[case]).item()
    assert_mean(torch.cat(values), truth, delta)


def evaluated_bounds(case, samples, n, delta, seed=3):
    """L_1 and L_K of ``n`` replicates through the streaming evaluator, and its rate and distortion."""
    found = bounds(tiny(case, n), batch_of(ones(n)), n, samples=samples, seed=seed)
    assert_mean(found.iwae, bound(samples, *CASES[case]).item(), delta)
    assert_mean(found.elbo, bound(1, *CASES[case]).item(), 4 * delta)
    assert_close(found.elbo, -(found.rate + found.distortion), 1e-12)
    assert found.iwae_kind == found.elbo_kind == "lower bound"


def streams_like_one_piece(samples=300, n=4):
    """The evaluator's bounds, streamed in chunks, are those of all its samples at once."""
    seen = []

    class Recorded(VAE):
        def forward(self, x, draw, condition=None):
            trace = super().forward(x, draw, condition)
            seen.append(trace)
            return trace

    parts = tiny("C3", n)
    model, x = Recorded(parts.prior, parts.posterior, parts.likelihood), ones(n)
    import lambent.evaluation.bounds as module

    rows = module.ROWS
    module.ROWS = 200  # several chunks, the last one short
    try:
        found = bounds(model, batch_of(x), n, samples=samples)
    finally:
        module.ROWS = rows
    log_weight = torch.cat([trace.log_weight(x) for trace in seen])
    assert len(seen) > 2
    assert log_weight.shape == (samples, n)
    assert len(log_weight[:, 0].unique()) == samples
    assert_close(found.iwae, torch.logsumexp(log_weight, 0) - math.log(samples), 1e-12)
    assert_close(found.effective, effective_samples(log_weight), 1e-9)
    assert_close(found.distortion, -torch.cat([trace.log_px(x) for trace in seen]).mean(0), 1e-12)


def ordered_bounds(case, counts=(1, 2, 5, 10, 50, 500, 5000), n=200):
    """C4: L_1 <= L_2 <= ... <= log p, each from the same draws, by paired differences."""
    model, most = tiny(case, n * counts[-1]), counts[-1]
    with torch.no_grad():
        z = model(ones(n), Pathwise(most, generator(2))).latents[0].value
        rows = [_bound_in_blocks(model, z, count) for count in counts]
    for lower, higher in itertools.pairwise(rows):
        difference = higher - lower
        assert difference.mean() >= -5 * difference.std() / math.sqrt(n), "a bound of more samples is lower"
    for row in rows:
        assert row.mean() - LOG_P <= 5 * row.std() / math.sqrt(n), "a bound is above the evidence"


def _bound_in_blocks(model, z, count):
    most, n = z.shape[:2]
    blocks = z.reshape(most // count, count, n, 1).transpose(0, 1).reshape(count, -1, 1)
    x = ones(blocks.shape[1])
    return IWAE()(model(x, Given(values={"z": blocks})), x).value.view(-1, n).mean(0)


def exact_mixture():
    """C6: log_prob, the enumerated ELBO at the exact posterior, IWAE and the evaluator all give log p(x)."""
    model, x = mixture(), mixture_x(3)
    assert_close(model.log_prob(x), MIXTURE.log_p(), 1e-12)
    trace = model(x, Enumerate())
    elbo, iwae = ELBO()(trace, x), IWAE()(trace, x)
    assert (elbo.kind, iwae.kind) == ("lower bound", "exact")
    assert_close(elbo.value, MIXTURE.log_p(), 1e-12)
    assert_close(iwae.value, MIXTURE.log_p(), 1e-12)
    found = bounds(model, batch_of(x), 3, samples=50, draw=Enumerate())
    assert_close(found.iwae, MIXTURE.log_p(), 1e-12)
    assert_close(found.elbo, MIXTURE.log_p(), 1e-12)
    assert found.iwae_kind == "exact"


def exact_ppca():
    """C5: the evidence in closed form, the best mean-field ELBO, and constant weights at the full posterior."""
    exact = exact_log_prob(ppca(mean_field()))
    assert exact is not None
    assert_close(exact(ppca_x(), None), PPCA.log_p(), 1e-10)
    trace = ppca(mean_field())(ppca_x(), Nodes(nodes=quadratic_nodes(2)))
    assert_close(ELBO()(trace, ppca_x()).value, PPCA.log_p() - PPCA.mean_field_gap(), 1e-10)
    x = ppca_x(4)
    weights = ppca(full_covariance(4))(x, Pathwise(6, generator(0))).log_weight(x)
    assert_close(weights, PPCA.log_p(), 1e-10)


def optimal_mean_field():
    """C5: the ELBO's gradient vanishes at the posterior's mean and the precision's inverse diagonal."""
    q = mean_field()
    loc, log_scale = (t.clone().requires_grad_() for t in (q.loc, q.log_scale))
    trace = ppca(Normal(loc, log_scale))(ppca_x(), Nodes(nodes=quadratic_nodes(2)))
    for slope in torch.autograd.grad(ELBO()(trace, ppca_x()).losses["all"], [loc, log_scale]):
        assert_close(slope, 0.0, 1e-12)


def sampled_ppca():
    """C5: IWAE from the best mean field is within 5 standard errors of the evidence."""
    n, samples = 4000, 50
    with torch.no_grad():
        model, x = ppca(mean_field(n)), ppca_x(n)
        value = IWAE()(model(x, Pathwise(samples, generator(4))), x).value
    # the bias at this K is Var(log w)/2K, about 1e-5: well below what is seen
    assert_mean(value, PPCA.log_p(), 2e-3)


def uniform_model(dims, dtype=torch.float64):
    """A decoder of zeros: 256 grey levels, all alike; q is the prior."""
    shapes = Shapes((dims,), 2, levels=256)
    family = CategoricalLikelihood()
    likelihood = LikelihoodModule(family, LinearDecoder().build(2, family.out_shape(shapes)), shapes)
    encoder = nn.Identity()
    encoder.features = dims
    posterior = AmortisedPosteriorModule(NormalPosterior(), WithoutCondition(encoder), 2)
    for parameter in (*likelihood.parameters(), *posterior.head.parameters()):
        nn.init.zeros_(parameter)
    return VAE(NormalPriorModule(2), posterior, likelihood).to(dtype)


def uniform_levels(dims=16, n=37, dtype=torch.float64, tolerance=1e-12):
    """C8: bits/dim of the uniform distribution over 256 levels is 8, as the evaluator reports it."""
    x = torch.randint(256, (n, dims), generator=generator(0)).float()
    found = bounds(uniform_model(dims, dtype), batch_of(x), n, samples=3)
    report = summarise(found, DataFacts("uniform", dims, discrete=True), LatentFacts(torch.zeros(4, 2)))
    assert report.n == n
    assert_close(report.bits_per_dim, 8.0, tolerance)
    assert f"{report.to_dict()['bits_per_dim']:.6f}" == "8.000000"
    assert_close(report.elbo.value, -dims * math.log(256), 100 * tolerance)


def density_in_its_unit(dims=6, factor=3.7):
    """C8: data scaled by s have their density moved by -D ln s, whatever is done to them before scoring."""
    raw = torch.rand(40, dims, generator=generator(0), dtype=torch.float64).float()
    options = DataOptions(scale="standardize")
    one, other = (Transform.fit(Dataset(data), options) for data in (raw, factor * raw))
    q = Normal(torch.zeros(dims, dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    first = q.log_prob(one(raw).double()) + one.log_jacobian
    second = q.log_prob(other(factor * raw).double()) + other.log_jacobian
    assert_close(second - first, -dims * math.log(factor), 1e-4)  # the transform itself works in float32
    doubled = Transform.fit(Dataset(2 * raw), options)  # by a power of two, so that float32 is exact
    moved = q.log_prob(doubled(2 * raw).double()) + doubled.log_jacobian - first
    assert_close(moved, -dims * math.log(2), 1e-12)


def levels_sum_to_one(bits=3):
    """The discretised likelihood, as it is built, is a probability over its levels, its edge bins too."""
    shapes, family = Shapes((1,), 1), DiscretisedLogisticLikelihood(bits=bits, scale="fixed", sigma=0.4)
    px = family.distribution(torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64), None, shapes)
    mass = [px.log_prob(torch.full((1, 1), float(level))).exp().item() for level in range(2**bits)]
    assert_close(math.fsum(mass), 1.0, 1e-12)


DRAWS = {"pathwise": Pathwise, "stl": StickingTheLanding, "dreg": DoublyReparameterised}
OBJECTIVES = {"elbo": ELBO, "iwae": IWAE}


def gradients_per_example(draw, objective, samples, case, n, seed=5):
    """The estimator's gradient of the bound in ``n`` replicates: (4, n), of mean, log scale, shift and origin."""
    noise = generator(seed)
    sizes = [min(8000, n - start) for start in range(0, n, 8000)]
    return torch.cat(
        [_gradients(DRAWS[draw](samples, noise), OBJECTIVES[objective](), case, size) for size in sizes], 1
    )


def _gradients(draw, objective, case, n):
    model, x = tiny(case, n, TinyPrior(n)), ones(n)
    estimate = objective(model(x, draw), x)
    groups = {"all": [*model.parameters()], **model.groups()}
    slopes = {}
    for name, loss in estimate.losses.items():
        for parameter, slope in zip(
            groups[name], torch.autograd.grad(loss, groups[name], retain_graph=True), strict=True
        ):
            slopes[parameter] = -n * slope.flatten()
    q = model.posterior
    return torch.stack([slopes[p] for p in (q.mean, q.log_scale, model.likelihood.shift, model.prior.origin)])


SIZES = {1: (440_000, 0.05), 5: (120_000, 0.025), 50: (72_000, 0.01)}  # K: (replicates, bias that would be seen)


def unbiased_gradient(draw, objective, samples, case):
    """C11: the mean gradient of each parameter is the derivative of L_K."""
    n, delta = SIZES[samples]
    found = gradients_per_example(draw, objective, samples, case, n)
    truth = gradient(1 if objective == "elbo" else samples, *CASES[case])
    for row, slope in zip(found, truth, strict=True):
        if row.std() <= 1e-9:
            assert_close(row, slope, 1e-9)
        else:
            assert_mean(row, slope, delta)


def no_variance_at_the_posterior(draw="stl", objective="elbo", samples=5):
    """At the true posterior the path's gradient is 0 in every draw."""
    found = gradients_per_example(draw, objective, samples, "C1", 50)
    assert_close(found[:2], 0.0, 1e-12)


def exact_mixture_gradient():
    """Enumeration's gradient, of ELBO and IWAE, is that of log p(x) written out."""
    model, x = mixture(), mixture_x(2)
    truth_of = [p.detach().clone().requires_grad_() for p in model.parameters()]
    logits, loc, log_scale = truth_of
    log_p = logits.log_softmax(0) + torch.distributions.Normal(loc, log_scale.exp()).log_prob(
        torch.tensor(MIXTURE.x, dtype=torch.float64)
    )
    truth = torch.autograd.grad(torch.logsumexp(log_p, 0), truth_of)
    for objective in (ELBO(), IWAE()):
        loss = objective(model(x, Enumerate()), x).losses["all"]
        for found, expected in zip(torch.autograd.grad(-loss, [*model.parameters()]), truth, strict=True):
            assert_close(found, expected, 1e-12)


def _mixed_x(n=70):
    return torch.linspace(-4, 6, n, dtype=torch.float64).square().unsqueeze(1) / 6


def _mixture_log_p(x):
    terms = [
        w * stats.norm.pdf(x.numpy(), m, s)
        for w, m, s in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.scales, strict=True)
    ]
    return torch.tensor(sum(terms)).log().squeeze(1)


def every_example_once(n=70, samples=40):
    """Of examples that all differ, in blocks of which the last is short: each number, their mean and its error."""
    x, truth = _mixed_x(n), _mixture_log_p(_mixed_x(n))
    found = bounds(mixture(), batch_of(x), n, samples=samples, draw=Enumerate())
    means = torch.zeros(4, 3)
    report = summarise(found, DataFacts("mixture", 1, discrete=False), LatentFacts(means), mixture().log_prob(x))
    assert (report.n, report.samples, report.non_finite) == (n, samples, 0)
    assert_close(found.iwae, truth, 1e-12)
    for figure in (report.iwae, report.elbo, report.log_likelihood):
        assert_close(figure.value, truth.mean(), 1e-12)
        assert_close(figure.se, truth.std() / math.sqrt(n), 1e-12)


def non_finite_examples_count():
    """An example without a finite bound makes the mean -inf and is counted; none is dropped."""
    x = _mixed_x(40)
    x[3] = math.inf
    found = bounds(mixture(), batch_of(x), 40, draw=Enumerate())
    report = summarise(found, DataFacts("broken", 1, discrete=False), LatentFacts(torch.zeros(4, 3)))
    assert (report.n, report.non_finite) == (40, 1)
    assert report.iwae.value == -math.inf
    assert report.to_dict()["elbo"]["value"] == "-inf"


class _Noisy(nn.Module):
    """An encoder whose training mode differs: batch norm and dropout; the batch norm of a frozen part stays in use."""

    def __init__(self):
        super().__init__()
        self.features = 8
        frozen = nn.BatchNorm1d(5).eval()
        self.net = nn.Sequential(frozen, nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))

    def forward(self, x, condition=None):
        return self.net(x)


def evaluation_mode():
    """Evaluating a model in training mode gives the numbers of evaluation mode, and leaves it as it was."""
    torch.manual_seed(0)
    posterior = AmortisedPosteriorModule(NormalPosterior(), _Noisy(), 2)
    model, x = VAE(NormalPriorModule(2), posterior, ppca_likelihood()).double(), ppca_x(50) * torch.rand(50, 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean += 0.3
    frozen = model.posterior.encoder.net[0]
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    training = bounds(model, batch_of(x), 50, samples=30)
    assert [module.training for module in model.modules()] == modes
    assert not frozen.training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert_close(training.elbo, bounds(model.eval(), batch_of(x), 50, samples=30).elbo, 0.0)


def refuses_broadcasting():
    """A likelihood of (5, 1) examples, or one that doesn't say what an example is, never scores five examples."""
    zero = torch.zeros(())
    for px in (
        Normal(torch.zeros(1, 5, 1), zero),
        Normal(torch.zeros(5, 1, 1), zero),
        Normal(torch.zeros(1, 5, 5), zero, 0),
    ):
        x = (
            torch.zeros(5, 1)
            if px.batch_shape == (5, 1)
            else torch.zeros(1, 5)
            if px.event_shape == (1,)
            else torch.zeros(5, 5)
        )
        try:
            found = Trace(px).log_px(x)
        except ShapeError:
            continue
        raise AssertionError(f"a log p(x|z) of {tuple(found.shape)} came of x {tuple(x.shape)}")


def reports_the_plain_bound():
    """Whatever the loss charges, the value is the ELBO."""
    x = ones(1)
    trace = tiny("C3")(x, Nodes(nodes=quadratic_nodes(1)))
    for rate in (Beta(4.0), FreeBits(3.0), Capacity(capacity=2.0), WarmUp(factor=0.1)):
        assert_close(ELBO(rate)(trace, x).value, bound(1, *CASES["C3"]), 1e-10)


def free_bits_by_hand():
    """The floor holds for the batch's mean rate of each dimension (Kingma et al. 2016, eq. 15)."""
    q = Normal(torch.tensor([[0.0, 2.0], [0.4, 0.0]]), torch.zeros(()))  # rates 0, 2 and .08, 0; means .04 and 1
    prior = Normal(torch.zeros(2), torch.zeros(()))
    trace = Trace(Normal(torch.zeros(3, 2, 1), torch.zeros(())), (Latent("z", torch.zeros(3, 2, 2), prior, q),))
    assert_close(FreeBits(0.5)(trace), torch.full((3, 2), 0.5 + 1.0), 1e-6)
    assert_close(FreeBits(0.0)(trace), torch.full((3, 2), 0.04 + 1.0), 1e-6)


def noise_is_fresh():
    """Examples of one block, and blocks of one evaluation, have noise of their own."""
    n = 96
    found = bounds(tiny("C2", n), batch_of(ones(n)), n, samples=40)
    assert len(found.iwae.unique()) == n, "examples share their noise"


def units_by_variance():
    """Active means that the variance, not the deviation, is above 0.01."""
    means = torch.tensor([-1.0, 1.0]).repeat(50).unsqueeze(1) * torch.tensor([0.05, 0.2, 0.0])
    assert active_units(means) == 1, "a deviation was compared with a variance's threshold"
