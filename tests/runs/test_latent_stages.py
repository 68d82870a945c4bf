"""An autoencoder of continuous latents, then a learned prior of any kind: what each stage moves, and what it gains."""

import math
import shutil

import pytest
import torch

from lambent import fit, load
from lambent.errors import CheckpointError, CombinationError, ConfigError
from lambent.evaluation.bounds import bounds
from lambent.recipes import configure
from lambent.runs.stages import stages_of
from lambent.storage import checkpoint

NETS = {"encoder__hidden": [16], "decoder__hidden": [16]}
SMALL = {**NETS, "latent": 3, "batch_size": 100, "threads": 1, "checkpoint_every": 5, "quiet": True}
PRIORS = {
    "latent-diffusion": {
        "prior__hidden_dim": 16,
        "prior__blocks": 1,
        "prior__sampling_steps": 5,
        "prior__eval_timesteps": 4,
    },
    "autoregressive-flow": {"prior__hidden": [8]},
    "mixture": {"prior__components": 3},
}


def fitted(out, prior, **settings):
    given = {**SMALL, **PRIORS[prior], **settings}
    return fit("vae", "digits", out=out, prior=prior, schedule="two-stage", epochs=2, autoencoder_epochs=3, **given)


@pytest.fixture(scope="module", params=PRIORS)
def run(request, tmp_path_factory):
    return request.param, fitted(tmp_path_factory.mktemp("stages") / "run", request.param)


def test_the_second_stage_moves_the_prior_and_nothing_else(run):
    folder = run[1].folder.path
    first, second = load(folder / "autoencoder").model.state_dict(), checkpoint.newest(folder).tensors["model"]
    assert first.keys() < second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    early = checkpoint.load(checkpoint.path_of(folder, min(checkpoint.steps(folder)))).tensors["model"]
    moved = {name for name in second if not torch.equal(early[name], second[name])}
    assert moved
    assert all(name.startswith("prior.") for name in moved)
    assert not moved & {"prior.centre", "prior.square"}, "the latents stand still, and so do their moments"


def test_a_run_stopped_in_the_second_stage_goes_on_to_the_same_bytes(run, tmp_path):
    name, whole = run
    copy = tmp_path / "run"
    shutil.copytree(whole.folder.path, copy)
    shutil.rmtree(checkpoint.path_of(copy, max(checkpoint.steps(copy))))
    fitted(copy, name, resume=True)
    expected, found = (checkpoint.newest(at).tensors["model"] for at in (whole.folder.path, copy))
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert (copy / "metrics.jsonl").read_bytes() == whole.folder.metrics.read_bytes()


def test_its_numbers_are_bounds_and_samples_come_through_the_prior(run):
    name, whole = run
    found = whole.evaluate(samples=5).to_dict()
    assert found["elbo"]["kind"] == "lower bound"
    assert found["elbo"]["value"] == pytest.approx(-found["rate"] - found["distortion"], rel=1e-6)
    assert ("iwae_5" in found) == (name != "latent-diffusion")
    assert found.get("rate_kind") == (None if name != "latent-diffusion" else "upper bound")
    assert torch.equal(whole.sample(4, seed=1), whole.sample(4, seed=1))
    if name != "latent-diffusion":
        with pytest.raises(ConfigError, match="only a diffusion has levels"):
            whole.sample(4, steps=3)
    else:
        assert not torch.equal(whole.sample(4, seed=1), whole.sample(4, seed=1, steps=50, noise=0.0))


def test_the_second_stage_starts_from_the_moments_of_the_latents(run):
    name, whole = run
    if name != "latent-diffusion":
        return
    z = whole.encode("digits", seed=1, split="train")
    p = whole.model.prior(None)
    assert torch.allclose(p.loc, z.mean(0), atol=0.15)
    assert torch.allclose(p.log_scale.exp(), z.std(0), rtol=0.1)


def ring(n, seed):
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return (points + 0.05 * torch.randn(n, 2, generator=generator)).numpy()


