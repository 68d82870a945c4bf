"""Every command in the documents is one that the command line, or the repository, knows."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError, MissingArgumentError

import lambent
from lambent.cli.app import app
from lambent.errors import RenamedSetting
from lambent.recipes import configure
from lambent.settings import options_of, registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
OPEN = re.compile(r"…|\.\.\.|\$|\b[A-Z]{2,}\b")
"""Marks of a command that stands for many: `lambent fit RECIPE …`."""


def commands(text: str) -> Iterator[str]:
    """Command lines in ``bash`` and ``console`` blocks, and in code spans that start with a program's name."""
    for language, block in re.findall(r"^```(bash|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = re.sub(r"\\\n", " ", block).splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in lines:
            yield from (part.strip() for part in re.split(r"&&|;", re.sub(r"(^|\s)#.*", "", line)) if part.strip())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (re.sub(r"\s+", " ", span) for span in re.findall(r"`((?:lambent|make|pytest|python) [^`]*)`", prose))


def fault(command: str) -> str | None:
    """Why the command can't be run, or None."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if "-m" in words and "lambent" in words:
        words = words[words.index("lambent") :]
    if words[:1] == ["lambent"]:
        return _verb_fault(words[1:])
    if words[:1] == ["make"]:
        return None if f"\n{words[1]}: " in (ROOT / "Makefile").read_text() else f"no target {words[1]}"
    if words[:1] in (["pytest"], ["python"]):
        read = words[: words.index("--out")] if "--out" in words else words
        paths = [word.split("::")[0] for word in read if re.match(r"(tests|benchmarks|examples|docs)/", word)]
        return " ".join(f"no file {path}" for path in paths if not (ROOT / path).exists()) or None
    return None


def _verb_fault(words: list[str]) -> str | None:
    numbered = [re.sub(r"^[KN]$", "1", word) for word in words]
    try:
        verb, bound, _ = app.parse_args(numbered, exit_on_error=False, print_error=False)
    except MissingArgumentError:  # prose names a verb and its flag without the rest
        return None
    except CycloptsError as error:
        return str(error)
    if verb.__name__ not in ("fit", "show", "gradients"):
        return None
    given = bound.arguments
    recipe = str(given.get("recipe", given.get("source")))
    if OPEN.search(recipe) or (verb.__name__ == "gradients" and "/" in recipe):
        return None
    settings = [word for word in given.get("settings", ()) if not OPEN.search(word)]
    settings += [f"{key}={given[key]}" for key in ("latent", "prior", "epochs", "batch_size") if key in given]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RenamedSetting)
            configure(recipe, tokens=tuple(settings))
    except (lambent.LambentError, RenamedSetting) as error:
        return str(error)
    return None


def settings(text: str) -> Iterator[str]:
    """``key=value`` in code spans that hold nothing else."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]*)`", prose):
        words = span.split()
        if re.search(r"^key=value$|=(True|False)$", span):  # the pattern itself, and Python's keyword arguments
            continue
        if words and all(re.fullmatch(r"[a-z_.]+=\S+", word) for word in words):
            yield from words


def unknown(setting: str) -> bool:
    """Whether no part has such a setting, or no kind such a part."""
    key, _, value = setting.partition("=")
    section, _, option = key.rpartition(".")
    parts = registry.parts if not section else {section: registry.parts.get(section, {})}
    if not section and option in registry.parts:
        return not OPEN.search(value) and value not in registry.names(option)
    return not any(option in options_of(part) for kind in parts.values() for part in kind.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_can_be_given(page):
    faults = {command: why for command in commands(page.read_text()) if (why := fault(command))}
    refused = {"lambent fit vae posterior=delta objective=iwae --data digits --out runs/x"}  # shown with its refusal
    assert {command: why for command, why in faults.items() if command not in refused} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_settings_that_a_page_names_exist(page):
    assert [setting for setting in settings(page.read_text()) if unknown(setting)] == []


def test_a_setting_that_does_not_exist_is_found():
    text = "Say `prior=mixtures`, `prior.component=3`, `lattent=2` or `prior=mixture components=3 train.lr=1e-3`."
    assert [s for s in settings(text) if unknown(s)] == ["prior=mixtures", "prior.component=3", "lattent=2"]


@pytest.mark.parametrize(
    "command",
    [
        "lambent fit vea --data digits --out runs/x",
        "lambent fit vae latents=3 --data digits --out runs/x",
        "lambent fit vae --data digits --output runs/x",
        "lambent measure runs/x",
        "lambent evaluate runs/x --samples many",
        "make site",
        "pytest tests/test_nothing.py",
    ],
)
def test_a_command_that_cannot_be_given_is_found(command):
    text = f"```bash\n{command}\n```\n"
    assert [bool(fault(c)) for c in commands(text)] == [True]
    assert [bool(fault(c)) for c in commands(f"Say `{command}`.")] == [True]
