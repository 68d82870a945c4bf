"""Settings as frozen dataclasses, their registry, and one strict reader.

A part of a model (a prior, a network, an objective) is a frozen dataclass whose fields, made with `option`, are its
settings. The dataclass is the one source of defaults, of help, and of what a run's ``recipe.toml`` holds. Parts
register under (kind, name), so that configuration can only ever name what is registered here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass
from typing import Any, ClassVar, TypeVar

from lambent.errors import ConfigError

T = TypeVar("T")
_MOST = 2**63
"""Whole numbers from here on fit no tensor's size or index."""


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """A dataclass field that carries its help and the values it takes (units belong into the help)."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above}
    metadata = {"help": help, "choices": tuple(choices) if choices else None, **limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Conflict:
    """Why parts of a configuration are incompatible.

    Attributes:
        sections: The sections in conflict, for example ("prior", "posterior"); empty where ``why`` names them.
        why: The reason and what would do: "why; use ...".
    """

    sections: tuple[str, ...]
    why: str


class Part:
    """What every part of a configuration may say of itself; its settings are a frozen dataclass.

    Attributes:
        reserved: Why only structures that ask for this part by name can use it, and what would do; empty for the
            others.
    """

    reserved: ClassVar[str] = ""

    def conflicts(self, parts: Any) -> Conflict | None:
        """What this part is incompatible with among the other ``parts`` of a configuration; None for nothing.

        Args:
            parts: Has each section's settings as an attribute, None where the structure has no such section.
        """
        return None


@dataclass(frozen=True)
class Registry:
    """The parts that configuration can name, by kind ("prior", "likelihood", ...) and name."""

    parts: dict[str, dict[str, type]] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, name: str) -> Callable[[type[T]], type[T]]:
        """Decorator: register a settings dataclass as the part ``name`` of ``kind``."""

        def register(part: type[T]) -> type[T]:
            known = self.parts.setdefault(kind, {})
            if name in known:
                raise ConfigError(f"{kind} {name!r} is registered twice")
            known[name] = part
            return part

        return register

    def names(self, kind: str) -> list[str]:
        """The names registered under ``kind``, in order of registration."""
        return list(self.parts.get(kind, {}))

    def find(self, kind: str, name: str) -> type:
        """The part's dataclass; an unknown name is refused with its nearest neighbour."""
        known = self.parts.get(kind, {})
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"{kind}={name!r} is not known{nearest(str(name), known)}; known: {', '.join(known)}")
        return known[name]

    def name_of(self, kind: str, part: object) -> str:
        """The name under which a part's class is registered."""
        for name, cls in self.parts.get(kind, {}).items():
            if type(part) is cls:
                return name
        raise ConfigError(f"{type(part).__name__} is not registered as a {kind}")


registry = Registry()
part = registry.add


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where something near is known, else nothing.

    >>> nearest("batchsize", ["batch_size", "epochs"])
    "; did you mean 'batch_size'?"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def options_of(cls: type) -> dict[str, Field[Any]]:
    """The settings of a part, by name."""
    return {f.name: f for f in dataclasses.fields(cls) if "help" in f.metadata}


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the settings dataclass ``cls`` from plain values, strictly.

    Raises:
        ConfigError: an unknown key (with its dotted path and nearest neighbour), a wrong type, a value out of range.
    """
    known = options_of(cls)
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}.{key} is not a setting{nearest(key, known)}; known: {', '.join(known) or 'none'}"
            )
    hints = typing.get_type_hints(cls)
    return cls(**{key: convert(value, hints[key], f"{where}.{key}", known[key]) for key, value in values.items()})


def convert(value: Any, hint: Any, where: str, spec: Field[Any]) -> Any:
    """``value`` as the type ``hint`` asks, within the limits of ``spec``."""
    try:
        converted = _coerce(value, hint, where)
    except OverflowError:
        raise ConfigError(f"{where} is out of range, expected less than 1.8e308") from None
    for item in converted if isinstance(converted, tuple) else (converted,):
        _check_limits(item, where, spec)
    return converted


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _coerce_union(value, arguments, where)
    if origin is tuple:
        return _coerce_tuple(value, arguments, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}={value!r} is {_kind(value)}, expected {_type_name(hint)}")


def _coerce_union(value: Any, members: tuple[Any, ...], where: str) -> Any:
    plain = [m for m in members if m is not type(None)]
    if value is None or (value == "none" and str not in plain and type(None) in members):
        return None
    return _coerce(value, plain[0], where)


def _coerce_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_coerce(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(items))


def _check_limits(value: Any, where: str, spec: Field[Any]) -> None:
    choices, low, high, above = (spec.metadata[k] for k in ("choices", "minimum", "maximum", "above"))
    if choices and value not in choices:
        raise ConfigError(f"{where}={value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, int) and abs(value) >= _MOST:
        raise ConfigError(f"{where} is out of range, expected less than 2^63")
    if not math.isfinite(value):
        raise ConfigError(f"{where}={value!r} is not finite; give a finite number")
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    ):
        raise ConfigError(f"{where}={value!r} is out of range, expected {_range(low, high, above)}")


def _range(low: float | None, high: float | None, above: float | None) -> str:
    limits = [f"more than {above:g}" if above is not None else "", f"at least {low:g}" if low is not None else ""]
    return " and ".join(x for x in [*limits, f"at most {high:g}" if high is not None else ""] if x)


def _kind(value: Any) -> str:
    names = {str: "text", bool: "true/false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), type(value).__name__)


def _type_name(hint: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    return names.get(hint, str(hint))


def type_of(cls: type, name: str) -> str:
    """The type of a setting in words, for help."""
    hint = typing.get_type_hints(cls)[name]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return f"list of {_type_name(arguments[0]).removeprefix('a ')}s"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if a is type(None) else _type_name(a) for a in arguments)
    return _type_name(hint)


def to_values(settings: Any) -> dict[str, Any]:
    """Every setting in force as plain TOML values; None is left out (TOML has none)."""
    values = {name: getattr(settings, name) for name in options_of(type(settings))}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}
