"""What a recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """A complete named configuration.

    Attributes:
        name: As on the command line.
        title: One line for listings.
        source: The paper it follows.
        settings: What differs from the parts' defaults, by section.
        expected: A published figure with its protocol and source, where one exists.
    """

    name: str
    title: str
    source: str
    settings: Settings
    expected: str = ""
