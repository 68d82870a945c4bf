"""The benchmark's own figures against closed forms and enumeration, and the faults that it must not have."""

import json
import math

import pytest
import torch

import lambent
from lambent.cli.app import run
from lambent.config import settings_of_tokens
from lambent.errors import ConfigError
from lambent.gradients.compare import compare_gradients
from lambent.gradients.moments import Bias, MeanVector, Moments

RUNS = 24
TARGET, START = torch.tensor([5.0, 5.0]).double(), torch.zeros(2).double()
PATHWISE = 8.0
"""2 (z - c) has variance 4 in each of two dimensions."""


def score_variance(mean, dims=2):
    """Of (|z - c|^2 + log pi)(z - mu), z ~ N(mu, I), summed over dimensions, from the moments of |z - mu|^2.

    With r = |eps|^2, b = |mu - c|^2 + log pi: E[(r + b)^2 r] + 4 E[((mu - c)' eps)^2 r] - 4 |mu - c|^2.
    """
    far = float((mean - TARGET).square().sum())
    b = far + dims / 2 * math.log(math.pi)
    r1, r2, r3 = dims, dims * (dims + 2), dims * (dims + 2) * (dims + 4)
    return r3 + 2 * b * r2 + b * b * r1 + 4 * far * (dims + 2) - 4 * far


def toy(repetitions, seed, **kwargs):
    found = compare_gradients("toy-gradients", repetitions=repetitions, seed=seed, warm_up=0, **kwargs)
    return {row.name: row for row in found.rows}


def assert_mean(values, truth):
    values = torch.tensor(values, dtype=torch.float64)
    z = float((values.mean() - truth) / (values.std() / len(values) ** 0.5))
    assert abs(z) <= 5, f"mean {values.mean():.6g}, truth {truth:.6g}, z = {z:.1f}"


@pytest.fixture(scope="module")
def many():
    """Rows of many short comparisons of the toy problem."""
    return [toy(48, seed) for seed in range(RUNS)]


def test_the_toys_variances_are_the_closed_forms(many):
    assert_mean([rows["pathwise"].variance for rows in many], PATHWISE)
    assert_mean([rows["score baseline=none"].variance for rows in many], score_variance(START))


def test_the_closed_form_is_the_plain_simulations():
    eps = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = (START + eps - TARGET).square().sum(1, keepdim=True) + math.log(math.pi)
    found = (f * eps).var(0).sum()
    assert abs(float(found) / score_variance(START) - 1) < 0.02


def test_bias_is_none_on_average(many):
    for name in ("pathwise", "stl", "score baseline=none"):
        assert_mean([rows[name].bias.squared for rows in many], 0.0)
        assert max(abs(rows[name].bias.z) for rows in many) < 5


