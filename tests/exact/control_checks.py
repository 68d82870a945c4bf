"""Control variates and relaxations on the toys of `coins`: means over replicates against the exact gradient."""

import torch
from scipy import stats

from exact.checks import assert_close
from exact.coins import DOUBLE, TOYS, slopes, toy_model, toy_x, truth
from exact.score_checks import OBJECTIVES, baseline
from exact.tiny import TinyPrior, ones, tiny
from exact.truths import CASES, assert_mean, gradient
from lambent.distributions.relaxed import conditional, harden, noisy
from lambent.draws import Gumbel, Rebar, Relax, Score, StraightThrough, StraightThroughGumbel
from support.random_numbers import generator

DRAWS = {
    "rebar": Rebar,
    "relax": Relax,
    "gumbel": Gumbel,
    "st-gumbel": StraightThroughGumbel,
    "straight-through": StraightThrough,
    "score": Score,
}


def draw_of(name, samples, noise, dims):
    """The draw and what it learns, nothing of which is at its initial value."""
    if name not in ("rebar", "relax"):
        settings = {"baseline": "leave-one-out" if samples > 1 else "learned"} if name == "score" else {}
        return DRAWS[name](samples, noise, **settings), baseline(
            "learned"
        ) if name == "score" and samples == 1 else None
    draw = DRAWS[name](samples, noise)
    control = draw.parameters_for(dims, 1).double()
    with torch.no_grad():
        control.scale.fill_(0.7)
        control.log_temperature.fill_(-0.2)
        for i, parameter in enumerate([] if control.net is None else control.net.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator(i), dtype=DOUBLE))
    return draw, control


def replicates(toy, draw, objective, control, n, each=20_000):
    """(value, slopes) of ``n`` replicates, one row each."""
    rows = []
    for start in range(0, n, each):
        toys = [toy] * min(each, n - start)
        model, x = toy_model(toys, control), toy_x(toys)
        estimate = objective(model(x, draw), x)
        rows.append((estimate.value.unsqueeze(1), *slopes(model, estimate.losses)))
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


SIZES = {1: (60_000, 0.08), 5: (30_000, 0.09), 50: (4_000, 0.35)}  # K: (replicates, bias that would be seen)


def unbiased(name, toy_name, objective, samples, delta=None, n=None):
    """C11: the mean value and gradients are those of the bound, |z| <= 5."""
    toy, (estimator, settings) = TOYS[toy_name], OBJECTIVES[objective]
    size, seen = SIZES.get(samples, (n, delta))
    draw, control = draw_of(name, samples, generator(11), len(toy.q))
    value, expected = truth(toy, objective, samples, **settings)
    found = replicates(toy, draw, estimator, control, n or size, 4_000 if samples == 50 else 20_000)
    exact = [torch.tensor([value], dtype=DOUBLE), *expected]
    for rows, slope in zip(found, exact, strict=True):
        for column, number in zip(rows.T, slope, strict=True):
            if column.std() <= 1e-9:
                assert_close(column, number, 1e-9)
            else:
                assert_mean(column, number.item(), delta or seen)


LINE_SIZES = {1: (200_000, 0.15), 5: (60_000, 0.1), 50: (12_000, 0.1)}


