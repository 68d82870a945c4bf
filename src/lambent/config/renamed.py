"""Settings under the names that they had before, and the names that they have now.

Runs written with an old name stay readable, and an old name given by hand works, with a note. One table serves all:
`SECTIONS`, `PARTS`, `KEYS` and `VALUES`. A key is looked up among the options of the part in force, so that an old name
which now means something else in another part does no harm there.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from lambent.errors import ConfigError, RenamedSetting
from lambent.settings import options_of, registry

SECTIONS = {"updates": "schedule"}

PARTS = {
    "model": {"draw": "recurrent", "codes": "quantised", "joint": "discrete-continuous"},
    "likelihood": {"columns": "mixed"},
    "encoder": {"reader": "draw-reader"},
    "decoder": {"canvas": "draw-writer"},
    "rate": {"split": "tc", "balanced": "kl-balancing", "noise-weighted": "snr-weighted"},
    "schedule": {
        "together": "joint",
        "alternate": "alternating",
        "encoder-first": "aggressive-encoder",
        "stages": "two-stage",
    },
}

KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {"levels": ("grey_levels",)},
    "model": {
        "above": ("upper_latents", "halvings"),
        "between": ("between_hidden",),
        "widths": ("between_hidden",),
        "levels": ("levels_per_scale",),
        "steps": ("timesteps", "glimpses"),
        "sampling": ("sampling_steps",),
    },
    "prior": {
        "width": ("model_dim", "hidden_dim"),
        "units": ("hidden_dim",),
        "places": ("position_channels",),
        "spread": ("init_scale",),
        "levels": ("eval_timesteps",),
        "schedule": ("noise_schedule",),
        "minimum": ("gamma_min",),
        "maximum": ("gamma_max",),
        "steps": ("sampling_steps", "sequence_length"),
    },
    "posterior": {
        "codes": ("codebook_size",),
        "dim": ("embedding_dim",),
        "learning": ("codebook_update",),
        "revive": ("dead_code_threshold",),
        "start": ("codebook_init",),
        "levels": ("bins",),
        "schedule": ("noise_schedule",),
        "minimum": ("gamma_min",),
        "maximum": ("gamma_max",),
        "units": ("hidden_dim",),
        "spread": ("bytes_per_unit",),
        "steps": ("sequence_length",),
    },
    "encoder": {"hidden": ("hidden_dim",), "width": ("model_dim",), "units": ("hidden_dim",)},
    "decoder": {
        "hidden": ("hidden_dim",),
        "width": ("model_dim", "hidden_dim"),
        "units": ("hidden_dim",),
        "places": ("position_channels",),
        "receptive": ("receptive_field",),
        "direct": ("direct_connections",),
    },
    "draw": {"units": ("hidden_dim",), "anneal": ("anneal_steps",)},
    "objective": {"share": ("beta",), "dream": ("sleep_x",), "dreams": ("sleep_weight",)},
    "train": {
        "clip": ("grad_clip",),
        "schedule": ("lr_schedule",),
        "lr_warmup": ("warmup_steps",),
        "final_lr": ("final_lr_fraction",),
        "skip_above": ("grad_spike_factor",),
        "select": ("select_checkpoint",),
        "keep": ("keep_checkpoints",),
        "panel": ("monitor_examples",),
        "alarm_rate": ("collapse_threshold",),
    },
}
"""The new names of an old one, by section: the part in force has one of them at most."""

VALUES = {"rate": {"estimator": {"weighted": "mws", "stratified": "mss"}}}
"""New names of values, by section and the key's new name."""

BARE = {"schedule": ("train", "lr_schedule")}
"""Keys that, without their section, meant this option, and now name a section."""


def section_of(name: str, *, note: bool = False) -> str:
    """The section that is called ``name``, or was before."""
    now = SECTIONS.get(name, name)
    if note and now != name:
        _note(name, now)
    return now


