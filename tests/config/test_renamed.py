"""Old names of settings: each reads as the new one, by hand with a note, from a run without."""

import json
import shutil
import warnings
from pathlib import Path

import pytest

import lambent
from lambent.config import completed, renamed
from lambent.config.layers import layer_of_file
from lambent.errors import ConfigError, RenamedSetting
from lambent.recipes import configure
from lambent.settings import options_of, registry

OLD = Path(__file__).parent / "old_run"
"""A run that was written before the settings were renamed: ppca, latent=2, one step."""

PARTS = [(section, old, new) for section, names in renamed.PARTS.items() for old, new in names.items()]
FITTING = {
    "quantised": {"prior": "uniform", "posterior": "vq", "draw": "straight-through", "encoder": "conv"},
    "discrete-continuous": {"draw": "mixed"},
    "recurrent": {"encoder": "draw-reader", "decoder": "draw-writer"},
    "draw-reader": {"model": "recurrent", "decoder": "draw-writer"},
    "draw-writer": {"model": "recurrent", "encoder": "draw-reader"},
    "mixed": {"data.binarize": "none"},
    "kl-balancing": {"model": "ladder"},
    "em": {"prior": "normal"},
}
"""What else a configuration needs that has the part."""
BASES = {"two-stage": "latent-diffusion", "snr-weighted": "ddpm"}
KEYS = [
    ("vq-vae", "model", "above", "halvings", [1]),
    ("vq-vae", "posterior", "codes", "codebook_size", 7),
    ("vq-vae", "posterior", "dim", "embedding_dim", 5),
    ("vq-vae", "posterior", "learning", "codebook_update", "ema"),
    ("vq-vae", "posterior", "revive", "dead_code_threshold", 0.5),
    ("vq-vae", "posterior", "start", "codebook_init", "random"),
    ("fsq-vae", "posterior", "levels", "bins", [3, 5]),
    ("iwae-2layer", "model", "above", "upper_latents", [7]),
    ("iwae-2layer", "model", "between", "between_hidden", [9]),
    ("lvae-small", "model", "above", "upper_latents", [7, 5]),
    ("lvae-small", "model", "widths", "between_hidden", [9, 8]),
    ("nvae-small", "model", "levels", "levels_per_scale", [1, 2]),
    ("draw-small", "model", "steps", "glimpses", 3),
    ("draw-small", "encoder", "units", "hidden_dim", 33),
    ("draw-small", "decoder", "units", "hidden_dim", 34),
    ("ddpm", "model", "steps", "timesteps", 50),
    ("ddpm", "model", "sampling", "sampling_steps", 20),
    ("ddpm", "posterior", "schedule", "noise_schedule", "cosine"),
    ("ddpm", "posterior", "minimum", "gamma_min", -9.0),
    ("ddpm", "posterior", "maximum", "gamma_max", 4.0),
    ("vdm", "posterior", "units", "hidden_dim", 64),
    ("vdm-small decoder=denoising-mlp", "decoder", "width", "hidden_dim", 64),
    ("latent-diffusion", "prior", "width", "hidden_dim", 64),
    ("latent-diffusion", "prior", "levels", "eval_timesteps", 16),
    ("latent-diffusion", "prior", "steps", "sampling_steps", 50),
    ("latent-diffusion", "prior", "schedule", "noise_schedule", "cosine"),
    ("latent-diffusion", "prior", "minimum", "gamma_min", -9.0),
    ("latent-diffusion", "prior", "maximum", "gamma_max", 4.0),
    ("vq-vae prior=transformer", "prior", "width", "model_dim", 64),
    ("vq-vae prior=diffusion", "prior", "width", "model_dim", 64),
    ("vq-vae prior=diffusion", "prior", "steps", "sampling_steps", 4),
    ("vq-vae prior=pixelcnn", "prior", "places", "position_channels", 4),
    ("cvae", "prior", "units", "hidden_dim", 8),
    ("vae prior=mixture", "prior", "spread", "init_scale", 2.0),
    ("byte-vae", "prior", "spread", "init_scale", 4.0),
    ("byte-vae", "posterior", "spread", "bytes_per_unit", 4.0),
    ("sentence-vae", "encoder", "hidden", "hidden_dim", 128),
    ("sentence-vae", "decoder", "hidden", "hidden_dim", 128),
    ("sentence-vae encoder=transformer", "encoder", "width", "model_dim", 64),
    ("pixel-transformer", "decoder", "width", "model_dim", 128),
    ("pixel-transformer", "decoder", "receptive", "receptive_field", 9),
    ("pixelcnn", "decoder", "places", "position_channels", 4),
    ("pixelcnn", "decoder", "receptive", "receptive_field", 2),
    ("made", "decoder", "direct", "direct_connections", False),
    ("nade", "decoder", "units", "hidden_dim", 10),
    ("relax", "draw", "units", "hidden_dim", 20),
    ("gumbel-vae", "draw", "anneal", "anneal_steps", 20),
    ("ciwae", "objective", "share", "beta", 0.2),
    ("gan-inverter", "objective", "dream", "sleep_x", "sample"),
    ("rws", "objective", "dreams", "sleep_weight", 0.2),
    ("vae", "data", "levels", "grey_levels", 17),
    ("vae", "train", "clip", "grad_clip", 3.0),
    ("vae", "train", "schedule", "lr_schedule", "cosine"),
    ("vae", "train", "lr_warmup", "warmup_steps", 5),
    ("vae", "train", "final_lr", "final_lr_fraction", 0.5),
    ("vae", "train", "skip_above", "grad_spike_factor", 9.0),
    ("vae", "train", "select", "select_checkpoint", "last"),
    ("vae", "train", "keep", "keep_checkpoints", 4),
    ("vae", "train", "panel", "monitor_examples", 7),
    ("vae", "train", "alarm_rate", "collapse_threshold", 0.3),
    ("tc-vae", "rate", "estimator", "estimator", "weighted"),
]


