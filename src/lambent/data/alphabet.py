"""The symbols of a text, and those of one text in terms of another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lambent.errors import DataError

BYTES = 256


@dataclass(frozen=True)
class Alphabet:
    r"""The symbols of a text: 0, 1, ... for the bytes, or for characters in their order; END last, where there is one.

    Attributes:
        characters: Those of symbols 0, 1, ...; None for the 256 bytes.
        end: Whether END follows them, which closes an example.

    >>> import torch
    >>> Alphabet("abc", end=True).size
    4
    >>> Alphabet("abc", end=True).decode(torch.tensor([[2, 0, 1, 3, 3]]))
    ['cab']
    """

    characters: str | None = None
    end: bool = False

    @property
    def size(self) -> int:
        """S, the number of symbols, EOS included."""
        return (BYTES if self.characters is None else len(self.characters)) + self.end

    def decode(self, x: Tensor | np.ndarray) -> list[str]:
        """Strings of symbols (N, D), each up to its END; bytes that are no UTF-8 become U+FFFD.

        Raises:
            DataError: a symbol outside the alphabet.
        """
        return [self._word(row) for row in np.asarray(x).astype(np.int64)]

    def _word(self, row: np.ndarray) -> str:
        if self.end and (row == self.size - 1).any():
            row = row[: int((row == self.size - 1).argmax())]
        if row.size and not 0 <= row.min() <= row.max() < self.size - self.end:
            raise DataError(
                f"symbols {row.min()}..{row.max()} outside {{0..{self.size - 1}}}; give symbols of this text"
            )
        if self.characters is None:
            return row.astype(np.uint8).tobytes().decode("utf-8", "replace")
        return "".join(self.characters[i] for i in row)
