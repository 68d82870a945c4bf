"""A complete configuration: one settings object a part, from layers of plain values.

Precedence: defaults of the parts < recipe < configuration file < ``key=value``. Everything is strict: an unknown key or
value is refused with its nearest neighbour, and names are looked up in the registry only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lambent.config import renamed
from lambent.data import DataOptions
from lambent.errors import ConfigError
from lambent.likelihoods import Family
from lambent.models.structure import Structure
from lambent.networks import UserDecoder, UserEncoder
from lambent.objectives import Objective, RateFunction
from lambent.posteriors import PosteriorSettings
from lambent.priors import PriorSettings
from lambent.settings import build, nearest, options_of, registry, to_values
from lambent.training.options import TrainOptions
from lambent.training.schedule import UpdateSchedule

Layer = Mapping[str, Mapping[str, Any]]

DEFAULT_NAMES = {
    "model": "vae",
    "prior": "normal",
    "posterior": "normal",
    "likelihood": "bernoulli",
    "encoder": "mlp",
    "decoder": "mlp",
    "objective": "elbo",
    "rate": "sum",
    "draw": "pathwise",
    "corruption": "none",
    "penalty": "none",
    "schedule": "joint",
    "data": "data",
    "train": "train",
}
SECTIONS = tuple(DEFAULT_NAMES)
ONE_OF_A_KIND = ("data", "train")
PAIRED = {"encoder", "decoder"}
USER = "user"
RECORDED = ("recipe", "transform", "training_data")
"""What a run's ``recipe.toml`` holds beside settings."""


@dataclass(frozen=True)
class Config:
    """Every setting in force, by section; ``recipe`` is the name it started from."""

    recipe: str
    model: Structure
    prior: PriorSettings
    posterior: PosteriorSettings
    likelihood: Family
    encoder: Any
    decoder: Any
    objective: Objective
    rate: RateFunction
    draw: Any
    corruption: Any
    penalty: Any
    schedule: UpdateSchedule
    data: DataOptions
    train: TrainOptions

    @property
    def continuous(self) -> bool:
        """Whether all latents are continuous, so that points between two codes are codes too."""
        return self.prior.latent_kind == "continuous" and not self.model.mixed

    def values(self) -> dict[str, Any]:
        """Plain nested values, complete: what ``recipe.toml`` holds and `resolve` reads back."""
        return {"recipe": self.recipe, **{section: self._section(section) for section in SECTIONS}}

    def _section(self, section: str) -> dict[str, Any]:
        settings = getattr(self, section)
        if isinstance(settings, UserEncoder | UserDecoder):
            return {"name": USER, "module": type(settings.module).__name__}
        name = {} if section in ONE_OF_A_KIND else {"name": registry.name_of(section, settings)}
        return {**name, **to_values(settings)}


def resolve(recipe: str, *layers: Layer) -> Config:
    """The configuration of ``layers`` laid over each other, the last one winning.

    A layer that renames a part drops what earlier layers set of the old one.

    Raises:
        ConfigError: unknown section, part or key, or a value of the wrong type or out of range.
    """
    merged: dict[str, dict[str, Any]] = {section: {"name": name} for section, name in DEFAULT_NAMES.items()}
    for layer in layers:
        for section, values in layer.items():
            _merge(merged, renamed.section_of(section, note=True), values)
    parts = {section: _build(section, values) for section, values in merged.items()}
    return Config(recipe, **parts)


def _merge(merged: dict[str, dict[str, Any]], section: str, values: Any) -> None:
    if section not in merged:
        raise ConfigError(f"{section!r} is not a section{nearest(section, SECTIONS)}; known: {', '.join(SECTIONS)}")
    if not isinstance(values, Mapping):
        raise ConfigError(f"[{section}] holds {values!r}, expected a table of settings")
    values = renamed.values_of(section, values, merged[section]["name"], note=True)
    if values.get("name", merged[section]["name"]) != merged[section]["name"]:
        merged[section] = {}
    merged[section].update(values)


def _build(section: str, values: Mapping[str, Any]) -> Any:
    settings = {key: value for key, value in values.items() if key != "name"}
    if not isinstance(values["name"], str):
        raise ConfigError(f"{section}.name={values['name']!r} is not text; known: {', '.join(registry.names(section))}")
    return build(registry.find(section, values["name"]), settings, section)


