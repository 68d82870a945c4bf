"""A compiled step trains as the plain one does, only where it is worth a compilation, and is never another function."""

import shutil

import pytest
import torch

import lambent
from lambent.config import settings_of_tokens
from lambent.errors import CombinationError, NumericsError
from lambent.priors.base import AdaptivePriorModule
from lambent.training import compiled

SMALL = {
    "encoder__hidden": [8],
    "decoder__hidden": [8],
    "latent": 2,
    "batch_size": 400,
    "threads": 1,
    "monitor_examples": 0,
}


def train(*tokens: str, recipe: str = "vae", epochs: int = 3, **settings):
    settings = {**SMALL, **settings}
    return lambent.fit(recipe, epochs=epochs, quiet=True, **settings_of_tokens(tokens), **settings)


def rows(run) -> list[tuple[int, float]]:
    return [(row["step"], row["train"]["bound"]) for row in run.history if "train" in row]


@pytest.fixture
def interpreted(monkeypatch) -> list:
    """Functions that were to be compiled, which stay as they are: with no compiler, and in no time."""
    asked = []

    def stay(function, **options):
        assert options["fullgraph"]
        assert options["options"] == {"fallback_random": True}
        asked.append(function)
        return function

    monkeypatch.setattr(torch, "compile", stay)
    return asked


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles by g++ on a CPU")
def test_a_compiled_training_is_the_plain_one():
    plain, fast = train("log_every=1000"), train("log_every=1000", "train.compile=true")
    for a, b in zip(plain.model.parameters(), fast.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    moved = train("log_every=1000", "seed=1")
    assert (
        max((a - b).abs().max() for a, b in zip(plain.model.parameters(), moved.model.parameters(), strict=True)) > 1e-2
    )


def test_it_is_compiled_once_and_small_batches_and_logged_steps_are_plain(interpreted):
    """Of 1,437 examples in batches of 400 the fourth is smaller."""
    plain, run = train("log_every=5"), train("log_every=5", "train.compile=true")
    assert len(interpreted) == 1
    assert rows(plain) == rows(run)
    assert len(rows(run)) == 2
    for a, b in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_is_compiled_when_the_warm_up_is_over(interpreted):
    plain, run = (train("rate=warm-up", "rate.steps=4", f"train.compile={on}") for on in ("false", "true"))
    assert len(interpreted) == 1
    for a, b in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_ends_in_the_same_weights(interpreted, tmp_path):
    whole = train("train.compile=true", out=tmp_path / "whole", epochs=4)
    train("train.compile=true", "train.steps=6", out=tmp_path / "part", epochs=4)
    recipe = tmp_path / "part" / "recipe.toml"
    recipe.write_text((tmp_path / "whole" / "recipe.toml").read_text())
    again = train("train.compile=true", out=tmp_path / "part", epochs=4, resume=True)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fault", ["loss", "bound", "noise", "gradient"])
def test_another_function_is_caught(monkeypatch, fault):
    def wrong(function, **options):
        def call(x, condition):
            if fault == "noise":
                torch.randn(1)
            value, losses, kind = function(x, condition)
            if fault == "bound":
                value = value + 1.0
            if fault == "loss":
                losses = {"all": 1.01 * losses["all"]}
            if fault == "gradient":  # the number is right, its derivative is not
                losses = {"all": losses["all"].detach() + 1.01 * (losses["all"] - losses["all"].detach())}
            return value, losses, kind

        return call

    monkeypatch.setattr(torch, "compile", wrong)
    with pytest.raises(NumericsError, match="the compiled step is another function"):
        train("train.compile=true")


def test_what_torch_cannot_compile_is_refused(monkeypatch):
    def broken(function, **options):
        def call(x, condition):
            raise RuntimeError("no compiler\nand many lines more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        CombinationError, match=r"can't compile this model here \(no compiler\); use train.compile=false"
    ):
        train("train.compile=true")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("nvil", "doesn't go with draw=score"),
        ("iwae-dreg", "doesn't go with draw=dreg"),
        ("em-ppca", "schedule=em has no gradient steps"),
        ("vq-vae-ema", "train.compile=true"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(interpreted, recipe: str, message: str):
    with pytest.raises(CombinationError, match=message):
        lambent.fit(recipe, "digits", epochs=1, quiet=True, **settings_of_tokens(("train.compile=true",)))
    assert not interpreted


def test_models_that_learn_from_their_traces_are_refused():
    class Following(AdaptivePriorModule):
        def initialise(self, z):
            """Starts from values."""

        def update_buffers(self, value, total):
            """Moves with the values."""

    run = train(epochs=0)
    run.model.prior = Following()
    with pytest.raises(CombinationError, match="also learns from what it drew"):
        compiled.Compiled(run.model, list(run.model.parameters()), "float32")


@pytest.mark.parametrize(("share", "refused"), [(5e-4, False), (2e-2, True)])
def test_every_parameter_is_held_to_its_own_gradient(share: float, refused: bool):
    """A parameter whose gradient is a thousandth of the others' is off by a share of its own."""
    run = train(epochs=0)
    held = compiled.Compiled(run.model, list(run.model.parameters()), "float32")
    truth = [torch.ones(4), torch.full((4,), 1e-3)]
    found = [truth[0], truth[1] * (1 + share)]
    if refused:
        with pytest.raises(NumericsError, match="another function"):
            held._require_same(truth, found)
    else:
        held._require_same(truth, found)


def test_what_is_not_finite_is_not_the_same():
    run = train(epochs=0)
    held = compiled.Compiled(run.model, list(run.model.parameters()), "float32")
    with pytest.raises(NumericsError, match="another function"):
        held._require_same([torch.ones(2)], [torch.tensor([1.0, float("nan")])])
