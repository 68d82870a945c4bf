"""What several samples, charged rates and their baselines are credited with, against sums and brute force."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lambent.config import biases
from lambent.distributions import Bernoulli, Normal
from lambent.draws import Enumerate, Rebar, RunningMean, Score
from lambent.errors import CombinationError
from lambent.evaluation.bounds import bounds
from lambent.objectives import ELBO, Capacity, FreeBits
from lambent.objectives.score_function import LogMean, Mean
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace
from lambent.training.loop import Trainer

LOGITS, PRIOR = torch.tensor([1.4, -0.7]), torch.tensor([-0.3, 0.2])
KL = Bernoulli(LOGITS).mean @ (nn.functional.logsigmoid(LOGITS) - nn.functional.logsigmoid(PRIOR)) + (
    1 - Bernoulli(LOGITS).mean
) @ (nn.functional.logsigmoid(-LOGITS) - nn.functional.logsigmoid(-PRIOR))


def by_score(rate, examples=40_000):
    """Each example's gradient of the loss by its own logits, where the rate is log q - log p of the draw."""
    logits = LOGITS.repeat(examples, 1).requires_grad_()
    z = Score(2, torch.Generator().manual_seed(3), baseline="leave-one-out")("z", Bernoulli(PRIOR), Bernoulli(logits))
    z = Latent("z", z.value, z.p, z.q, z.known, analytic=False, score=z.score, advantage=z.advantage)
    px = Normal(torch.zeros(2, examples, 1), torch.zeros(()))
    loss = ELBO(rate)(Trace(px, (z,)), torch.zeros(examples, 1)).losses["all"]
    return loss, torch.autograd.grad(loss, logits)[0] * examples


@pytest.mark.parametrize("rate", [FreeBits(0.05), Capacity(gamma=1.0, capacity=0.1)], ids=str)
def test_a_charge_of_batch_means_reaches_a_scored_posterior(rate):
    """The batch is over the floor, so its gradient is that of the KL: d/dl KL = q (1 - q) (l - l_p)."""
    _, found = by_score(rate)
    mean = torch.sigmoid(LOGITS)
    expected = mean * (1 - mean) * (LOGITS - PRIOR)
    z = (found.mean(0) - expected) / (found.std(0) / math.sqrt(len(found)))
    assert z.abs().max() < 5
    assert expected.abs().min() > 50 * (found.std(0) / math.sqrt(len(found))).max()  # it could fail


def test_a_batch_below_the_floor_pays_it_and_learns_nothing():
    loss, found = by_score(FreeBits(5.0))
    assert loss.item() == pytest.approx(5.0 + 0.5 * math.log(2 * math.pi), abs=1e-5)
    assert found.abs().max() < 1e-6


def test_free_bits_of_a_level_below_enumerated_states_count_each_state_by_its_mass():
    above = Enumerate()("y", Bernoulli(PRIOR), Bernoulli(LOGITS.unsqueeze(0)))
    means = above.value @ torch.tensor([[2.0], [0.5]])  # (K, B, 1)
    below = Latent("z", means, Normal(torch.zeros(1), torch.zeros(())), Normal(means, torch.zeros(())))
    trace = Trace(Normal(torch.zeros(4, 1, 1), torch.zeros(())), (above, below))
    mass, rate = Bernoulli(LOGITS).log_prob(above.value[:, 0]).exp(), 0.5 * means[:, 0, 0] ** 2
    assert FreeBits(0.0)(trace)[0].item() == pytest.approx((mass @ rate + KL).item(), rel=1e-5)
    assert (mass @ rate - rate.mean()).abs() > 0.1


def test_each_sample_is_replaced_by_the_others_geometric_mean():
    terms = 30 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in range(7):
        others = torch.cat([terms[:k], terms[k + 1 :]])
        replaced = torch.cat([others, others.mean(0, keepdim=True)])
        expected = replaced.logsumexp(0) - math.log(7)
        torch.testing.assert_close(LogMean().prediction(terms)[k], expected, rtol=1e-12, atol=1e-12)


def test_groups_of_one_have_the_other_groups_for_a_baseline():
    terms = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LogMean(6).credit(terms), Mean().credit(terms))
    torch.testing.assert_close(LogMean(6).prediction(terms), Mean().prediction(terms))


def test_a_running_mean_outlives_a_batch_that_is_not_finite():
    baseline = RunningMean(decay=0.5)
    baseline(None, torch.full((1, 2), 4.0), torch.zeros(1, 2))
    baseline(None, torch.tensor([[math.nan, 1.0]]), torch.zeros(1, 2))
    baseline(None, torch.tensor([[math.inf, 1.0]]), torch.zeros(1, 2))
    assert baseline(None, torch.full((1, 2), 5.0), torch.zeros(1, 2))[0].tolist() == [[1.0, 1.0]]


