"""What must hold of who is updated when; each check raises AssertionError."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lambent.draws import Pathwise
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.models import VAE
from lambent.networks import MLPEncoder, UserDecoder
from lambent.objectives import ELBO
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.seeds import derive
from lambent.shapes import Shapes
from lambent.training.engine import Engine
from lambent.training.listener import Diagnostics, Listener
from lambent.training.loop import Trainer
from lambent.training.options import TrainOptions
from lambent.training.progress import Validation
from lambent.training.schedule import AggressiveEncoder, AlternatingUpdates, JointUpdates
from support.batches import Rows

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
BATCH = 12
SIDES = ("generative", "inference")


class Watch(Listener):
    """Writes down which tensors of each side changed at each step."""

    def __init__(self):
        self.moved, self.rows = [], []

    def follow(self, trainer):
        self.trainer, self.before = trainer, copy.deepcopy(trainer.model.state_dict())
        self.names = {
            side: [n for n, p in trainer.model.named_parameters() if any(p is q for q in params)]
            for side, params in trainer.model.groups().items()
        }

    def interrupted(self):
        now = copy.deepcopy(self.trainer.model.state_dict())
        changed = {n for n in now if not torch.equal(now[n], self.before[n])}
        self.before = now
        self.moved.append(tuple(side for side in SIDES if changed & set(self.names[side])))
        return 0

    def record(self, row):
        self.rows.append(dict(row))
        return 0


def model_of(normalised=False):
    """A small VAE, its decoder with batch norm if asked for."""
    torch.manual_seed(1)
    shapes, layers = Shapes((4,), 2), [nn.Linear(2, 5)] + [nn.BatchNorm1d(5), nn.Dropout(0.5)] * normalised
    decoder = UserDecoder(nn.Sequential(*layers, nn.Linear(5, 4))).build(2, (1, 4))
    encoder = MLPEncoder(hidden=(6,)).build((4,))
    likelihood = LikelihoodModule(NormalLikelihood(), decoder, shapes)
    return VAE(NormalPriorModule(2), AmortisedPosteriorModule(NormalPosterior(), encoder, 2), likelihood)


def trained(updates, steps, *, model=None, information=None, cls=Trainer, **options):
    """A trainer after ``steps`` steps, and what was seen."""
    settings = TrainOptions(**{"steps": steps, "weight_decay": 0.1, "lr": 0.01, "log_every": 1, **options})
    watch = Watch()
    nothing = Validation(0.0, 0.0, "lower bound", 0.0, 0.0, 1)
    trainer = cls(
        model_of() if model is None else model,
        ELBO(),
        Pathwise(),
        Rows(X, BATCH),
        settings,
        Engine(torch.device("cpu")),
        Diagnostics(lambda model: nothing, information),
        updates,
    )
    watch.follow(trainer)
    trainer.run(watch)
    return trainer, watch


def assert_same(expected, found):
    for name, value in expected.items():
        assert torch.equal(value, found[name]), f"{name} differs by {(value - found[name]).abs().max():.3g}"


def by_hand(turns, model, **options):
    """Plain AdamW: at each step the gradients of the groups in that turn, and no others."""
    settings = TrainOptions(**options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    groups = model.groups()
    for step, turn in enumerate(turns):
        torch.manual_seed(derive(0, "training step", step, 0))
        optimizer.zero_grad(set_to_none=True)
        x, _ = Rows(X, BATCH).at(step)
        trace = model(x, Pathwise())
        (-trace.average(trace.log_px(x) - trace.rate).mean()).backward()
        for side in set(SIDES) - set(turn):
            for parameter in groups[side]:
                parameter.grad = None
        optimizer.step()
    return model


def alternates(generative=2, inference=3, cls=Trainer):
    """The turns are as asked, exactly, and every value is that of the loop written out."""
    turns = ([("generative",)] * generative + [("inference",)] * inference) * 3
    trainer, watch = trained(AlternatingUpdates(generative, inference), len(turns), cls=cls)
    assert watch.moved == turns, watch.moved
    torch.manual_seed(1)
    expected = by_hand(turns, model_of(), weight_decay=0.1, lr=0.01)
    assert_same(expected.state_dict(), trainer.model.state_dict())


def together_is_plain(cls=Trainer):
    """Every group at every step, to the last bit."""
    trainer, watch = trained(JointUpdates(), 8, cls=cls)
    assert watch.moved == [SIDES] * 8
    assert_same(by_hand([SIDES] * 8, model_of(), weight_decay=0.1, lr=0.01).state_dict(), trainer.model.state_dict())


def encoder_leads(updates=None):
    """Inner steps leave p as it is; the outer step leaves q as it is; once off, both move for good."""
    told = iter([0.5, 0.9, 0.7])
    updates = updates or AggressiveEncoder(window=2, inner_steps=4, measure_every=2)
    trainer, watch = trained(updates, 60, information=lambda model: next(told))
    outer = [i for i, moved in enumerate(watch.moved) if moved == ("generative",)]
    assert len(outer) == 6, watch.moved
    for first, last in zip([-1, *outer], outer, strict=False):
        inner = watch.moved[first + 1 : last]
        assert set(inner) == {("inference",)}, inner
        assert len(inner) in (2, 4)
    assert set(watch.moved[outer[-1] + 1 :]) == {SIDES}
    assert not trainer.progress.phase.leading
    assert trainer.progress.phase.information == 0.9
    rows = [row for row in watch.rows if "train" in row]
    assert rows[outer[-1]]["schedule"] == {"leading": False, "generative": 6, "information": 0.9}


def holds(side, cls=Trainer):
    """A frozen side is the same to the last bit, with weight decay, batch norm and an average; the other moves."""
    model = model_of(normalised=True)
    before = copy.deepcopy(model.state_dict())
    asked = [p.requires_grad for p in model.parameters()]
    trainer, _ = trained(JointUpdates(), 7, model=model, cls=cls, freeze=side, ema=100.0)
    part = {"generative": "likelihood", "inference": "posterior"}
    held = {n: v for n, v in before.items() if n.startswith(part[side])}
    free = {n for n in before if n not in held}
    assert_same(held, model.state_dict())
    assert_same(held, trainer.average.model.state_dict())
    assert free
    assert all(not torch.equal(before[n], model.state_dict()[n]) for n in free)
    assert [p.requires_grad for p in model.parameters()] == asked
