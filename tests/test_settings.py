"""Settings are strict: unknown keys, wrong types and values out of range are refused by name, with what is near."""

import dataclasses
import math
import typing
from dataclasses import dataclass

import pytest

import lambent.recipes  # registers every part
from lambent.errors import ConfigError
from lambent.settings import Registry, build, nearest, option, options_of, registry, to_values, type_of

EVERY = [(kind, name) for kind, parts in registry.parts.items() for name in parts]


@dataclass(frozen=True)
class Sample:
    whole: int = option(3, "a whole number", minimum=1, maximum=10)
    real: float = option(0.5, "a number", above=0)
    word: str = option("red", "a word", choices=("red", "green"))
    flag: bool = option(False, "yes or no")
    sizes: tuple[int, ...] = option((4, 5), "sizes", minimum=1)
    maybe: float | None = option(None, "perhaps", minimum=0)
    label: str | None = option(None, "perhaps a word")
    hidden: int = 7  # no option: not a setting


def test_values_become_the_types_asked_for():
    values = {"whole": 4.0, "real": 2, "word": "green", "flag": True, "sizes": [1, 2], "maybe": 0, "label": "x"}
    made = build(Sample, values, "s")
    assert made == Sample(4, 2.0, "green", True, (1, 2), 0.0, "x")
    assert [type(v) for v in dataclasses.astuple(made)[:2]] == [int, float]
    assert build(Sample, {"sizes": 6}, "s").sizes == (6,)
    assert build(Sample, {"maybe": "none"}, "s").maybe is None
    assert build(Sample, {"label": "none"}, "s").label == "none"
    assert build(Sample, {}, "s") == Sample()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"whol": 3}, "s.whol is not a setting; did you mean 'whole'?; known: whole, real"),
        ({"hidden": 3}, "s.hidden is not a setting"),
        ({"whole": 2.5}, "s.whole=2.5 is a number, expected a whole number"),
        ({"whole": True}, "s.whole=True is true/false, expected a whole number"),
        ({"whole": "3"}, "s.whole='3' is text, expected a whole number"),
        ({"whole": None}, "s.whole=None is NoneType, expected a whole number"),
        ({"whole": [3]}, "s.whole=[3] is a list, expected a whole number"),
        ({"real": False}, "s.real=False is true/false, expected a number"),
        ({"flag": 1}, "s.flag=1 is a whole number, expected true or false"),
        ({"word": 1}, "s.word=1 is a whole number, expected text"),
        ({"sizes": [1, 2.5]}, "s.sizes[1]=2.5 is a number, expected a whole number"),
        ({"maybe": "abc"}, "s.maybe='abc' is text, expected a number"),
        ({"whole": 0}, "s.whole=0 is out of range, expected at least 1 and at most 10"),
        ({"whole": 11}, "s.whole=11 is out of range, expected at least 1 and at most 10"),
        ({"real": 0}, "s.real=0.0 is out of range, expected more than 0"),
        ({"maybe": -1}, "s.maybe=-1.0 is out of range, expected at least 0"),
        ({"sizes": [3, 0]}, "s.sizes=0 is out of range, expected at least 1"),
        ({"word": "gren"}, "s.word='gren' is not one of red, green; did you mean 'green'?"),
        ({"real": math.nan}, "s.real=nan is not finite; give a finite number"),
        ({"real": math.inf}, "s.real=inf is not finite; give a finite number"),
        ({"real": 10**400}, "s.real is out of range, expected less than 1.8e308"),
        ({"whole": 10**400}, "s.whole is out of range, expected less than 2^63"),
        ({"whole": 1e300}, "s.whole is out of range, expected less than 2^63"),
    ],
)
def test_what_is_refused_and_how(values, said):
    with pytest.raises(ConfigError) as error:
        build(Sample, values, "s")
    assert str(error.value).startswith(said)
    assert error.value.exit_code == 2


def test_limits_themselves_are_allowed():
    assert (build(Sample, {"whole": 1}, "s").whole, build(Sample, {"whole": 10}, "s").whole) == (1, 10)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_defaults_of_every_part_are_values_it_accepts_and_reads_back(kind, name):
    cls = registry.find(kind, name)
    made = cls()
    assert build(cls, to_values(made), kind) == made
    assert registry.name_of(kind, made) == name
    for key, spec in options_of(cls).items():
        assert spec.metadata["help"], f"{kind}={name} has no help for {key}"
        assert type_of(cls, key)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_leaving_out_none_loses_nothing(kind, name):
    """TOML has no null: a setting that may be none must be none by default, or a recipe would not read back."""
    cls = registry.find(kind, name)
    hints = typing.get_type_hints(cls)
    for key in options_of(cls):
        if type(None) in typing.get_args(hints[key]):
            assert getattr(cls(), key) is None


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_setting_of_every_part_refuses_what_it_is_not(kind, name):
    cls = registry.find(kind, name)
    for key in options_of(cls):
        with pytest.raises(ConfigError, match=f"{kind}\\.{key}"):
            build(cls, {key: {"a": "table"}}, kind)


def test_a_part_registers_once_and_unknown_ones_name_their_neighbour():
    parts = Registry()
    parts.add("colour", "green")(Sample)
    assert parts.names("colour") == ["green"]
    assert parts.names("nothing") == []
    with pytest.raises(ConfigError, match="colour 'green' is registered twice"):
        parts.add("colour", "green")(Sample)
    for name in ("gren", 3, None, ["green"]):
        with pytest.raises(ConfigError, match=r"colour=.* is not known.*; known: green"):
            parts.find("colour", name)
    with pytest.raises(ConfigError, match="did you mean 'green'"):
        parts.find("colour", "gren")
    with pytest.raises(ConfigError, match="int is not registered as a colour"):
        parts.name_of("colour", 3)


def test_nothing_is_suggested_where_nothing_is_near():
    assert nearest("zzzz", ["batch_size"]) == ""
    assert nearest("x", []) == ""


def test_the_recipes_are_registered_parts():
    assert lambent.recipes.RECIPES
