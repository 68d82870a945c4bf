"""Learning rates, moving averages and the training step's gradients against closed forms."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from lambent.draws import DoublyReparameterised, Pathwise
from lambent.likelihoods import BernoulliLikelihood, LikelihoodModule
from lambent.models import VAE
from lambent.networks import MLPDecoder, MLPEncoder
from lambent.objectives import ELBO, IWAE, PIWAE, WarmUp
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes
from lambent.training.ema import MovingAverage
from lambent.training.engine import Engine
from lambent.training.learning_rate import learning_rate
from lambent.training.listener import Diagnostics, Listener
from lambent.training.loop import Trainer
from lambent.training.options import TrainOptions
from lambent.training.progress import Validation
from support.batches import Rows
from support.listening import Watched

TOTAL = 3280 * 2


def rates(steps=range(TOTAL), **options):
    return [learning_rate(TrainOptions(lr=2.0, **options), step, TOTAL) for step in steps]


def test_constant():
    assert set(rates()) == {2.0}


@pytest.mark.parametrize("final", [0.0, 0.01, 1.0])
def test_cosine_and_linear(final):
    steps = (0, 1, 1000, TOTAL // 2, TOTAL - 1, TOTAL)
    cosine = [2 * (final + (1 - final) * math.cos(math.pi * s / TOTAL / 2) ** 2) for s in steps]
    assert rates(steps, lr_schedule="cosine", final_lr_fraction=final) == pytest.approx(cosine, abs=1e-12)
    linear = [2 * ((TOTAL - s) + final * s) / TOTAL for s in steps]
    assert rates(steps, lr_schedule="linear", final_lr_fraction=final) == pytest.approx(linear, abs=1e-12)


def test_staircase_is_burdas():
    """3^i passes at lr 10^(-i/7), i = 0..7: 3280 in all (Burda et al. 2016, appendix C)."""
    found = rates(lr_schedule="staircase", final_lr_fraction=0.1)
    expected = [2 * 10 ** (-i / 7) for i in range(8) for _ in range(2 * 3**i)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "staircase"])
def test_warm_up_rises_linearly_and_multiplies_the_schedule(schedule):
    plain = rates(range(20), lr_schedule=schedule)
    warm = rates(range(20), lr_schedule=schedule, warmup_steps=10)
    assert warm == pytest.approx([rate * min(1.0, (i + 1) / 10) for i, rate in enumerate(plain)])
    assert warm[0] > 0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "staircase"])
def test_rates_never_rise_and_end_where_they_should(schedule):
    found = rates(lr_schedule=schedule, final_lr_fraction=0.05)
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert found[-1] == pytest.approx(0.1, rel=2e-2)


def test_the_average_forgets_half_in_its_half_life():
    """A jump of the weights is half taken over after `half_life` examples, in batches of any size."""
    for batch in (1, 7, 100, 350):
        model = nn.Linear(1, 1)
        nn.init.zeros_(model.weight)
        average = MovingAverage(model, half_life=700.0)
        nn.init.ones_(model.weight)
        for _ in range(700 // batch):
            average.update(batch)
        assert average.model.weight.item() == pytest.approx(0.5, abs=1e-5)


def test_the_average_copies_buffers_shares_nothing_and_takes_no_gradient():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, half_life=10.0)
    before = copy.deepcopy(average.model.state_dict())
    with torch.no_grad():
        model[0].weight.add_(1)
        model[1].running_mean.add_(1)
    assert all(torch.equal(before[k], v) for k, v in average.model.state_dict().items())
    average.update(10)
    torch.testing.assert_close(average.model[0].weight, before["0.weight"] + 0.5)
    assert torch.equal(average.model[1].running_mean, model[1].running_mean)
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


N = 10


def few_batches():
    """Ten examples in batches of 4: 4, 4 and 2."""
    return Rows((torch.rand(N, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float(), 4)


class Memory(Listener):
    def __init__(self):
        self.rows = []

    def record(self, row):
        self.rows.append(row)
        return 0


def model():
    torch.manual_seed(0)
    shapes = Shapes((6,), 2)
    posterior = AmortisedPosteriorModule(NormalPosterior(), MLPEncoder((5,)).build((6,)), 2)
    return VAE(
        NormalPriorModule(2),
        posterior,
        LikelihoodModule(BernoulliLikelihood(), MLPDecoder((5,)).build(2, (1, 6)), shapes),
    )


def trainer(objective, draw, **options):
    validation = Validation(-1.0, 0.1, "lower bound", 0.0, 1.0, N)
    engine, train = Engine(torch.device("cpu")), TrainOptions(**options)
    diagnostics = Diagnostics(lambda m: validation)
    return Watched(Trainer(model(), objective, draw, few_batches(), train, engine, diagnostics), Memory())


def test_the_reported_bound_is_the_mean_over_examples_not_over_batches(monkeypatch):
    """The epoch's bound weighs a short last batch by its examples, and is of the plain ELBO under any rate."""
    run = trainer(ELBO(WarmUp(steps=1000)), Pathwise(), epochs=1, log_every=3, lr=1e-9)
    values = []
    original = ELBO.__call__
    monkeypatch.setattr(ELBO, "__call__", lambda s, t, x: values.append(original(s, t, x)) or values[-1])
    run.run()
    row = next(row for row in run.listener.rows if "train" in row)
    means = [v.value.mean().item() for v in values]
    assert [len(v.value) for v in values] == [4, 4, 2]
    assert row["train"]["bound"] == pytest.approx((4 * means[0] + 4 * means[1] + 2 * means[2]) / 10, abs=1e-6)
    assert row["train"]["bound"] != pytest.approx(sum(means) / 3, abs=1e-4)
    assert row["train"]["kind"] == "lower bound"


