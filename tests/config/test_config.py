"""From layers and ``key=value`` to one complete configuration: precedence, bare keys, refusals; and every recipe."""

import tomllib

import pytest

from lambent.config import biases, layer_of_file, layer_of_tokens, resolve
from lambent.config.tokens import parse_value
from lambent.errors import CombinationError, ConfigError
from lambent.likelihoods import TextLikelihood
from lambent.networks import IdentityDecoder
from lambent.objectives import Beta
from lambent.recipes import RECIPES, configure, find_recipe
from lambent.shapes import Column, Shapes
from lambent.storage.toml import to_toml


def refusal(*tokens, recipe="vae", layers=()):
    with pytest.raises(ConfigError) as error:
        configure(recipe, *layers, tokens=tokens)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_precedence():
    """Class default < recipe < file < key=value."""
    file = {"rate": {"beta": 2.0}, "train": {"lr": 0.1}}
    assert resolve("none", {"rate": {"name": "beta"}}).rate.beta == 4.0  # the class's own
    assert configure("beta-vae").rate.beta == 4.0
    assert configure("beta-vae", file).rate.beta == 2.0
    both = configure("beta-vae", file, tokens=("beta=3",))
    assert (both.rate.beta, both.train.lr) == (3.0, 0.1)
    assert configure("beta-vae", file, {"rate": {"beta": 7}}).rate.beta == 7.0


def test_renaming_a_part_drops_what_was_set_of_the_old_one():
    config = configure("beta-vae", {"rate": {"beta": 2.0}}, tokens=("rate=warm-up",))
    assert type(config.rate).__name__ == "WarmUp"
    assert configure("beta-vae", tokens=("rate=beta",)).rate == configure("beta-vae").rate
    assert configure("gaussian-vae").likelihood.sigma == 0.1
    assert configure("gaussian-vae", tokens=("likelihood=normal",)).likelihood.sigma == 0.1
    switched = configure("gaussian-vae", tokens=("likelihood=discretised-logistic", "bits=4"))
    assert switched.likelihood.sigma == type(switched.likelihood)().sigma


def test_bare_keys_mean_the_one_part_that_has_them():
    config = configure("vae", tokens=("prior=mixture", "components=20", "latent=3", "batch-size=7", "samples=5"))
    assert config.prior.components == 20
    assert (config.model.latent, config.train.batch_size, config.draw.samples) == (3, 7, 5)
    paired = configure("vae", tokens=("hidden=[30,20]", "activation=tanh"))
    assert paired.encoder.hidden == paired.decoder.hidden == (30, 20)
    assert paired.encoder.activation == paired.decoder.activation == "tanh"
    one = configure("vae", tokens=("decoder.hidden=9",))
    assert (one.decoder.hidden, one.encoder.hidden) == ((9,), configure("vae").encoder.hidden)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("batchsize=5",), "batchsize is not a setting of this recipe; did you mean 'batch_size'?"),
        (("components=5",), "components is not a setting of this recipe"),
        (("prior.component=5", "prior=mixture"), "prior.component is not a setting; did you mean 'components'?"),
        (("trian.lr=1",), "trian.lr: 'trian' is not a section; did you mean 'train'?"),
        (("prior=mixtur",), "prior='mixtur' is not known; did you mean 'mixture'?"),
        (("prior=3",), "prior=3: expected a name (ar1, "),
        (("prior=3", "lr=1"), "prior=3: expected a name (ar1, "),
        (("prior=[1]", "lr=1"), "prior=[1]: expected a name (ar1, "),
        (("scale=1",), "scale is ambiguous; use one of posterior.scale, data.scale"),
        (("lr=1", "lr=1"), "lr is given 2 times; give it once"),
        (("lr=1", "train.lr=2"), "train.lr is given twice, the second time as train.lr; give it once"),
        (("train.lr=1", "lr=2"), "train.lr is given twice, the second time as lr; give it once"),
        (("prior=mixture", "prior.name=normal"), "prior.name is given twice"),
        (("hidden=3", "decoder.hidden=4"), "decoder.hidden is given twice"),
        (("batch-size=3", "batch_size=4"), "batch_size is given 2 times; give it once"),
        (("train=adam",), "train=adam does not say which setting; use train.KEY=VALUE"),
        (("lr",), "'lr' is not a setting; expected key=value, for example latent=10"),
        (("=3",), "'=3' is not a setting"),
        (("lr=",), "train.lr='' is text, expected a number"),
        (("lr=fast",), "train.lr='fast' is text, expected a number"),
        (("latent=1" + "0" * 5000,), "model.latent="),
        (("hidden=" + "[" * 5000,), "encoder.hidden"),
        (("beta=2",), "beta is not a setting of this recipe; did you mean 'beta"),
        (("draw.generator=1",), "draw.generator is not a setting; known: samples"),
        (("rate=warm-up", "rate.factor=0.5"), "rate.factor is not a setting; known: steps, start"),
    ],
    ids=lambda v: None if isinstance(v, str) else v[-1][:20],
)
def test_what_is_refused_and_how(tokens, said):
    assert refusal(*tokens).startswith(said)