def test_baselines_of_two_processes_recall_the_whole_batch():
    """Three examples here and one there count as the four of one process."""
    credit, x = torch.tensor([[1.0, 2.0, 6.0, -5.0]]), torch.zeros(1, 4)
    alone = RunningMean(decay=0.5)
    alone(None, credit, x)
    sent = []

    def process(part, share, others):
        model, engine = nn.Module(), SimpleNamespace(sum=lambda flat: sent.append(flat) or flat + others)
        model.control = RunningMean(decay=0.5)
        model.control(None, part, torch.zeros_like(part))
        total = torch.zeros(())
        trainer = SimpleNamespace(model=model, engine=engine, groups={"all": []})
        Trainer._sum_over_processes(trainer, total, share)
        return model.control

    process(credit[:, :3], 0.75, 0.0)
    found = process(credit[:, 3:], 0.25, sent[0])
    assert found.mean.item() == pytest.approx(alone.mean.item())
    assert found.weight.item() == pytest.approx(alone.weight.item())


def test_a_control_variate_of_a_frozen_posterior_leaves_the_decoder_its_gradient():
    draw = Rebar()
    control = draw.parameters_for(2, 2)
    mean = torch.zeros(2, requires_grad=True)
    z = draw.informed(control, torch.zeros(5, 2))("z", Bernoulli(PRIOR), Bernoulli(LOGITS.repeat(5, 1)))
    losses = ELBO()(Trace(Normal(mean.expand(3, 5, 2), torch.zeros(())), (z,)), torch.ones(5, 2)).losses
    (found,) = torch.autograd.grad(losses["generative"], mean)
    assert found.tolist() == [-1.0, -1.0]
    assert set(losses) == {"generative"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "vae objective=sleep penalty=dip",
            "objective=sleep with penalty=dip: the sleep phase sees samples of the model",
        ),
        (
            "vae objective=sleep draw.samples=7",
            "draw.samples=7 with objective=sleep: one sample of the model is drawn for each",
        ),
        ("rws draw.samples=1 sleep_weight=0", "a single weight is 1, which teaches q nothing"),
        ("miwae groups=7", "objective.groups=7 does not divide draw.samples=64"),
        (
            "sbn prior=categorical prior.classes=5 posterior=categorical posterior.classes=5 latent=10 "
            "upper_latents=[7]",
            "latent=7 is no multiple of classes=5",
        ),
        ("nvil draw=enumerate latent=14", "16,384 states of 100 examples at once; use train.batch_size=64 or less"),
        ("vae model=chain posterior=delta", "model=chain with posterior=delta: p of a lower level would be a point"),
    ],
)
def test_settings_that_would_do_nothing_are_refused_before_anything_is_built(settings, message):
    recipe, *tokens = settings.split()
    with pytest.raises(CombinationError, match=message):
        configure(recipe, tokens=tokens)


@pytest.mark.parametrize(
    ("settings", "who"),
    [
        ("nvil objective=iwae draw=enumerate latent=6", "the encoder"),
        ("nvil objective=log-likelihood draw=enumerate latent=6", "the encoder"),
        ("vae model=discrete-continuous draw=mixed objective=iwae", "the posterior of the summed latent"),
    ],
)
def test_a_posterior_that_a_sum_leaves_out_is_named(settings, who):
    recipe, *tokens = settings.split()
    assert f"so {who} learns nothing" in "".join(biases(configure(recipe, tokens=tokens)))
    others = [token for token in tokens if not token.startswith("objective")]
    assert not biases(configure(recipe, tokens=[*others, "objective=elbo"]))


@pytest.mark.parametrize(
    "settings",
    [
        "draw=detached objective=wake-sleep",
        "draw=detached objective=rws draw.samples=3",
        "draw=score objective=iwae draw.samples=3 draw.baseline=leave-one-out",
    ],
)
def test_a_joint_model_learns_without_a_path_through_either_latent(settings):
    """A discrete and a continuous latent, both scored or dreamt: every parameter of p and q has a gradient."""
    config = configure("vae", tokens=["model=discrete-continuous", "model.states=3", "latent=2", *settings.split()])
    torch.manual_seed(0)
    model = config.model.build(config, Shapes((4,), 2))
    x = torch.bernoulli(torch.full((6, 4), 0.5))
    losses = config.objective(*config.objective.observe(model, x, config.draw)).losses
    for group in ("generative", "inference"):
        parameters = model.groups()[group]
        loss = losses.get(group, losses.get("all"))
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        assert all(g is not None and g.abs().sum() > 0 for g in found)


def test_evaluation_holds_few_examples_with_all_their_states():
    config = configure("nvil", tokens=["draw=enumerate", "latent=8"])
    model = config.model.build(config, Shapes((4,), 8))
    x, rows = torch.zeros(3000, 4), []
    model.likelihood.register_forward_hook(lambda module, given, out: rows.append(given[0].shape[:2].numel()))
    found = bounds(model, lambda start, stop: (x[start:stop], None), len(x), draw=config.draw)
    assert max(rows) <= 32 * 2**8
    assert found.iwae_kind == "exact"
    assert found.iwae.std() < 1e-5
