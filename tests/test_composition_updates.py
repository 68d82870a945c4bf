"""Every way of updating with every kind of system: it moves the side whose turn it is, or is refused by name."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from lambent.config import check
from lambent.errors import CombinationError
from lambent.runs.monitors import information
from lambent.settings import registry
from lambent.training.em.em import maximiser
from lambent.training.engine import Engine
from lambent.training.listener import Diagnostics, Listener
from lambent.training.loop import Trainer
from lambent.training.options import TrainOptions
from lambent.training.progress import Validation
from lambent.training.schedule import AggressiveEncoder, AlternatingUpdates
from support.batches import Rows
from support.composition import B, built, config_of, legal

STEPS = 6
UPDATES = {
    "alternating": AlternatingUpdates(),
    "aggressive-encoder": AggressiveEncoder(window=2, inner_steps=2),
}
SIDES = ("generative", "inference")


@functools.cache
def systems():
    """One legal combination for each model, posterior, objective and draw, its prior the first that goes with them."""
    found = {}
    for names in legal():
        found.setdefault(tuple(names[k] for k in ("model", "posterior", "objective", "draw")), names)
    return [{**names, "likelihood": "normal"} for names in found.values()]


class Moves(Listener):
    """Which groups changed at each step."""

    def __init__(self):
        self.moved = []

    def look(self):
        return {name: [p.detach().clone() for p in params] for name, params in self.model.groups().items() if params}

    def follow(self, model):
        self.model = model
        self.before = self.look()

    def interrupted(self):
        now = self.look()
        pairs = {name: zip(now[name], self.before[name], strict=True) for name in now}
        self.moved.append({name for name, both in pairs.items() if any(not torch.equal(a, b) for a, b in both)})
        self.before = now
        return 0


def moves(config):
    """The groups that moved at each of a few steps of the real trainer."""
    model, x, condition = built(config, "normal")
    watch, engine = Moves(), Engine(torch.device("cpu"))
    watch.follow(model)
    trainer = Trainer(
        model,
        config.objective,
        config.drawing,
        Rows(x, B, condition),
        TrainOptions(steps=STEPS, lr=1e-2, log_every=1),
        engine,
        Diagnostics(
            lambda m: Validation(0.0, 0.0, "lower bound", 0.0, 0.0, B),
            lambda m: information(m, lambda a, b: (x[a:b], None), B, seed=0, device=engine.device),
        ),
        config.schedule,
    )
    trainer.run(watch)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    return watch.moved


TURNS = {
    "alternating": [{"generative"}, {"inference"}] * (STEPS // 2),
    "aggressive-encoder": [{"inference"}, {"inference"}, {"generative"}],  # then the first measure is made
}


def said_against(config):
    """None where the combination is legal, else what is said against it."""
    try:
        check(config)
        if config.schedule.closed_form:
            maximiser(built(config, "normal")[0])
    except CombinationError as error:
        return str(error)
    return None


def of(names, name):
    return dataclasses.replace(config_of(**names), schedule=UPDATES.get(name, registry.find("schedule", name)()))


@functools.cache
def together():
    """What moves at all in each system."""
    return [(names, moves(of(names, "joint"))) for names in systems()]


def test_together_moves_the_same_at_every_step():
    for names, moved in together():
        assert all(m == moved[0] for m in moved), names
        assert moved[0] & set(SIDES), names
    assert sum(moved[0] >= set(SIDES) for _, moved in together()) >= 50


@pytest.mark.parametrize("name", ["alternating", "aggressive-encoder"])
def test_each_system_moves_the_side_whose_turn_it_is_and_critics_always(name):
    tried, refused = 0, 0
    for names, moved in together():
        config, whole = of(names, name), moved[0]
        said = said_against(config)
        if said is not None:
            assert f"schedule={name}" in said, said
            assert "; use " in said, said
            refused += 1
            continue
        if config.schedule.informed and names["prior"] == "conditional-normal":
            continue
        assert whole >= set(SIDES), f"{names}: a side never moves, and should be refused its turn"
        for turn, found in zip(TURNS[name], moves(config), strict=False):
            assert found == turn | (whole - set(SIDES)), f"{names}: {found} moved, and it was the turn of {turn}"
        tried += 1
    print(f"schedule={name}: {tried} systems, {refused} refused")
    assert tried >= 20
    assert refused > 0


def test_em_solves_what_has_a_closed_form_and_refuses_the_rest_by_name():
    solved = set()
    for names in systems():
        config = of(names, "em")
        said = said_against(config)
        if said is not None:
            assert "schedule=em" in said, said
            assert "; use " in said, said
            continue
        assert all(found == {"generative"} for found in moves(config)[:2])
        solved.add(names["model"])
    assert solved == {"mixture"}  # PPCA needs posterior.shared, a setting of its own: test_maximise
