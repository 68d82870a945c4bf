"""Python values as strict JSON, which has no NaN and no infinity.

Two encodings of non-finite floats: `to_json` writes them as texts that people read, `to_exact_json` in a form that
nothing else has, for what must come back unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lambent.errors import ConfigError

_TAG = "float"
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Any, where: str) -> Any:
    """``value`` for strict JSON that people read: tuples as lists, non-finite floats as "nan", "inf" and "-inf".

    >>> to_json({"step": 1, "se": math.inf}, "metrics")
    {'step': 1, 'se': 'inf'}

    Args:
        value: None, bool, int, float, text, or a list or table of those.
        where: What an error calls ``value``.

    Raises:
        ConfigError: the dotted path of what JSON can't hold.
    """
    return _encoded(value, where, str)


def from_json(value: Any) -> Any:
    """The inverse of `to_json`, but for tuples; the texts "nan", "inf" and "-inf" always become floats.

    >>> from_json({"step": 1, "se": "inf"})
    {'step': 1, 'se': inf}
    """
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value


def to_exact_json(value: Any, where: str) -> Any:
    """``value`` for strict JSON without loss: tuples as lists, a non-finite float as ``{"float": "inf"}``.

    Raises:
        ConfigError: the dotted path of what JSON can't hold, or a table with the one key ``"float"``.
    """
    return _encoded(value, where, lambda number: {_TAG: str(number)}, reserved=_TAG)


def from_exact_json(value: Any) -> Any:
    """The inverse of `to_exact_json`, but for tuples, which come back as lists."""
    if isinstance(value, list):
        return [from_exact_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {_TAG} and value[_TAG] in _NON_FINITE:
            return _NON_FINITE[value[_TAG]]
        return {key: from_exact_json(item) for key, item in value.items()}
    return value


def _encoded(value: Any, where: str, non_finite: Callable[[float], Any], reserved: str | None = None) -> Any:
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where} has the key {key!r}, expected text")
        if set(value) == {reserved}:
            raise ConfigError(
                f"{where} has the one key {reserved!r}, which stands for a non-finite number; use another"
            )
        return {key: _encoded(item, f"{where}.{key}", non_finite, reserved) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item, f"{where}[{i}]", non_finite, reserved) for i, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else non_finite(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(
        f"{where} is {type(value).__name__}, expected text, a number, true/false, None, a list or a table; use .item()"
    )
