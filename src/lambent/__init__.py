"""lambent: latent-variable models from the same few parts, every number true.

>>> import lambent
>>> lambent.recipe_names()[:3]
['linear-ae', 'ae', 'sparse-ae']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.comparison import compare_gradients
    from lambent.errors import LambentError
    from lambent.fitting import fit
    from lambent.recipes.table import names as recipe_names
    from lambent.run import Run, load
    from lambent.run_comparison import compare_runs

__all__ = ["LambentError", "Run", "compare_gradients", "compare_runs", "fit", "load", "recipe_names"]

_HOMES = {
    "LambentError": ("lambent.errors", "LambentError"),
    "Run": ("lambent.run", "Run"),
    "compare_gradients": ("lambent.comparison", "compare_gradients"),
    "compare_runs": ("lambent.run_comparison", "compare_runs"),
    "fit": ("lambent.fitting", "fit"),
    "load": ("lambent.run", "load"),
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
