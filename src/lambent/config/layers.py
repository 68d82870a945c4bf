"""Layers of settings: nested plain values by section, laid over each other; what a structure has no use for is told."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lambent.config import renamed
from lambent.errors import CombinationError, ConfigError
from lambent.models.structure import Slot, Structure
from lambent.objectives import ELBO, SumOfRates
from lambent.settings import Part, nearest, options_of, registry, to_values

Layer = Mapping[str, Mapping[str, Any]]
Values = dict[str, dict[str, Any]]

SECTIONS = (
    "model",
    "prior",
    "posterior",
    "likelihood",
    "encoder",
    "decoder",
    "objective",
    "rate",
    "draw",
    "corruption",
    "penalty",
    "schedule",
    "data",
    "train",
)
ONE_OF_A_KIND = ("data", "train")
"""Sections whose part has no choice."""
MODEL = "vae"
"""The structure where none is chosen."""
PAIRED = {"encoder", "decoder"}
USER = "user"
"""The name of a user's own network, which no file can choose."""
NONE = "none"
"""The name by which an optional part is left out."""
RECORDED = ("recipe", "transform", "training_data")
"""What a run's ``recipe.toml`` holds beside settings."""


def merged(layers: Iterable[Layer], *, note: bool = False) -> Values:
    """The values of each section that there is, "name" among them, from layers laid over each other.

    Args:
        layers: The last one wins; old names of sections, parts and settings are read as today's.
        note: Whether each old name is told, as a `RenamedSetting` warning.

    Raises:
        ConfigError: an unknown section, or no table of settings.
        CombinationError: a section that the structure in force doesn't have, from the layer that chose it or above.
    """
    values = _defaults(MODEL)
    for layer in layers:
        tables = {renamed.section_of(section, note=note): settings for section, settings in layer.items()}
        for section, settings in tables.items():
            _require_table(section, settings)
        tables = {"model": {}, **tables}
        tables["model"] = renamed.values_of("model", tables["model"], values["model"]["name"], note=note)
        values = _restructured(values, tables)
        structure = _structure(values)
        for section, settings in tables.items():
            name = values.get(section, {}).get("name", NONE)
            _merge(values, structure, section, renamed.values_of(section, settings, name, note=note))
    structure = _structure(values)
    return {s: v for s, v in values.items() if v["name"] != NONE or _left_out(s, structure)}


def _left_out(section: str, structure: type[Structure]) -> bool:
    """False: an optional part is left out without a trace; one that isn't optional is refused."""
    slot = _slot(structure, section)
    if slot.optional:
        return False
    raise CombinationError(f"{_named(structure)} with {section}=none: it needs one; use {section}={slot.default}")


def _named(structure: type[Structure]) -> str:
    """The structure as a message names it."""
    return f"model={next(name for name in registry.names('model') if registry.find('model', name) is structure)}"


def _defaults(model: str) -> Values:
    """Every section of a structure with its default part."""
    structure = _find_structure(model)
    chosen = {section: {"name": slot.default} for section, slot in structure.sections.items()}
    return {"model": {"name": model}, **chosen, **{section: {"name": section} for section in ONE_OF_A_KIND}}


def _find_structure(name: Any) -> type[Structure]:
    return cast("type[Structure]", registry.find("model", name))


def _structure(values: Values) -> type[Structure]:
    return _find_structure(values["model"]["name"])


def _slot(structure: type[Structure], section: str) -> Slot:
    return structure.sections.get(section, Slot(section))


def _restructured(values: Values, layer: Layer) -> Values:
    """The values with the structure that ``layer`` chooses: parts that were defaults give way to its own."""
    before, name = values["model"]["name"], layer.get("model", {}).get("name", values["model"]["name"])
    if name == before:
        return values
    old, new = _find_structure(before), _find_structure(name)
    renamed = {"model", *(section for section, settings in layer.items() if "name" in settings)}
    left = {section: settings for section, settings in values.items() if section not in renamed}
    kept = {s: v for s, v in left.items() if s in ONE_OF_A_KIND or not _gives_way(s, v, old, new)}
    return {**_defaults(name), **kept}


def _gives_way(section: str, values: Mapping[str, Any], old: type[Structure], new: type[Structure]) -> bool:
    """Whether a part was the old structure's default, and is not the new one's; one that was chosen is refused."""
    name = values["name"]
    if section not in new.sections:
        _refuse_absent(section, {"name": NONE if name == _slot(old, section).default else name}, new)
        return True
    return name == _slot(old, section).default != new.sections[section].default


def _merge(values: Values, structure: type[Structure], section: str, settings: Mapping[str, Any]) -> None:
    if section not in values:
        _refuse_absent(section, settings, structure)
        return
    if settings.get("name", values[section]["name"]) != values[section]["name"]:
        values[section] = {}
    values[section].update(settings)


