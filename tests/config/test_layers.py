"""Structures know their sections: what they lack is not asked for, not shown, and refused where it is given."""

import dataclasses

import pytest
from torch import nn

import lambent
from lambent.cli.listing import settings_text
from lambent.config import check, layer_of_run, resolve, settings_of_tokens
from lambent.config.layers import ONE_OF_A_KIND, SECTIONS
from lambent.errors import CombinationError, ConfigError
from lambent.priors import MixturePrior
from lambent.recipes import configure
from lambent.settings import registry

STRUCTURES = registry.names("model")


@pytest.mark.parametrize("model", STRUCTURES)
def test_every_structure_is_one_setting_away_from_the_vae(model):
    config = configure("vae", settings={"model": model})
    slots = config.model.sections
    assert config.name_of("model") == model
    for section in (s for s in SECTIONS if s != "model" and s not in ONE_OF_A_KIND):
        if section in slots:
            assert config.name_of(section) == slots[section].default
            assert section not in config.model.absent
        else:
            assert getattr(config, section) is None
            assert config.model.absent[section].why


@pytest.mark.parametrize("model", STRUCTURES)
def test_what_a_structure_lacks_is_neither_recorded_nor_shown(model):
    config = configure("vae", settings={"model": model})
    absent = config.model.absent
    assert not set(config.values()) & set(absent)
    assert not [section for section in absent if f"\n[{section}]" in settings_text("vae", (f"model={model}",))]


@pytest.mark.parametrize("model", STRUCTURES)
def test_what_a_structure_lacks_is_refused_with_the_reason_and_none_is_no_offence(model):
    structure = registry.find("model", model)
    for section, absent in structure.absent.items():
        other = next(name for name in registry.names(section) if name not in absent.names)
        for given in ({section: other}, {section: registry.find(section, other)()}):
            with pytest.raises(CombinationError) as refused:
                configure("vae", settings={"model": model, **given})
            assert str(refused.value).startswith(f"model={model} with {section}={other}: {absent.why}; leave {section}")
        same = configure("vae", settings={"model": model, section: "none"})
        assert same == configure("vae", settings={"model": model})


def test_a_part_that_a_recipe_chose_is_not_dropped_in_silence():
    with pytest.raises(CombinationError, match="model=chain with corruption=gaussian: it concerns one latent"):
        configure("denoising-ae", settings={"model": "chain"})
    with pytest.raises(CombinationError, match="model=density with objective=iwae"):
        configure("iwae", settings={"model": "density"})


def test_a_default_gives_way_and_what_was_set_of_a_part_that_stays_is_kept():
    below = {"encoder": {"hidden": [7]}, "decoder": {"hidden": [5]}, "train": {"epochs": 3}}
    chain = resolve("some", below, {"model": {"name": "chain"}})
    assert (chain.encoder.hidden, chain.decoder.hidden, chain.train.epochs) == ((7,), (5,), 3)
    density = resolve("some", below, {"model": {"name": "density"}})
    assert (density.encoder, density.name_of("decoder"), density.train.epochs) == (None, "made", 3)


def test_parts_that_need_one_are_not_left_out():
    for section in ("prior", "posterior", "encoder", "draw", "objective", "likelihood"):
        with pytest.raises(CombinationError, match=f"model=vae with {section}=none: it needs one; use {section}="):
            configure("vae", settings={section: None})


def test_only_parts_that_fit_are_offered():
    shown = settings_text("vae", ("model=mixture",))
    assert "[prior] = categorical\n  classes" in shown  # no choice
    assert configure("vae").choices("penalty")[-1] == "none"
    assert "residual-normal" not in configure("vae").choices("posterior")
    assert "residual-normal" in configure("vae", settings={"model": "ladder"}).choices("posterior")


def test_objects_names_and_tokens_make_the_same_configuration():
    by_object = configure("vae", settings={"prior": MixturePrior(components=3), "latent": 4, "train__epochs": 2})
    by_name = configure("vae", settings={"prior": "mixture", "components": 3, "model.latent": 4, "epochs": 2})
    by_token = configure("vae", tokens=("prior=mixture", "prior.components=3", "latent=4", "epochs=2"))
    assert by_object == by_name == by_token
    assert by_object.values() == by_token.values()
    assert settings_of_tokens(("train.steps=none",)) == {"train.steps": "none"}
    assert configure("vae", settings={"steps": None}) == configure("vae", tokens=("train.steps=none",))


def test_an_objective_object_brings_its_rate():
    config = configure("vae", settings={"objective": lambent.ELBO(lambent.Beta(3.0))})
    assert config == configure("vae", tokens=("rate=beta", "beta=3"))
    assert config.objective == lambent.ELBO(lambent.Beta(3.0))


def test_the_objective_in_force_follows_the_rate():
    config = configure("beta-vae", settings={"beta": 2.0})
    assert config.objective.rate == lambent.Beta(2.0)
    plain = dataclasses.replace(config, rate=lambent.SumOfRates())
    assert plain.objective == lambent.ELBO()


def test_with_changes_some_settings_and_keeps_a_users_network():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    run = lambent.fit("vae", "digits", encoder=module, train__steps=0, quiet=True)
    other = run.config.with_(rate="beta", beta=2.0)
    assert other.encoder.module is module
    assert (other.rate, run.config.rate) == (lambent.Beta(2.0), lambent.SumOfRates())


def test_a_setting_beside_an_object_that_holds_it_is_given_twice():
    with pytest.raises(ConfigError, match=r"prior\.components is given twice"):
        configure("vae", settings={"prior": MixturePrior(components=3), "prior__components": 5})
    assert configure("vae", settings={"prior": "mixture", "prior__components": 5}).prior.components == 5


def test_what_is_no_part_is_refused_by_name():
    for value in (3, object(), [1]):
        with pytest.raises(ConfigError, match=r"prior=.*: expected a name"):
            configure("vae", settings={"prior": value})
    with pytest.raises(ConfigError, match="is not registered as a posterior"):
        configure("vae", settings={"posterior": MixturePrior(components=3)})
    with pytest.raises(ConfigError, match="prior is a module, expected a name or settings"):
        lambent.fit("vae", "digits", prior=nn.Linear(1, 1), quiet=True)


def test_runs_from_before_structures_named_their_sections_are_read():
    values = {
        "recipe": "gmm",
        "model": {"name": "mixture", "latent": 4},
        "prior": {"name": "categorical"},
        "posterior": {"name": "exact"},
        "encoder": {"name": "linear"},
        "draw": {"name": "enumerate", "samples": 1},
        "corruption": {"name": "none"},
        "penalty": {"name": "none"},
    }
    config = resolve("gmm", layer_of_run(values))
    check(config)
    assert (config.posterior, config.encoder, config.model.latent) == (None, None, 4)