def test_unknown_recipes_name_their_neighbour():
    assert (
        refusal(recipe="beta_vae") == "recipe 'beta_vae' is not known; did you mean 'beta-vae'?; see `lambent recipes`"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[200, 200]", [200, 200]),
        ("200,200", [200, 200]),
        ("1e-3", 0.001),
        ("5", 5),
        ("true", True),
        ("tanh", "tanh"),
        ("'tanh'", "tanh"),
        ("relu,tanh", ["relu", "tanh"]),
        ("", ""),
        ("a = 1", "a = 1"),
        ("1\ny = 2", 1),
    ],
)
def test_values_on_the_command_line(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[trian]\nlr = 1", "'trian' is not a section; did you mean 'train'?"),
        ("model = 3", "[model] holds 3, expected a table of settings"),
        ("[[model]]\nlatent = 3", "[model] holds [{'latent': 3}], expected a table"),
        ("[model]\nlatnt = 3", "model.latnt is not a setting; did you mean 'latent'?"),
        ("[prior]\nname = 3", "prior=3 is not known"),
        ("[prior]\nname = 'mixtur'", "prior='mixtur' is not known; did you mean 'mixture'?"),
        ("[model", "{file}: no readable TOML"),
        ("a = " + "[" * 9000, "{file}: no readable TOML"),
        ("a = " + "1" * 5000, "{file}: no readable TOML"),
    ],
    ids=lambda v: v[:20],
)
def test_files_are_as_strict(text, said, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        configure("vae", layer_of_file(file), tokens=("lr=0.1",))
    assert str(error.value).startswith(said.replace("{file}", str(file)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no readable TOML"):
        layer_of_file(tmp_path / "none.toml")


def test_tokens_do_not_change_the_layers_below():
    below = ({"prior": {"name": "mixture"}},)
    layer = layer_of_tokens(("components=3",), below)
    assert (layer, below) == ({"prior": {"components": 3}}, ({"prior": {"name": "mixture"}},))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_is_complete_and_reads_back_from_its_own_record(name):
    recipe, config = find_recipe(name), configure(name)
    assert recipe.title
    assert recipe.source
    values = config.values()
    slots = config.model.sections
    needed = {"recipe", "model", "data", "train", *(section for section in slots if not slots[section].optional)}
    assert needed <= set(values) <= {*needed, *slots}
    again = tomllib.loads(to_toml(values))
    assert resolve(again.pop("recipe"), again) == config


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_builds(name):
    config = configure(name)
    condition = 10 if config.data.condition == "labels" else 0
    event = (config.model.latent,) if isinstance(config.decoder, IdentityDecoder) else (1, 8, 8)
    event = (5,) if isinstance(config.likelihood, TextLikelihood) else event
    shapes = Shapes(event, config.model.latent, condition, 17, (Column("a", "numeric"),))
    model = config.model.build(config, shapes)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert config.objective is not None


def test_the_names_promised():
    promised = (
        "linear-ae ae sparse-ae denoising-ae probabilistic-ae regularised-ae ppca factor-analysis gmm vae "
        "gaussian-vae sigma-vae fullcov-vae cvae beta-vae capacity-vae iwae iwae-dreg"
    )
    listed = [name for name in RECIPES if name in promised.split()]
    assert listed == promised.split(), "each is there, and they are listed by purpose"


def test_the_objective_carries_its_rate():
    assert configure("beta-vae").objective.rate == Beta(4.0)


def test_illegal_combinations_are_refused_where_they_are_configured():
    with pytest.raises(CombinationError, match="draw=dreg with objective=elbo"):
        configure("vae", tokens=("draw=dreg",))


def test_a_biased_gradient_is_said_and_an_unbiased_one_is_not():
    biased = configure("iwae", tokens=("draw=stl", "draw.samples=5"))
    assert "bounds of several samples" in biases(biased)[0]
    for tokens in (("draw=dreg", "draw.samples=5"), ("draw=stl", "draw.samples=1"), ()):
        assert biases(configure("iwae", tokens=tokens)) == []
    assert biases(configure("vae", tokens=("draw=stl", "draw.samples=5"))) == []
