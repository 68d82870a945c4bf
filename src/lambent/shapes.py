"""The sizes that parts are built from."""

from __future__ import annotations

from dataclasses import dataclass

from lambent.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """One column of a table: "numeric", "count" or "categorical" with a number of categories."""

    name: str
    kind: str
    categories: int = 0


@dataclass(frozen=True)
class Shapes:
    """What the data fixes about a model.

    Attributes:
        event: Shape of one example: (C, H, W) for images, (D,) for vectors and tables.
        latent: Number of latent dimensions (of states, for a mixture).
        condition: Length of the condition vector, 0 for none.
        levels: Number of grey levels, or of symbols, where the data has them.
        columns: The columns of a table, else empty.
        end: Whether the last symbol is EOS, which ends an example.
    """

    event: tuple[int, ...]
    latent: int
    condition: int = 0
    levels: int | None = None
    columns: tuple[Column, ...] = ()
    end: bool = False

    def require_condition(self, who: str) -> int:
        """The condition's length, refused if there is none."""
        if self.condition == 0:
            raise ConfigError(f"{who} needs a condition: give data with labels and data.condition=labels")
        return self.condition
