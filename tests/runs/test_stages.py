"""An autoencoder, then a prior over its codes: what each stage moves, what it leaves, how it is resumed and used."""

import shutil

import numpy as np
import pytest
import torch

from lambent import fit, load
from lambent.config.rules import biases
from lambent.errors import CombinationError, ConfigError
from lambent.recipes import configure
from lambent.runs.export import write_encodings, write_interpolations, write_reconstructions, write_samples
from lambent.runs.stages import stages_of
from lambent.storage import checkpoint
from lambent.storage.metrics import read_metrics
from support.listening import Heard, fit_heard

SMALL = {
    "prior": "transformer",
    "prior__model_dim": 16,
    "prior__layers": 1,
    "prior__heads": 2,
    "codebook_size": 24,
    "posterior__embedding_dim": 4,
    "encoder__smallest": 2,
    "decoder__smallest": 2,
    "encoder__channels": (8,),
    "decoder__channels": (8,),
    "epochs": 2,
    "batch_size": 50,
    "threads": 1,
    "checkpoint_every": 10,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("stages") / "run"
    fit("vq-vae-ema", "digits", out=out, quiet=True, **SMALL)
    return out


def tensors(path, step=None):
    found = checkpoint.newest(path) if step is None else checkpoint.load(checkpoint.path_of(path, step))
    return found.tensors["model"]


def test_the_second_stage_moves_the_prior_and_nothing_else(folder):
    first, second = tensors(folder / "autoencoder"), tensors(folder)
    assert first.keys() < second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first if not name.endswith("used"))
    steps = checkpoint.steps(folder)
    early = tensors(folder, min(steps))
    moved = [name for name in second if not torch.equal(early[name], second[name])]
    assert moved
    assert all(".prior." in name for name in moved)


def test_the_first_stage_has_a_uniform_prior_and_the_second_beats_it(folder):
    assert load(folder / "autoencoder").config.prior == configure("vq-vae-ema").prior
    rows = [
        [r["valid"] for r in read_metrics(at / "metrics.jsonl") if "valid" in r]
        for at in (folder / "autoencoder", folder)
    ]
    uniform, learned = (found[-1] for found in rows)
    assert uniform["rate"] == pytest.approx(4 * np.log(24), rel=1e-6)
    assert learned["rate"] < uniform["rate"]
    assert learned["distortion"] == pytest.approx(uniform["distortion"], rel=1e-6)
    assert 0 < uniform["codes"]["z"]["usage"] <= 1
    assert "codes" not in learned, "a frozen autoencoder's codes aren't counted"


def test_the_score_is_a_bound_with_its_codes_counted(folder):
    found = load(folder).evaluate(samples=50).to_dict()
    assert found["samples"] == 1, "a point posterior is drawn once"
    assert found["elbo"]["kind"] == "lower bound"
    assert found["elbo"]["value"] == pytest.approx(found["iwae_1"]["value"], abs=1e-5)
    assert found["bits_per_dim"] == pytest.approx(-found["elbo"]["value"] / (64 * np.log(2)), rel=1e-6)
    indices = load(folder).encode("digits").long()
    counts = torch.bincount(indices.flatten(), minlength=24).double()
    p = counts[counts > 0] / counts.sum()
    assert found["codes"]["z"] == {
        "usage": pytest.approx(len(p) / 24),
        "perplexity": pytest.approx(torch.exp(-(p * p.log()).sum()).item()),
    }