@pytest.mark.parametrize(
    ("objective", "draw", "groups"),
    [
        (IWAE(), Pathwise(5), {"all"}),
        (IWAE(), DoublyReparameterised(5), {"all"}),
        (PIWAE(groups=5), Pathwise(5), {"all", "generative"}),
    ],
)
def test_each_group_of_parameters_gets_the_gradient_of_its_own_loss(objective, draw, groups):
    run = trainer(objective, draw, steps=1).trainer
    twin, x = model(), few_batches().at(0)[0]
    torch.manual_seed(3)
    run._differentiate(objective(run.model(x, draw), x), 1.0, run.groups)
    torch.manual_seed(3)
    losses = objective(twin(x, draw), x).losses
    for name, parameters in twin.groups().items():
        mine = [p.grad for p in run.groups[name]]
        loss = losses.get(name, losses.get("all"))
        for found, expected in zip(mine, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
            torch.testing.assert_close(found, expected)
    assert set(losses) == groups


def test_a_step_follows_the_schedule_of_rate_and_learning_rate():
    run = trainer(
        ELBO(WarmUp(steps=3)), Pathwise(), steps=3, lr_schedule="linear", final_lr_fraction=0.0, log_every=1, lr=0.3
    )
    run.run()
    rows = [row for row in run.listener.rows if "lr" in row]
    assert [row["lr"] for row in rows] == pytest.approx([0.3, 0.2, 0.1])
    assert [row["step"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("draw", [Pathwise(5), DoublyReparameterised(5)])
@pytest.mark.parametrize("frozen", ["encoder", "inference"])
def test_frozen_parameters_stay_and_the_others_train(draw, frozen, monkeypatch):
    """A user's pretrained encoder, or the whole posterior, with requires_grad off."""
    original = model()
    posterior = original.posterior
    (posterior.encoder if frozen == "encoder" else posterior).requires_grad_(False)
    monkeypatch.setitem(globals(), "model", lambda: original)
    before = copy.deepcopy(original.state_dict())
    trainer(IWAE(), draw, steps=2, log_every=1).run()
    for name, parameter in original.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name