def part_of(section: str, name: Any, *, note: bool = False) -> Any:
    """The part that is called ``name`` in ``section``, or was before."""
    if not isinstance(name, str) or name not in PARTS.get(section, {}) or name in registry.names(section):
        return name
    now = PARTS[section][name]
    if note:
        _note(f"{section}={name}", f"{section}={now}")
    return now


def key_of(section: str, key: str, known: Collection[str]) -> str:
    """The one of the options ``known`` that is called ``key``, or was before; ``key`` itself where none is."""
    if key in known:
        return key
    return next((now for now in KEYS.get(section, {}).get(key, ()) if now in known), key)


def value_of(section: str, key: str, value: Any, *, note: bool = False) -> Any:
    """The value of ``section.key`` that is called ``value``, or was before."""
    known = VALUES.get(section, {}).get(key, {})
    if not isinstance(value, str) or value not in known:
        return value
    if note:
        _note(f"{section}.{key}={value}", f"{section}.{key}={known[value]}")
    return known[value]


def values_of(section: str, values: Mapping[str, Any], part: str, *, note: bool = False) -> dict[str, Any]:
    """The settings ``values`` of ``section`` under the names that they have now.

    Args:
        section: Its name of today.
        values: By key; ``name`` is the part's.
        part: The part in force where ``values`` choose none.
        note: Whether each old name is told, as a `RenamedSetting` warning.

    Raises:
        ConfigError: a setting is given under its old name and its new one.
    """
    values = {k: part_of(section, v, note=note) if k == "name" else v for k, v in values.items()}
    chosen = values.get("name", part)
    known = registry.parts.get(section, {}).get(chosen) if isinstance(chosen, str) else None
    options = options_of(known) if known is not None else {}
    now: dict[str, Any] = {}
    for key, value in values.items():
        new = key if key == "name" else key_of(section, key, options)
        if new != key and new in values:
            raise ConfigError(f"{section}.{key} is now {section}.{new}, and both are given; give {section}.{new} alone")
        if note and new != key:
            _note(f"{section}.{key}", f"{section}.{new}")
        now[new] = value_of(section, new, value, note=note)
    return now


def choice(key: str, value: Any) -> tuple[str, Any]:
    """A setting's key and value under the names of today where it chooses a part, with one note of what was renamed."""
    section = SECTIONS.get(key, key)
    name = part_of(section, value)
    if (section, name) != (key, value) and isinstance(value, str):
        _note(f"{key}={value}", f"{section}={name}")
    elif section != key:
        _note(key, section)
    return section, name


def bare(key: str, value: Any) -> tuple[str, Any]:
    """A token's key and value, where the key was a setting's that is now a section's.

    >>> import lambent.training.options
    >>> with warnings.catch_warnings(action="ignore"):
    ...     bare("schedule", "cosine")
    ('train.lr_schedule', 'cosine')
    """
    if key not in BARE:
        return key, value
    section, option = BARE[key]
    if value not in options_of(registry.find(section, section))[option].metadata["choices"]:
        return key, value
    _note(f"{key}={value}", f"{section}.{option}={value}")
    return f"{section}.{option}", value


def run_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's ``recipe.toml`` holds, whenever it was written, under the names of today."""
    renamed = {SECTIONS.get(section, section): table for section, table in values.items()}
    return {
        section: values_of(section, table, section)
        if isinstance(table, Mapping) and section in registry.parts
        else table
        for section, table in renamed.items()
    }


def note_key(key: str, owners: Collection[tuple[str, str]]) -> None:
    """Tells of a key given by hand that its ``owners`` (section, option) call otherwise now."""
    if all(key.rpartition(".")[2] == option for _, option in owners):
        return
    options = {option for _, option in owners}
    short = "." not in key and len(options) == 1
    _note(key, options.pop() if short else " and ".join(f"{s}.{option}" for s, option in owners))


def _note(old: str, now: str) -> None:
    warnings.warn(f"{old} is now {now}", RenamedSetting, stacklevel=2)