def layer_of_tokens(tokens: Iterable[str], below: Iterable[Layer]) -> dict[str, dict[str, Any]]:
    """The layer that ``key=value`` tokens make; parts chosen in the layers ``below`` give bare keys their meaning.

    ``prior=mixture`` chooses a part, ``prior.components=20`` sets an option of it, and the bare ``components=20`` does
    too where only one part (or encoder and decoder together) has such an option.
    """
    pairs = [renamed.bare(*_split(token)) for token in tokens]
    pairs = [(renamed.section_of(key, note=True), value) for key, value in pairs]
    _refuse_repeats([key for key, _ in pairs])
    layer: dict[str, dict[str, Any]] = {}
    for key, value in [(k, v) for k, v in pairs if k in SECTIONS]:
        if key in ONE_OF_A_KIND:
            raise ConfigError(f"{key}={value} does not say which setting; use {key}.KEY=VALUE")
        layer[key] = {"name": renamed.part_of(key, value, note=True)}
    names = _names_in_force([*below, layer])
    for key, value in [(k, v) for k, v in pairs if k not in SECTIONS]:
        for section, option in _owners(key, names):
            settings = layer.setdefault(section, {})
            if option in settings:
                raise ConfigError(f"{section}.{option} is given twice, the second time as {key}; give it once")
            settings[option] = renamed.value_of(section, option, value, note=True)
    return layer


def _split(token: str) -> tuple[str, Any]:
    key, sign, text = token.partition("=")
    if not sign or not key:
        raise ConfigError(f"{token!r} is not a setting; expected key=value, for example latent=10")
    return key.strip().replace("-", "_") if key.strip() not in SECTIONS else key.strip(), parse_value(text.strip())


def parse_value(text: str) -> Any:
    """A TOML value where ``text`` is one, else the text itself.

    >>> parse_value("[200, 200]"), parse_value("1e-3"), parse_value("tanh")
    ([200, 200], 0.001, 'tanh')
    """
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):  # also of numbers too long, and lists too deep, to read
        return [parse_value(item) for item in text.split(",")] if "," in text else text


def _refuse_repeats(keys: list[str]) -> None:
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ConfigError(f"{repeated[0]} is given {keys.count(repeated[0])} times; give it once")


def _names_in_force(layers: Iterable[Layer]) -> dict[str, str]:
    names = dict(DEFAULT_NAMES)
    for layer in layers:
        tables = {renamed.section_of(s): values for s, values in layer.items() if isinstance(values, Mapping)}
        names.update({s: renamed.part_of(s, values["name"]) for s, values in tables.items() if "name" in values})
    return names


def _owners(key: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    section, dot, option = key.partition(".")
    if dot:
        section = renamed.section_of(section, note=True)
        if section not in names:
            raise ConfigError(f"{key}: {section!r} is not a section{nearest(section, SECTIONS)}")
        owners = [(section, renamed.key_of(section, option, options_of(registry.find(section, names[section]))))]
    else:
        owners = _owners_of_bare(key, {s: options_of(registry.find(s, n)) for s, n in names.items()})
    renamed.note_key(key, owners)
    return owners


def _owners_of_bare(key: str, options: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    owners = [(s, key) for s in options if key in options[s]]
    before = [(s, renamed.key_of(s, key, options[s])) for s in options]
    before = [(s, option) for s, option in before if option in options[s]]
    if not owners or {s for s, _ in before} == PAIRED:  # an old key may be one side's still, and was the other's too
        owners = before
    if not owners:
        known = sorted({o for found in options.values() for o in found} | set(SECTIONS))
        raise ConfigError(f"{key} is not a setting of this recipe{nearest(key, known)}; see `lambent show RECIPE`")
    if len(owners) > 1 and {s for s, _ in owners} != PAIRED:
        raise ConfigError(f"{key} is ambiguous; use one of {', '.join(f'{s}.{o}' for s, o in owners)}")
    return owners


def layer_of_file(path: Path) -> dict[str, dict[str, Any]]:
    """The layer that a TOML file makes (a run's ``recipe.toml`` is one).

    Raises:
        ConfigError: the file is missing or no TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no readable TOML ({error}); expected tables such as [train]") from error
    return layer_of_values(values)


def layer_of_values(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings among what a ``recipe.toml`` holds (it also records the data's shape and transform).

    A user's own network can't be named by a file; its section is left out. A whole ``recipe.toml`` may be an old one:
    its settings get the names of today.
    """
    values = renamed.run_values(values) if "recipe" in values else values
    return {
        s: v for s, v in values.items() if s not in RECORDED and not (isinstance(v, dict) and v.get("name") == USER)
    }


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``recipe.toml`` holds, with the options that its parts have been given since it was written."""
    values = renamed.run_values(values)
    today = resolve(values["recipe"], layer_of_values(values)).values()
    kept = [s for s in SECTIONS if s in values and values[s].get("name") == today[s].get("name")]
    return {**values, **{section: today[section] for section in kept}}


def fields_of(config: Config) -> list[tuple[str, Any]]:
    """Section and settings object, in order."""
    return [(f.name, getattr(config, f.name)) for f in fields(config) if f.name != "recipe"]