@pytest.mark.parametrize("prior", ["latent-diffusion", "autoregressive-flow"])
def test_latents_on_a_ring_cost_fewer_nats_under_a_learned_prior(prior, tmp_path):
    """By the paired differences of the two stages' ELBOs on fresh points."""
    settings = {**SMALL, "latent": 2, "rate": "beta", "rate__beta": 0.05, "sigma": 0.1, "lr": 5e-3}
    own = {"latent-diffusion": {"prior__hidden_dim": 32, "prior__blocks": 2}}.get(prior, {"prior__kind": "spline"})
    out, data = tmp_path / "run", {"data__scale": "none", "validate_every": 20, "checkpoint_every": 1000}
    stages = {"schedule": "two-stage", "autoencoder_epochs": 20, "epochs": 25}
    second = fit("gaussian-vae", ring(1000, 0), out=out, prior=prior, **{**settings, **own, **data, **stages})
    x = torch.from_numpy(ring(1000, 1))
    elbos = [
        bounds(model, lambda a, b: (x[a:b], None), len(x), samples=16, seed=3).elbo
        for model in (load(out / "autoencoder").model, second.model)
    ]
    gain = elbos[1] - elbos[0]
    z = gain.mean() / (gain.std() / math.sqrt(len(gain)))
    print(f"{prior}: {elbos[0].mean():.3f} -> {elbos[1].mean():.3f} nats, z = {z:.1f}")
    assert z > 5
    assert gain.mean() > 0.2


def test_a_prior_alone_is_charged_what_it_costs_whatever_the_rate_function():
    config = configure("vae", tokens=("prior=mixture", "schedule=two-stage", "rate=beta"))
    first, second = stages_of(config)
    assert (first.objective.rate.beta, type(second.objective.rate).__name__) == (4.0, "SumOfRates")
    assert stages_of(second) == (first, second), "what a run records gives its two stages again"


def test_what_the_first_stage_is_trained_under():
    def of(*tokens):
        return [
            type(stage.prior).__name__ for stage in stages_of(configure("vae", tokens=("schedule=two-stage", *tokens)))
        ]

    assert of("prior=latent-diffusion") == ["NormalPrior", "LatentDiffusionPrior"]
    assert of("prior=latent-diffusion", "schedule.autoencoder_prior=mixture") == [
        "MixturePrior",
        "LatentDiffusionPrior",
    ]
    assert of("prior=mixture", "schedule.autoencoder_prior=mixture") == ["MixturePrior"]
    assert of("prior=normal") == ["NormalPrior"]
    assert of("prior=ar1") == ["AR1Prior"]


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ("prior=diffusion with posterior=normal: .* use prior=latent-diffusion", {"prior": "diffusion"}),
        ("prior='nothing' is not known", {"prior": "mixture", "schedule__autoencoder_prior": "nothing"}),
        ("against continuous latents", {"prior": "mixture", "schedule__autoencoder_prior": "uniform"}),
        ("objective=iwae with prior=latent-diffusion", {"objective": "iwae", "samples": 2}),
    ],
)
def test_what_can_not_be_is_refused_before_the_first_step(said, settings, tmp_path):
    with pytest.raises((CombinationError, ConfigError), match=said):
        fit(
            "vae",
            "digits",
            out=tmp_path / "run",
            quiet=True,
            **{"schedule": "two-stage", "prior": "latent-diffusion", **settings},
        )
    assert not (tmp_path / "run").exists()


def test_a_frozen_autoencoder_must_come_from_somewhere_and_fit(run, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.init=RUN.*or schedule=two-stage"):
        fit("vae", "digits", prior="mixture", freeze="autoencoder", **SMALL)
    init = str(run[1].folder.path / "autoencoder")
    other = fit("vae", "digits", prior="mixture", freeze="autoencoder", init=init, epochs=1, **SMALL)
    first = load(init).model.state_dict()
    assert all(torch.equal(first[name], other.model.state_dict()[name]) for name in first)
    with pytest.raises((CheckpointError, ConfigError), match=r"encoder\.hidden"):
        fit(
            "vae",
            "digits",
            prior="mixture",
            freeze="autoencoder",
            init=init,
            epochs=1,
            **{**SMALL, "encoder__hidden": [9]},
        )


@pytest.mark.parametrize("model", ["chain", "ladder"])
def test_the_top_prior_of_several_levels_learns_by_itself_too(model, tmp_path):
    settings = {**SMALL, **PRIORS["mixture"], "model": model, "epochs": 1, "out": tmp_path / "run"}
    second = fit("vae", "digits", prior="mixture", schedule="two-stage", **settings).model.state_dict()
    first = load(tmp_path / "run" / "autoencoder").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name for name in second if name not in first} == {"prior.logits", "prior.loc", "prior.raw_scale"}


def test_together_with_its_encoder_a_diffusion_prior_follows_the_latents():
    run = fit("vae", "digits", prior="latent-diffusion", epochs=3, **SMALL, **PRIORS["latent-diffusion"])
    assert run.model.prior.seen > 30
    bounds_ = [row["valid"]["bound"] for row in run.history if "valid" in row]
    assert bounds_[-1] > bounds_[0]
    z = run.encode("digits", seed=1, split="train")
    assert torch.allclose(run.model.prior(None).log_scale.exp(), z.std(0), rtol=0.3)