def _require_table(section: str, settings: Any) -> None:
    if section not in SECTIONS:
        raise ConfigError(f"{section!r} is not a section{nearest(section, SECTIONS)}; known: {', '.join(SECTIONS)}")
    if not isinstance(settings, Mapping):
        raise ConfigError(f"[{section}] holds {settings!r}, expected a table of settings")


def _refuse_absent(section: str, settings: Mapping[str, Any], structure: type[Structure]) -> None:
    """Refuses a part that a structure doesn't have, unless it says no more than the structure does."""
    absent = structure.absent[section]
    if settings.get("name") in absent.names:
        return
    given = f"{section}={settings['name']}" if "name" in settings else f"{section}.{next(iter(settings), '')}"
    raise CombinationError(
        f"{_named(structure)} with {given}: {absent.why}; leave {section} out, or use {section}=none"
    )


def layer_of_settings(settings: Mapping[str, Any], below: Sequence[Layer]) -> Values:
    """The layer that settings by name make; parts chosen in the layers ``below`` give bare keys their meaning.

    ``prior="mixture"`` or a settings object chooses a part, ``prior__components=20`` (or ``prior.components``) sets an
    option of it, and the bare ``components=20`` does too where only one part (or encoder and decoder together) has such
    an option.

    >>> from lambent.priors import MixturePrior
    >>> layer_of_settings({"prior": MixturePrior(components=3), "epochs": 2}, [])["prior"]["components"]
    3

    Raises:
        ConfigError: an unknown or ambiguous key, or an option that is given twice.
    """
    layer: Values = {}
    pairs = [renamed.bare(key.replace("__", "."), value) for key, value in settings.items()]
    keyed = dict(renamed.choice(key, value) for key, value in pairs)
    for key in [k for k in keyed if k in SECTIONS]:
        layer |= _chosen(key, keyed[key])
    names = {section: values["name"] for section, values in merged([*below, layer]).items()}
    given = {(section, option) for section, options in layer.items() for option in options}
    for key in [k for k in keyed if k not in SECTIONS]:
        for section, option in _owners(key, names):
            if (section, option) in given:
                raise ConfigError(f"{section}.{option} is given twice, the second time as {key}; give it once")
            given.add((section, option))
            layer.setdefault(section, {})[option] = renamed.value_of(section, option, keyed[key], note=True)
    return layer


def _chosen(section: str, value: Any) -> Values:
    """The layer of a part given by its name or as an object."""
    if section in ONE_OF_A_KIND and not isinstance(value, Part):
        raise ConfigError(f"{section}={value} does not say which setting; use {section}.KEY=VALUE")
    if value is None:
        return {section: {"name": NONE}}
    if isinstance(value, str):
        return {section: {"name": value}}
    if not isinstance(value, Part):
        raise ConfigError(f"{section}={value!r}: expected a name ({', '.join(registry.names(section))}) or settings")
    name = {} if section in ONE_OF_A_KIND else {"name": registry.name_of(section, value)}
    layer = {section: {**name, **to_values(value)}}
    if isinstance(value, ELBO) and not isinstance(value.rate, SumOfRates):
        layer |= _chosen("rate", value.rate)
    return layer


def _owners(key: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    section, dot, option = key.partition(".")
    if dot:
        section = renamed.section_of(section, note=True)
        if section not in SECTIONS:
            raise ConfigError(f"{key}: {section!r} is not a section{nearest(section, SECTIONS)}")
        known = options_of(registry.find(section, names[section])) if section in names else ()
        owners = [(section, renamed.key_of(section, option, known))]
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


def layer_of_file(path: Path) -> Values:
    """The layer that a TOML file makes (a run's ``recipe.toml`` is one).

    Raises:
        ConfigError: the file is missing or no TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no readable TOML ({error}); expected tables such as [train]") from error
    return layer_of_values(values)


def layer_of_run(values: Mapping[str, Any]) -> Values:
    """The settings that a run's ``recipe.toml`` holds, without those of sections that its structure doesn't have.

    Runs from before structures named their sections hold some (``[encoder]`` of a mixture, ``prior.name = "none"``).
    """
    layer = layer_of_values(values)
    structure = _find_structure(layer.get("model", {}).get("name", MODEL))
    return {s: v for s, v in layer.items() if s == "model" or s in ONE_OF_A_KIND or s not in structure.absent}


def layer_of_values(values: Mapping[str, Any]) -> Values:
    """The settings among what a ``recipe.toml`` holds (it also records the data's shape and transform).

    A user's own network can't be named by a file; its section is left out. A whole ``recipe.toml`` may be an old one:
    its settings get the names of today.
    """
    values = renamed.run_values(values) if "recipe" in values else values
    return {
        s: v for s, v in values.items() if s not in RECORDED and not (isinstance(v, dict) and v.get("name") == USER)
    }
