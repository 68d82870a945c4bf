"""Plain values to TOML that ``tomllib`` reads back as the very same values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lambent.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r", '"': r"\"", "\\": r"\\"}


def to_toml(values: Mapping[str, Any]) -> str:
    r"""Nested tables of text, int, float, bool and lists as TOML.

    Raises:
        ConfigError: the dotted name of what TOML doesn't hold (None, another type), or a recipe (NaN, inf).

    >>> print(to_toml({"name": "vae", "optimiser": {"lr": 1e-08, "betas": [0.9, 0.99]}}), end="")
    name = "vae"
    <BLANKLINE>
    [optimiser]
    lr = 1e-08
    betas = [0.9, 0.99]
    """
    return "\n".join(_table(values, ())).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = ["", f"[{'.'.join(_key(part, path) for part in path)}]"] if path else []
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in tables:
            lines.append(f"{_key(key, path)} = {_value(value, (*path, key))}")
    for key, value in tables.items():
        _key(key, path)
        lines += _table(value, (*path, key))
    return lines


def _key(key: Any, path: tuple[str, ...]) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{_dotted(path) or 'table'} has the key {key!r}, expected text")
    return key if _BARE.fullmatch(key) else _text(key, (*path, key))


def _value(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _number(value, path)
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item, (*path, str(i))) for i, item in enumerate(value))}]"
    if isinstance(value, Mapping):
        items = (f"{_key(key, path)} = {_value(item, (*path, key))}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    raise ConfigError(
        f"{_dotted(path)} is {type(value).__name__}, expected text, a number, true/false, a list, a table"
    )


def _number(value: float, path: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        raise ConfigError(f"{_dotted(path)}={value!r} is not finite; give a finite number")
    return float.__repr__(value)


def _text(value: str, path: tuple[str, ...]) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{_dotted(path)!a} holds a character that is no Unicode text; replace it") from error
    return f'"{"".join(_character(c) for c in value)}"'


def _character(c: str) -> str:
    if c in _ESCAPES:
        return _ESCAPES[c]
    return f"\\u{ord(c):04X}" if ord(c) < 0x20 or ord(c) == 0x7F else c


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)