def score_on_a_line(name, objective, samples, case):
    """C11 on C2 and C3: the score function of a Normal q against the quadrature of L_K."""
    n, delta = LINE_SIZES[samples]
    model, x = tiny(case, 4_000, TinyPrior(4_000)), ones(4_000)
    model.control = baseline(name)
    draw, rows = Score(samples, generator(6), baseline=name), []
    q = model.posterior
    parameters = (q.mean, q.log_scale, model.likelihood.shift, model.prior.origin)
    for _ in range(n // 4_000):
        loss = OBJECTIVES[objective][0](model(x, draw), x).losses["all"]
        rows.append(torch.stack([-4_000 * g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    expected = gradient(1 if objective == "elbo" else samples, *CASES[case])
    for row, slope in zip(torch.cat(rows, 1), expected, strict=True):
        if row.std() <= 1e-9:
            assert_close(row, slope, 1e-9)
        else:
            assert_mean(row, slope, delta)


def second_moment(name, toy_name, objective, samples=2, n=3_000, step=1e-4):
    """The control's loss is the mean of |gradient by q's logits|^2; its own gradient is right, by differences."""
    toy, (estimator, _) = TOYS[toy_name], OBJECTIVES[objective]
    draw, control = draw_of(name, samples, None, len(toy.q))
    parameters = [*control.parameters()]

    def run():
        toys = [toy] * n
        model, x = toy_model(toys, control), toy_x(toys)
        losses = estimator(model(x, draw.using(generator(2))), x).losses
        (by_q,) = torch.autograd.grad(losses["inference"], model.posterior.numbers, retain_graph=True)
        return losses, n * by_q

    losses, by_q = run()
    assert_close(losses["control"], by_q.square().sum(1).mean(), 1e-10)
    analytic = torch.autograd.grad(run()[0]["control"], parameters)
    for parameter, slope in zip(parameters, analytic, strict=True):
        direction = torch.ones_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(run()[1].square().sum(1).mean().item())
            with torch.no_grad():
                parameter -= sign * step * direction
        numeric = (values[0] - values[1]) / (2 * step)
        assert_close(numeric, slope.sum(), 1e-5 * (1 + abs(numeric)))


def control_learns(name, toy_name, objective="elbo", steps=60):
    """Following the control's loss lowers the gradient's variance, measured on other draws."""
    toy, (estimator, _) = TOYS[toy_name], OBJECTIVES[objective]
    draw, control = draw_of(name, 1, generator(4), len(toy.q))

    def variance():
        return replicates(toy, draw.using(generator(99)), estimator, control, 20_000)[1].var(0).sum()

    before, optimiser = variance(), torch.optim.Adam(control.parameters(), lr=0.05)
    for _ in range(steps):
        toys = [toy] * 500
        model, x = toy_model(toys, control), toy_x(toys)
        optimiser.zero_grad()
        estimator(model(x, draw), x).losses["control"].backward(inputs=[*control.parameters()])
        optimiser.step()
    return before, variance()


def outcomes_agree(q, n=400_000, bins=50):
    """z given b ~ q has the law of z: chi-square over 50 bins of equal mass in each coordinate, and by outcome."""
    z = noisy(q, (n,), generator(0))
    outcome = harden(q, z)
    again = conditional(q, outcome, generator(1))
    assert torch.equal(harden(q, again), outcome)
    fresh = q.sample((n,), generator(2))
    from_sampler = conditional(q, fresh, generator(3))
    reference = noisy(q, (n,), generator(4))
    for column in range(q.event_shape[0]):
        edges = torch.quantile(reference[:200_000, column], torch.linspace(0, 1, bins + 1, dtype=z.dtype)[1:-1])
        tables = [
            torch.bincount(torch.bucketize(t[:, column].contiguous(), edges), minlength=bins)
            for t in (again, from_sampler)
        ]
        for table in tables:
            other = torch.bincount(torch.bucketize(reference[:, column].contiguous(), edges), minlength=bins)
            p = stats.chi2_contingency(torch.stack([table, other]).numpy() + 1e-9).pvalue
            assert p > 1e-6, f"coordinate {column}: p = {p:.2g}"
    for column in range(1, q.event_shape[0]):  # joint, coarsely: signs of the differences of neighbours
        pairs = [((t[:, column] - t[:, column - 1]).sign() > 0).double() for t in (again, from_sampler, reference)]
        se = (0.5 / n) ** 0.5
        assert max(abs((t.mean() - pairs[2].mean()).item()) for t in pairs[:2]) <= 5 * se


def quieter_than_plain_scores(name="relax", toy_name="pair", n=20_000):
    """The control variate takes more than half of the variance off a score function without a baseline."""
    toy = TOYS[toy_name]
    draw, control = draw_of(name, 1, generator(3), len(toy.q))
    controlled = replicates(toy, draw, OBJECTIVES["elbo"][0], control, n)[1].var(0).sum()
    plain = replicates(toy, Score(1, generator(3), baseline="none"), OBJECTIVES["elbo"][0], None, n)[1].var(0).sum()
    assert controlled < 0.5 * plain, f"variance {controlled:.3f} against {plain:.3f}"
