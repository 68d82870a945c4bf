"""From raw examples to what the likelihood scores, fixed by the training set and applied to every other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lambent.data import binarize
from lambent.data.align import align
from lambent.data.alphabet import Alphabet
from lambent.data.dataset import Dataset
from lambent.data.fitting import Fitted, fit
from lambent.data.options import DataOptions
from lambent.data.view import View
from lambent.errors import DataError
from lambent.settings import nearest
from lambent.shapes import Column, Shapes

NESTED = ("columns", "categories", "alphabet")
"""What is no plain value."""


@dataclass(frozen=True)
class Transform:
    """y = ((binarised) x - shift) / divisor, and the training set's classes and categories.

    Attributes:
        event: Shape of one example.
        kind: "image", "array", "table" or "text".
        binarize: "none", "threshold", "static" or "dynamic".
        binarize_seed: Names the static draw.
        levels: Grey levels of the raw data are 0..levels-1; None where they are no such.
        shift: Subtracted: nothing, one number, one per image channel, or one per column.
        divisor: Divided by, likewise.
        columns: A table's columns.
        categories: Names behind the codes of each categorical column.
        classes: Names behind the labels.
        condition: "none", "labels", or what holds the condition vectors.
        condition_size: Length of the condition vector.
        alphabet: What the symbols of a text stand for.

    >>> data = Dataset(torch.tensor([[0, 255], [51, 0]], dtype=torch.uint8), levels=256)
    >>> transform = Transform.fit(data, DataOptions(scale="unit"))
    >>> transform(data.x)
    tensor([[0.0000, 1.0000],
            [0.2000, 0.0000]])
    >>> round(transform.log_jacobian, 4)
    -11.0825
    """

    event: tuple[int, ...]
    kind: str = "array"
    binarize: str = "none"
    binarize_seed: int = 0
    levels: int | None = None
    shift: tuple[float, ...] = ()
    divisor: tuple[float, ...] = ()
    columns: tuple[Column, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    condition: str = "none"
    condition_size: int = 0
    alphabet: Alphabet | None = None

    @classmethod
    def fit(cls, dataset: Dataset, options: DataOptions) -> Transform:
        """The transform that ``options`` ask for, with what it needs to know taken from the training set.

        Raises:
            DataError: NaN or infinite values, grey levels outside the levels given, data that can't be binarised.
            ConfigError: settings that don't go together.
        """
        found: Fitted = fit(dataset, options)
        return cls(
            event=dataset.event_shape,
            kind=dataset.kind,
            binarize=options.binarize,
            binarize_seed=options.binarize_seed,
            levels=found.levels,
            shift=found.shift,
            divisor=found.divisor,
            columns=dataset.columns,
            categories=dataset.categories,
            classes=dataset.classes,
            condition=options.condition,
            condition_size=found.condition_size,
            alphabet=dataset.alphabet,
        )

    @property
    def out_levels(self) -> int | None:
        """Number of levels of what the likelihood scores; None where it scores scaled or real numbers."""
        if self.binarize != "none":
            return 2
        return None if self.divisor else self.levels

    @property
    def log_jacobian(self) -> float:
        """Log |dy/dx| in nats per example: log p(x) = log p(y) + this is the density in the data's original unit.

        0 where nothing is scaled. It says nothing of probabilities of levels or categories, which need no unit.
        """
        if not self.divisor:
            return 0.0
        each = math.prod(self.event) // len(self.divisor)
        return -each * math.fsum(math.log(d) for d in self.divisor)

    def shapes(self, latent: int) -> Shapes:
        """What parts of a model are built from."""
        end = self.alphabet is not None and self.alphabet.end
        return Shapes(self.event, latent, self.condition_size, self.out_levels, self.columns, end)

    def align(self, dataset: Dataset, name: str = "") -> Dataset:
        """``dataset`` with the training set's columns, categories and classes.

        Raises:
            DataError: another shape, a missing column, a category or (for a condition) a class never trained on.
        """
        return align(dataset, self, name or dataset.name)

    def view(self, dataset: Dataset, *, fixed: bool, device: torch.device | str = "cpu") -> View:
        """Examples of ``dataset`` as the likelihood scores them, a batch at a time.

        With ``fixed``, as validation and evaluation want it, dynamic binarisation is the one draw of static.

        Raises:
            DataError: as `align`, and raw values that can't be transformed.
        """
        return View(self, self.align(dataset), fixed=fixed, device=device)

    def binarised(
        self, x: Tensor, ids: Tensor | None = None, generator: torch.Generator | None = None, *, fixed: bool = False
    ) -> Tensor:
        """{0, 1} for raw ``x``, as bytes or floats; ``x`` itself where nothing is binarised."""
        if self.binarize == "none":
            return x
        if self.binarize == "threshold":
            return binarize.threshold(x, self.levels)
        if self.binarize == "dynamic" and not fixed:
            return binarize.dynamic(x, self.levels, generator)
        if ids is None:
            raise DataError("static binarisation needs the examples' ids; give dataset.ids[indices]")
        return binarize.static(x, self.levels, self.binarize_seed, ids)

    def scaled(self, x: Tensor) -> Tensor:
        """(x - shift) / divisor, as float32."""
        y = x.float()
        if self.shift:
            y = y - self._along(self.shift, y)
        return y / self._along(self.divisor, y) if self.divisor else y

    def __call__(
        self, x: Tensor, ids: Tensor | None = None, generator: torch.Generator | None = None, *, fixed: bool = False
    ) -> Tensor:
        """What the likelihood scores of raw ``x`` (B, *event), as float32."""
        return self.scaled(self.binarised(x, ids, generator, fixed=fixed))

    def invert(self, y: Tensor) -> Tensor:
        """Scaled numbers back in the data's unit; what binarisation took can't come back."""
        x = y * self._along(self.divisor, y) if self.divisor else y
        return x + self._along(self.shift, y) if self.shift else x

    def _along(self, values: tuple[float, ...], y: Tensor) -> Tensor:
        per_channel = self.kind == "image" and len(values) > 1
        return torch.tensor(values, dtype=y.dtype, device=y.device).view((-1, 1, 1) if per_channel else (-1,))

    def to_dict(self) -> dict[str, Any]:
        """Plain values (numbers, text and lists of them; nothing is None) that `from_dict` reads back exactly."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NESTED}
        names = {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items() if v is not None}
        return {
            **names,
            "column_names": [c.name for c in self.columns],
            "column_kinds": [c.kind for c in self.columns],
            "column_categories": [list(c) for c in self.categories],
            **_alphabet_values(self.alphabet),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transform:
        """The transform that `to_dict` described.

        Raises:
            DataError: an unknown or missing key.
        """
        known = {f.name for f in fields(cls)} - {*NESTED}
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in values.items()
            if not k.startswith(("column_", "alphabet_"))
        }
        for key in plain.keys() - known:
            raise DataError(f"transform.{key} is not known{nearest(key, known)}; the record of the run was changed")
        try:
            categories = tuple(map(tuple, values["column_categories"]))
            named = zip(values["column_names"], values["column_kinds"], categories, strict=True)
            columns = tuple(Column(n, k, len(c)) for n, k, c in named)
            return cls(**plain, columns=columns, categories=categories, alphabet=_alphabet(values))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the transform of the run can't be read ({error}); its record was changed") from error


def _alphabet_values(alphabet: Alphabet | None) -> dict[str, Any]:
    if alphabet is None:
        return {}
    characters = {} if alphabet.characters is None else {"alphabet_characters": alphabet.characters}
    return {"alphabet_end": alphabet.end, **characters}


def _alphabet(values: Mapping[str, Any]) -> Alphabet | None:
    return Alphabet(values.get("alphabet_characters"), values["alphabet_end"]) if "alphabet_end" in values else None
