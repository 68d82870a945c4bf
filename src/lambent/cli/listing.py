"""Recipes and settings as text and as plain rows."""

from __future__ import annotations

from typing import Any

from lambent.config.config import Config, fields_of
from lambent.config.layers import ONE_OF_A_KIND
from lambent.recipes.named import RECIPES, configure, find_recipe
from lambent.settings import options_of, type_of


def recipe_rows() -> list[dict[str, Any]]:
    """Name, title, source and expected figure of every recipe."""
    return [
        {"name": r.name, "title": r.title, "source": r.source, "expected": r.expected or None, "settings": r.settings}
        for r in RECIPES.values()
    ]


def recipe_text() -> str:
    """One line a recipe."""
    width = max(map(len, RECIPES))
    lines = [f"{r.name:<{width}}  {r.title}  [{r.source}]" for r in RECIPES.values()]
    return "\n".join(
        [*lines, "", "lambent show RECIPE lists its settings; lambent fit RECIPE --data SOURCE --out RUN trains it"]
    )


def settings_text(recipe: str, tokens: tuple[str, ...]) -> str:
    """Every setting of a recipe with its value, type, range and meaning, by section."""
    found, config = find_recipe(recipe), configure(recipe, tokens=tokens)
    head = [f"{found.name}: {found.title}", f"source: {found.source}"]
    head += [f"expected: {found.expected}"] if found.expected else []
    return "\n".join([*head, *(line for section in fields_of(config) for line in _section(config, *section))])


def _section(config: Config, section: str, settings: Any) -> list[str]:
    names = [] if section in ONE_OF_A_KIND else config.choices(section)
    title = f"[{section}] = {config.name_of(section)}" if names else f"[{section}]"
    choice = [f"  one of {', '.join(names)}"] if len(names) > 1 else []
    return ["", title, *choice, *(_setting(settings, name) for name in options_of(type(settings)))]


def _setting(settings: Any, name: str) -> str:
    field = options_of(type(settings))[name]
    value = getattr(settings, name)
    shown = list(value) if isinstance(value, tuple) else "none" if value is None else value
    limits = _limits(field.metadata)
    return f"  {name} = {shown}   ({type_of(type(settings), name)}{limits}) {field.metadata['help']}"


def _limits(metadata: Any) -> str:
    if metadata["choices"]:
        return f": {', '.join(metadata['choices'])}"
    limits = [(">", metadata["above"]), (">=", metadata["minimum"]), ("<=", metadata["maximum"])]
    return "".join(f", {sign} {limit:g}" for sign, limit in limits if limit is not None)
