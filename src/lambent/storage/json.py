"""Python values as strict JSON, which has no NaN and no infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lambent.errors import ConfigError

_TAG = "float"
_WORDS = ("nan", "inf", "-inf")


def to_plain(value: Any, where: str) -> Any:
    """``value`` for strict JSON: tuples as lists, a non-finite float as ``{"float": "inf"}``.

    Raises:
        ConfigError: the dotted path of what JSON can't hold.
    """
    if isinstance(value, Mapping):
        return _table(value, where)
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_TAG: str(float(value))}
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(
        f"{where} is {type(value).__name__}, expected text, a number, true/false, None, a list or a table"
    )


def _table(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{where} has the key {key!r}, expected text")
    if set(value) == {_TAG}:
        raise ConfigError(f"{where} has the one key {_TAG!r}, which stands for a non-finite number; use another")
    return {key: to_plain(item, f"{where}.{key}") for key, item in value.items()}


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`, but for tuples, which come back as lists."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {_TAG} and value[_TAG] in _WORDS:
            return float(value[_TAG])
        return {key: from_plain(item) for key, item in value.items()}
    return value