def vectors(n, dims, shift, seed):
    """Correlated normals of mean ``shift`` in their first dimension."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.5, 2, dims).double()
    noise = torch.randn(n, dims, generator=generator, dtype=torch.float64)
    mixed = noise * scale + noise.sum(1, keepdim=True) / dims
    mixed[:, 0] += shift
    covariance = torch.diag(scale) + torch.ones(dims, dims).double() / dims
    return mixed, covariance.T @ covariance


def biases(dims, shift, n=40, runs=300):
    found = []
    for seed in range(runs):
        moments, reference = Moments(), MeanVector(torch.zeros(dims).double())
        for i, vector in enumerate(vectors(n, dims, shift, seed)[0]):
            if i == n // 2:
                moments.look_along(reference)
            moments.add(vector)
        found.append(Bias.of(moments, reference))
    return found


def check_squared_bias(dims=5, shift=0.7):
    assert_mean([bias.squared for bias in biases(dims, 0.0)], 0.0)
    assert_mean([bias.squared for bias in biases(dims, shift)], shift**2)


def check_variance():
    found = []
    for seed in range(300):
        moments = Moments()
        drawn, covariance = vectors(6, 4, 1.0, seed)
        for vector in drawn:
            moments.add(vector)
        found.append(float(moments.variance.sum()))
    assert_mean(found, float(covariance.diagonal().sum()))


def test_streamed_moments_are_unbiased():
    check_squared_bias()
    check_variance()


@pytest.mark.parametrize(("dims", "shift", "most"), [(1, 0.0, 1.6), (20, 0.0, 1.4), (5, 0.5, 1.4), (5, 3.0, 1.2)])
def test_the_standard_error_of_the_squared_bias_is_its_spread(dims, shift, most):
    found = biases(dims, shift, n=200, runs=200)
    spread = torch.tensor([bias.squared for bias in found]).std()
    claimed = torch.tensor([bias.se for bias in found]).square().mean().sqrt()
    assert 0.8 < float(claimed / spread) < most


@pytest.mark.parametrize("dims", [1, 2, 20])
def test_z_is_about_standard_normal_without_bias_and_large_with_it(dims):
    z = torch.tensor([bias.z for bias in biases(dims, 0.0, n=200, runs=200)])
    assert abs(float(z.mean())) < 0.4
    assert 0.6 < float(z.std()) < 1.4
    assert float(z.max()) < 5
    assert min(bias.z for bias in biases(dims, 3.0, n=200, runs=20)) > 5


def test_noise_left_in_the_squared_bias_is_caught(monkeypatch):
    monkeypatch.setattr(Moments, "average", property(lambda self: MeanVector(self.mean)))
    with pytest.raises(AssertionError, match="z = "):
        check_squared_bias()


def test_a_variance_over_n_is_caught(monkeypatch):
    monkeypatch.setattr(Moments, "variance", property(lambda self: self._squares / self.count))
    with pytest.raises(AssertionError, match="z = "):
        check_variance()


@pytest.fixture(scope="module")
def enumerated():
    tokens = ("latent=3", "encoder=linear", "decoder=linear", "draw=score", "prior=bernoulli", "posterior=bernoulli")
    return compare_gradients("vae", settings=settings_of_tokens(tokens), batch_size=8, repetitions=300, warm_up=100)


def test_biased_draws_are_seen_against_the_exact_gradient_and_unbiased_ones_are_not(enumerated):
    assert enumerated.exact
    assert enumerated.reference == "enumerate"
    rows = {row.name: row for row in enumerated.side("inference")}
    assert {name for name, row in rows.items() if row.bias.z > 5} == {"gumbel", "st-gumbel", "straight-through"}
    assert all(bool(row.stated) == (row.bias.z > 5) for row in rows.values())
    assert rows["enumerate"].variance == 0


def test_controls_lower_the_variance_once_fitted(enumerated):
    rows = {row.name: row for row in enumerated.side("inference")}
    assert rows["rebar"].variance < 0.1 * rows["score baseline=running-mean"].variance
    assert rows["score baseline=learned"].variance < 0.1 * rows["score baseline=none"].variance


def test_a_bound_of_several_samples_is_held_to_a_long_run_and_not_to_another_bound():
    tokens = ("latent=2", "encoder=linear", "decoder=linear", "objective=iwae")
    found = compare_gradients(
        "vae", settings=settings_of_tokens(tokens), samples=5, batch_size=8, repetitions=200, warm_up=50
    )
    rows = {row.name: row for row in found.side("inference")}
    assert not found.exact
    assert found.reference_repetitions == 800
    assert 0 < found.reference_error["inference"] < 0.2
    assert rows["stl"].bias.z > 5
    assert max(rows[name].bias.z for name in ("pathwise", "dreg", "score baseline=leave-one-out")) < 5


def test_the_model_is_left_as_it_was_and_the_same_seed_gives_the_same_figures():
    trained = lambent.fit("nvil", latent=4, epochs=1, quiet=True)
    before = {k: v.clone() for k, v in trained.model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = (
        compare_gradients(trained, batch_size=8, repetitions=8, warm_up=3, samples=2, seed=4) for _ in range(2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert not trained.model.training
    after = trained.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [(row.name, row.variance, row.bias) for row in first.rows] == [
        (row.name, row.variance, row.bias) for row in again.rows
    ]


@pytest.mark.parametrize("draw", ["pathwise", "score"])
def test_the_toy_learns_its_point(draw):
    run = lambent.fit("toy-gradients", quiet=True, **settings_of_tokens((f"draw={draw}",)))
    mean = run.encode("point:5,5")[0].double()
    assert float((mean - TARGET).abs().max()) < 0.25


def call(capsys, *arguments):
    code = run(["gradients", *arguments])
    return code, capsys.readouterr()


def test_the_command_prints_a_table_and_json(capsys, tmp_path):
    picture = tmp_path / "deep" / "toy.svg"
    code, said = call(capsys, "toy-gradients", "--repetitions", "20", "--warm-up", "0", "--out", str(picture))
    assert code == 0
    assert "pathwise" in said.out
    assert "score baseline=none" in said.out
    assert "<svg" in picture.read_text()
    code, said = call(capsys, "toy-gradients", "--repetitions", "20", "--warm-up", "0", "--json")
    found = json.loads(said.out)
    assert code == 0
    assert found["exact"] is False
    assert found["repetitions"] == 20
    row = found["rows"][0]
    assert {"name", "side", "stated", "variance", "log_variance", "bias", "ms"} == set(row)
    assert {"squared", "se", "z", "relative", "relative_se"} == set(row["bias"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("toy-gradient",), "did you mean 'toy-gradients'?"),
        (("toy-gradients", "--repetitions", "3"), "variances need at least 8"),
        (("toy-gradients", "--samples", "0"), "samples=0: expected at least 1"),
        (("toy-gradients", "--batch-size", "0"), "batch_size=0: expected at least 1"),
        (("toy-gradients", "--out", "x.pdf"), "ends in .svg or .png"),
        (("toy-gradients", "draw=gumbel"), "continuous latents; use draw=pathwise"),
        (("vae", "draw=pathwse"), "did you mean 'pathwise'?"),
    ],
)
def test_what_the_command_refuses(capsys, arguments, says):
    code, said = call(capsys, *arguments)
    assert code == 2, said.err
    assert says in said.err


def test_of_a_run_only_the_gradient_can_be_changed(tmp_path):
    run = lambent.fit("toy-gradients", out=tmp_path / "run", quiet=True, **settings_of_tokens(("train.steps=2",)))
    found = compare_gradients(run.folder.path, settings=settings_of_tokens(("draw=score",)), repetitions=8, warm_up=0)
    assert found.title.endswith("draw=score (step 2) on point:5,5")
    with pytest.raises(ConfigError, match="model is fixed by the run"):
        compare_gradients(run.folder.path, settings=settings_of_tokens(("model.latent=3",)))
    with pytest.raises(ConfigError, match="a run is compared as it was trained"):
        compare_gradients(run, epochs=2)
