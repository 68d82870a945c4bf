"""Densities from `fit` to use: trained, resumed with their orderings, given labels, refused what they lack."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from lambent import fit, load
from lambent.errors import CombinationError, ConfigError
from lambent.runs.export import write_encodings, write_interpolations, write_reconstructions, write_samples
from lambent.storage import checkpoint

MIXED = {"hidden": (40,), "ordering": "random", "masks": 3, "threads": 1}


def independent(x, test):
    """Mean log p of a Bernoulli for each pixel by itself, fitted to ``x``."""
    mean = (x.sum(0) + 0.5) / (len(x) + 1)
    return torch.distributions.Bernoulli(mean).log_prob(test).flatten(1).sum(1).mean().item()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("made", {}),
        ("nade", {"hidden_dim": 100, "lr": 0.01}),
        ("made", {"direct_connections": False, "ordering": "natural"}),
    ],
)
def test_what_the_digits_pixels_tell_of_each_other_is_learnt(recipe, settings):
    run = fit(recipe, "digits", epochs=30, data__binarize="static", threads=1, quiet=True, **settings)
    found = run.evaluate()
    view = run.prepare("digits", "train")
    x, test = (v.batch(torch.arange(len(v))) for v in (view, run.prepare()))
    assert found.log_likelihood.value > independent(x, test) + 2.5
    assert (found.elbo.kind, found.log_likelihood.kind, found.iwae) == ("exact", "exact", None)
    assert found.elbo.value == pytest.approx(found.log_likelihood.value, abs=1e-5)
    assert (found.rate.value, found.active_units, found.latent) == (0, 0, 0)
    assert found.bits_per_dim == pytest.approx(-found.log_likelihood.value / (64 * np.log(2)))


def test_a_run_keeps_its_orderings(tmp_path):
    run = fit("made", "digits", epochs=2, out=tmp_path / "run", quiet=True, **MIXED)
    x = run.prepare().batch(torch.arange(50))
    opened = load(tmp_path / "run", device="cpu")
    with torch.inference_mode():
        assert torch.equal(opened.model.log_prob(x), run.model.log_prob(x))
    orders = opened.model.likelihood.decoder.order
    assert len(orders.unique(dim=0)) == 3
    assert torch.equal(orders.sort(1).values, torch.arange(64).expand(3, -1))
    kinds = {row[part]["kind"] for row in opened.history for part in ("train", "valid") if part in row}
    assert kinds == {"exact"}  # no training line in so few steps


def test_training_orderings_by_turns_resumes_to_the_same_bytes(tmp_path):
    given = {
        **MIXED,
        "train__steps": 60,
        "checkpoint_every": 20,
        "log_every": 7,
        "train__keep_checkpoints": 5,
        "quiet": True,
    }
    whole, part = tmp_path / "whole", tmp_path / "part"
    run = fit("made", "digits", out=whole, **given)
    assert {row["train"]["kind"] for row in run.history if "train" in row} == {"lower bound"}
    shutil.copytree(whole, part)
    for step in checkpoint.steps(part):
        if step > 20:
            shutil.rmtree(checkpoint.path_of(part, step))
    fit("made", "digits", out=part, resume=True, **given)
    digests = [
        hashlib.sha256((checkpoint.path_of(folder, 60) / "model.safetensors").read_bytes()).hexdigest()
        for folder in (whole, part)
    ]
    assert digests[0] == digests[1]
    assert (whole / "metrics.jsonl").read_bytes() == (part / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def labelled():
    return fit("made", "digits", epochs=30, data__condition="labels", data__binarize="static", threads=1, quiet=True)


def test_samples_given_a_label_look_like_its_examples(labelled, tmp_path):
    view = labelled.prepare("digits", "train")
    x, labels = view.batch(torch.arange(len(view))).flatten(1), view.dataset.labels
    means = torch.stack([x[labels == k].mean(0) for k in range(10)])
    write_samples(labelled, 300, tmp_path / "x.npz", label="3")
    drawn = torch.from_numpy(np.load(tmp_path / "x.npz")["x"]).float().flatten(1)
    assert (drawn - means[3]).mean(0).abs().mean() < 0.1
    nearest = torch.cdist(drawn.mean(0, keepdim=True), means).argmin()
    assert nearest == 3
    own = labelled.evaluate().log_likelihood.value
    given = labelled.prepare()
    wrong = (given.condition(torch.arange(len(given)))).roll(1, 1)
    with torch.inference_mode():
        other = labelled.model.log_prob(given.batch(torch.arange(len(given))), wrong).mean().item()
    assert other < own - 1


def test_what_needs_latents_is_refused(labelled, tmp_path):
    for write in (write_encodings, write_reconstructions):
        with pytest.raises(ConfigError, match="no latents, so nothing to encode"):
            write(labelled, "digits", tmp_path / "x.npz")
    with pytest.raises(ConfigError, match="no latents to go between"):
        write_interpolations(labelled, "digits", tmp_path / "x.npz")
    with pytest.raises(ConfigError, match="its mean has no closed form; draw samples"):
        write_samples(labelled, 3, tmp_path / "x.npz", mean=True)
    with pytest.raises(ConfigError, match="nothing to decode"):
        labelled.decode(torch.zeros(2, 0))


def test_modules_of_the_user_are_refused_where_they_would_do_nothing():
    with pytest.raises(CombinationError, match="model=density with encoder=user: it has no latents; leave encoder out"):
        fit("made", "digits", encoder=nn.Linear(64, 3), quiet=True)
    with pytest.raises(CombinationError, match=r"model=density with decoder=user: .*; use decoder=made"):
        fit("made", "digits", decoder=nn.Linear(0, 64), quiet=True)