def test_a_run_stopped_in_either_stage_goes_on_to_the_same_bytes(folder, tmp_path):
    whole = checkpoint.steps(folder)
    second = tmp_path / "second"
    shutil.copytree(folder, second)
    shutil.rmtree(checkpoint.path_of(second, max(whole)))
    fit("vq-vae-ema", "digits", out=second, resume=True, quiet=True, **SMALL)
    first = tmp_path / "first"
    first.mkdir()
    shutil.copytree(folder / "autoencoder", first / "autoencoder")
    shutil.rmtree(checkpoint.path_of(first / "autoencoder", max(checkpoint.steps(first / "autoencoder"))))
    fit("vq-vae-ema", "digits", out=first, resume=True, quiet=True, **SMALL)
    expected = tensors(folder)
    for run in (second, first):
        found = tensors(run)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert (run / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_trained_autoencoder_stands_for_the_first_stage(folder, tmp_path):
    out = tmp_path / "run"
    fit("vq-vae-ema", "digits", out=out, init=str(folder / "autoencoder"), quiet=True, **SMALL)
    assert not (out / "autoencoder").exists()
    first, second = tensors(folder / "autoencoder"), tensors(out)
    assert all(torch.equal(first[name], second[name]) for name in first if ".prior." not in name and "used" not in name)


def test_it_is_used_as_every_other(folder, tmp_path):
    run = load(folder)
    write_samples(run, 6, tmp_path / "x.npz", seed=1)
    write_encodings(run, "digits", tmp_path / "z.npz")
    write_reconstructions(run, "digits", tmp_path / "r.npz", number=8)
    with np.load(tmp_path / "z.npz") as file:
        assert file["z"].shape == (360, 4)
        assert file["z"].dtype == np.int64
        assert set(np.unique(file["z"])) <= set(range(24))
    with np.load(tmp_path / "r.npz") as file:
        again = run.decode(torch.from_numpy(file["z"]))
        assert np.allclose(file["reconstruction"], again.numpy(), atol=1e-5)
    with pytest.raises(ConfigError, match="between discrete latents"):
        write_interpolations(run, "digits", tmp_path / "i.npz")
    assert torch.equal(run.sample(3, seed=4), run.sample(3, seed=4))


def test_a_finished_run_is_left_as_it_is_by_resuming_even_without_its_first_stage(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "autoencoder")
    fit("vq-vae-ema", "digits", out=copy, resume=True, quiet=True, **SMALL)
    assert not (copy / "autoencoder").exists()
    assert (copy / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_a_folder_that_the_second_stage_could_not_have_is_refused_before_the_first(folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"found notes\.txt"):
        fit("vq-vae-ema", "digits", out=tmp_path, quiet=True, **SMALL)
    assert not (tmp_path / "autoencoder").exists()
    other = tmp_path / "vae"
    fit("vae", "digits", out=other, epochs=0, quiet=True)
    with pytest.raises(ConfigError, match="holds a run already"):
        fit("vq-vae-ema", "digits", out=other, quiet=True, **SMALL)
    assert not (other / "autoencoder").exists()
    half = tmp_path / "half"
    shutil.copytree(folder / "autoencoder", half / "autoencoder")
    with pytest.raises(ConfigError, match="autoencoder: holds a run already; continue it with --resume"):
        fit("vq-vae-ema", "digits", out=half, quiet=True, **SMALL)


def test_an_averaged_autoencoder_is_what_the_second_stage_goes_on_from(tmp_path):
    run = fit("vq-vae-ema", "digits", out=tmp_path / "run", train__ema=200.0, quiet=True, **SMALL)
    first = load(tmp_path / "run" / "autoencoder").model.state_dict()
    found = run.model.state_dict()
    assert all(torch.equal(first[n], found[n]) for n in first if ".prior." not in n and not n.endswith("used"))
    raw = tensors(tmp_path / "run" / "autoencoder")
    assert not torch.equal(raw["levels.0.head.weight"], first["levels.0.head.weight"])
    assert torch.equal(raw["levels.0.quantiser.codes"], first["levels.0.quantiser.codes"]), "an average already"


def test_what_a_run_recorded_gives_its_two_stages_again():
    first, second = stages_of(configure("vq-vae", tokens=("prior=pixelcnn", "train.freeze=autoencoder")))
    assert (first.train.freeze, second.train.freeze) == ("none", "autoencoder")


def test_the_autoencoder_s_epochs_hold_against_steps():
    tokens = ("prior=pixelcnn", "steps=7", "autoencoder_epochs=4")
    first, second = stages_of(configure("vq-vae", tokens=tokens))
    assert (first.train.epochs, first.train.steps, second.train.steps) == (4, None, 7)


def test_how_many_stages_there_are():
    assert len(stages_of(configure("vq-vae"))) == 1
    assert len(stages_of(configure("vq-vae", tokens=("prior=pixelcnn",)))) == 2
    assert len(stages_of(configure("vq-vae", tokens=("prior=pixelcnn", "schedule=joint")))) == 1
    first, second = stages_of(configure("vq-vae", tokens=("prior=pixelcnn", "epochs=9", "autoencoder_epochs=4")))
    assert (first.train.epochs, second.train.epochs) == (4, 9)
    assert (first.train.freeze, second.train.freeze) == ("none", "autoencoder")


def test_what_has_no_encoder_or_no_prior_to_learn_has_no_stages():
    with pytest.raises(CombinationError, match="schedule=two-stage with model=mixture"):
        configure("gmm", tokens=("schedule=two-stage",))
    with pytest.raises(CombinationError, match=r"train\.freeze=autoencoder with prior=normal: nothing would be left"):
        configure("vae", tokens=("train.freeze=autoencoder",))


def test_what_is_said_of_a_stage_is_true_of_it():
    console = Heard()
    run = fit_heard(console, "vq-vae-ema", "digits", **{**SMALL, "epochs": 1})
    prior = len([name for name in run.model.state_dict() if ".prior." in name])
    told = [line for line in console.lines if line.startswith("first stage: ")]
    own = len(run.model.state_dict())
    assert told == [
        f"first stage: took the autoencoder, {own - prior} of {own} tensors; the other {prior} are the prior's, "
        "which is randomly initialised"
    ]
    assert sum("biased gradient" in line for line in console.lines) == 1, "of the first stage alone: q is frozen then"
    assert "biased gradient" in biases(configure("vq-vae-ema"))[0]


def test_what_evaluate_prints_of_codes_has_no_second_name_for_the_bound_and_no_units(folder):
    found = load(folder).evaluate("digits")
    text = str(found)
    assert "IWAE" not in text
    assert "active units" not in text
    assert f"{found.bits_per_dim:.5f} ± {found.to_dict()['bits_per_dim_se']:.5f}  (from elbo)" in text
