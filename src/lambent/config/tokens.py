"""Settings as the command line has them: ``key=value`` in text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from typing import Any

from lambent.config.layers import SECTIONS, Layer, Values, layer_of_settings
from lambent.errors import ConfigError


def layer_of_tokens(tokens: Iterable[str], below: Sequence[Layer]) -> Values:
    """The layer that ``key=value`` tokens make, as `layer_of_settings` does of their values.

    Raises:
        ConfigError: no key=value, a key that is given twice, unknown or ambiguous.
    """
    return layer_of_settings(settings_of_tokens(tokens), below)


def settings_of_tokens(tokens: Iterable[str]) -> dict[str, Any]:
    """Settings by name, their values read as TOML where they are such.

    >>> settings_of_tokens(["latent=10", "prior=mixture", "decoder.hidden=[200, 200]"])
    {'latent': 10, 'prior': 'mixture', 'decoder.hidden': [200, 200]}

    Raises:
        ConfigError: no key=value, or a key that is given twice.
    """
    pairs = [_split(token) for token in tokens]
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ConfigError(f"{repeated[0]} is given {keys.count(repeated[0])} times; give it once")
    return dict(pairs)


def _split(token: str) -> tuple[str, Any]:
    key, sign, text = token.partition("=")
    if not sign or not key:
        raise ConfigError(f"{token!r} is not a setting; expected key=value, for example latent=10")
    key = key.strip()
    return key if key in SECTIONS else key.replace("-", "_"), parse_value(text.strip())


def parse_value(text: str) -> Any:
    """A TOML value where ``text`` is one, else the text itself.

    >>> parse_value("[200, 200]"), parse_value("1e-3"), parse_value("tanh")
    ([200, 200], 0.001, 'tanh')
    """
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):  # also of numbers too long, and lists too deep, to read
        return [parse_value(item) for item in text.split(",")] if "," in text else text
