"""lambent: latent-variable models from the same few parts, every number true.

>>> import lambent
>>> lambent.recipe_names()[:3]
['linear-ae', 'ae', 'sparse-ae']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.errors import LambentError
    from lambent.gradients.compare import compare_gradients
    from lambent.recipes.table import names as recipe_names
    from lambent.runs.compare import compare_runs
    from lambent.runs.fit import fit
    from lambent.runs.run import Run, load

__all__ = ["LambentError", "Run", "compare_gradients", "compare_runs", "fit", "load", "recipe_names"]

_HOMES = {
    "LambentError": ("lambent.errors", "LambentError"),
    "Run": ("lambent.runs.run", "Run"),
    "compare_gradients": ("lambent.gradients.compare", "compare_gradients"),
    "compare_runs": ("lambent.runs.compare", "compare_runs"),
    "fit": ("lambent.runs.fit", "fit"),
    "load": ("lambent.runs.run", "load"),
    "recipe_names": ("lambent.recipes.table", "names"),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: torch is heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lambent' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