def noted(make):
    """What ``make`` gives, and the notes of it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = make()
    return found, [str(w.message) for w in told if issubclass(w.category, RenamedSetting)]


def silent(make):
    found, notes = noted(make)
    assert not notes
    return found


def toml(text, path):
    path.write_text(text)
    return layer_of_file(path)


@pytest.mark.parametrize(("base", "section", "old", "new", "value"), KEYS, ids=lambda v: str(v))
def test_an_old_key_is_the_new_one_by_every_way_in(base, section, old, new, value, tmp_path):
    recipe, *parts = base.split()
    today = "mws" if value == "weighted" else value
    wanted = silent(lambda: configure(recipe, tokens=(*parts, f"{section}.{new}={json.dumps(today)}")))
    assert wanted != configure(recipe, tokens=tuple(parts)), "a value that shows"
    note = f"{section}.{old} is now {section}.{new}"
    note = note if old != new else "rate.estimator=weighted is now rate.estimator=mws"
    name = wanted.values()[section].get("name")
    table = f"[{section}]\n" + (f'name = "{name}"\n' if name else "") + f"{old} = {json.dumps(value)}\n"
    ways = {
        "token": lambda: configure(recipe, tokens=(*parts, f"{section}.{old}={json.dumps(value)}")),
        "file": lambda: configure(recipe, toml(table, tmp_path / "hand.toml"), tokens=tuple(parts)),
        "keyword": lambda: configure(
            recipe, settings={**dict(p.split("=") for p in parts), f"{section}__{old}": value}
        ),
    }
    for way, make in ways.items():
        assert noted(make) == (wanted, [note]), way
    there = wanted.values()
    there[section] = {old if key == new else key: v for key, v in there[section].items()} | {old: value}
    assert silent(lambda: completed(there)) == wanted.values(), "a run's recipe.toml"


@pytest.mark.parametrize(("section", "old", "new"), PARTS)
def test_an_old_part_is_the_new_one(section, old, new, tmp_path):
    recipe, fitting = BASES.get(new, "vae"), FITTING.get(new, {})
    rest = tuple(f"{key}={value}" for key, value in fitting.items())
    wanted = silent(lambda: configure(recipe, tokens=(*rest, f"{section}={new}")))
    before = {"schedule": "updates"}.get(section, section)
    note = f"{before}={old} is now {section}={new}"
    assert noted(lambda: configure(recipe, tokens=(*rest, f"{before}={old}"))) == (wanted, [note])
    found, notes = noted(
        lambda: configure(recipe, toml(f'[{before}]\nname = "{old}"\n', tmp_path / "hand.toml"), tokens=rest)
    )
    assert found == wanted
    assert notes[-1] == f"{section}={old} is now {section}={new}"
    there = wanted.values()
    there[before] = {**there.pop(section), "name": old}
    assert silent(lambda: completed(there)) == wanted.values()


def test_the_table_names_what_there_is():
    for section, names in renamed.PARTS.items():
        assert set(names.values()) <= set(registry.names(section))
        assert not set(names) & set(registry.names(section))
    tried = {(section, old, new) for _, section, old, new, _ in KEYS}
    for section, keys in renamed.KEYS.items():
        parts = [options_of(registry.find(section, name)) for name in registry.names(section)]
        for old, news in keys.items():
            assert all(any(new in options for options in parts) for new in news), (section, old)
            for new in news:
                untried = (section, old, new) not in tried and new != "sequence_length"
                assert not untried, f"no case for {section}.{old} -> {new}"


@pytest.mark.parametrize("section", ["prior", "posterior"])
def test_the_length_of_a_sequence_had_another_name(section):
    other = "posterior" if section == "prior" else "prior"
    wanted = configure("delta-vae", tokens=("latent=8", "prior.sequence_length=4", "posterior.sequence_length=4"))
    found, notes = noted(
        lambda: configure("delta-vae", tokens=("latent=8", f"{section}.steps=4", f"{other}.sequence_length=4"))
    )
    assert found == wanted
    assert notes == [f"{section}.steps is now {section}.sequence_length"]


def test_bare_old_keys_and_one_that_is_now_a_section():
    assert noted(lambda: configure("vae", tokens=("clip=1",))) == (
        configure("vae", tokens=("train.grad_clip=1",)),
        ["clip is now grad_clip"],
    )
    assert noted(lambda: configure("vae", tokens=("schedule=cosine",))) == (
        configure("vae", tokens=("train.lr_schedule=cosine",)),
        ["schedule=cosine is now train.lr_schedule=cosine"],
    )
    found, notes = noted(lambda: configure("vae", tokens=("encoder=mlp", "decoder=nade", "encoder.hidden=[5]")))
    assert not notes
    assert found.encoder.hidden == (5,)
    both, notes = noted(lambda: configure("sentence-vae", tokens=("hidden=64",)))
    assert (both.encoder.hidden_dim, both.decoder.hidden_dim, notes) == (64, 64, ["hidden is now hidden_dim"])


def test_neither_old_nor_new_is_told_its_nearest_new_neighbour():
    for key, near in (("grad_clp", "grad_clip"), ("train.monitor_exampels", "monitor_examples")):
        with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
            configure("vae", tokens=(f"{key}=1",))
    with pytest.raises(ConfigError, match=r"train\.grad_clip is given twice"):
        configure("vae", tokens=("train.clip=1", "train.grad_clip=2"))


def test_a_run_of_before_opens_evaluates_to_its_numbers_and_resumes(tmp_path):
    run = silent(lambda: lambent.load(OLD))
    assert run.config.train.grad_clip == 2.0
    before = json.loads((OLD / "evaluation.json").read_text())
    found = silent(lambda: run.evaluate(samples=20)).to_dict()
    for key in ("elbo", "log_likelihood", "rate", "distortion"):
        assert found[key] == pytest.approx(before[key], abs=1e-4), key
    there = tmp_path / "run"
    shutil.copytree(OLD, there)
    again = silent(
        lambda: lambent.fit("ppca", out=there, config=OLD / "recipe.toml", resume=True, quiet=True),
    )
    assert again.step == run.step
