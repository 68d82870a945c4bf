"""The layout, read from the sources: imports run one way, nothing is unpickled, tests mirror the package."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "lambent"
LOOSE = {"__init__", "__main__", "errors", "seeds", "settings", "shapes", "trace"}
UNMIRRORED = {"docs", "exact", "support"}
"""Folders of tests with no package behind them: of the documents, of exact truths across packages, and helpers."""
ORDER = (
    ("errors",),
    ("seeds", "settings", "shapes", "storage"),
    ("data", "distributions", "networks"),
    ("likelihoods", "posteriors", "priors"),
    ("draws", "trace"),
    ("models",),
    ("objectives",),
    ("evaluation", "training"),
    ("config", "recipes"),
    ("runs",),
    ("gradients", "report"),
    ("cli",),
    ("__main__",),
)
"""Packages and loose modules, lowest first: each imports only from its own group and those above it in this list."""
BANNED_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
BANNED_CALLS = {"eval", "exec", "torch.load", "torch.jit.load", "torch.hub.load", "np.load(allow_pickle)"}


def modules_of(package: Path) -> dict[str, Path]:
    """The dotted name of each module, a package under its own name."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def statements(body: list[ast.stmt], *, deferred: bool) -> Iterator[ast.stmt]:
    """All statements that run at import, none of those for type checkers; with ``deferred`` those of functions too."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from statements(statement.orelse, deferred=deferred)
            continue
        yield statement
        if deferred or not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from statements(getattr(statement, name, []), deferred=deferred)


def imported(path: Path, names: dict[str, Path], *, deferred: bool = False) -> set[str]:
    """The modules among ``names`` that a file imports (absolute imports alone: the package has no others)."""
    found = set()
    for statement in statements(ast.parse(path.read_text()).body, deferred=deferred):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path}:{statement.lineno} is a relative import"
            whole = {alias.name: f"{statement.module}.{alias.name}" for alias in statement.names}
            found |= {full if full in names else str(statement.module) for full in whole.values()}
    return found & names.keys()


def import_graph(package: Path) -> dict[str, set[str]]:
    """What must have been imported before each module: what it imports, and the packages that hold that.

    Packages that hold the module itself count only where it imports from them: their own import has begun by then.
    """
    names, graph = modules_of(package), {}
    for name, path in names.items():
        targets = imported(path, names)
        around = {holder for target in targets for holder in holders(target)}
        graph[name] = targets | around - {name, *holders(name)}
    return graph


def holders(module: str) -> list[str]:
    """The packages that a module lies in."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def above(package: Path) -> list[str]:
    """Imports, at the top or in functions, from a group that comes later in the order."""
    rank = {name: n for n, group in enumerate(ORDER) for name in group}
    names, found = modules_of(package), []
    for module, path in names.items():
        own = module.split(".")[1:2]
        for target in imported(path, names, deferred=True) if own else ():
            other = target.split(".")[1:2]
            if other and rank[other[0]] > rank[own[0]]:
                found.append(f"{module} imports {target}")
    return found


def banned_in(source: str) -> set[str]:
    """Imports and calls that could run what a file holds."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & BANNED_IMPORTS
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[0]} & BANNED_IMPORTS
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func)} & BANNED_CALLS
            found |= {str(k.arg) for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"}
    return found


def write(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "lambent"
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return package


def test_no_modules_import_one_another_in_a_circle():
    assert circle_in(import_graph(PACKAGE)) == []


def test_no_packages_import_one_another_in_a_circle():
    packages: dict[str, set[str]] = {}
    for module, targets in import_graph(PACKAGE).items():
        own = ".".join(module.split(".")[:2])
        packages.setdefault(own, set()).update({".".join(t.split(".")[:2]) for t in targets} - {own, "lambent"})
    assert circle_in(packages) == []


def test_imports_run_one_way():
    there = {name.split(".")[1] for name in modules_of(PACKAGE) if "." in name}
    assert {name for group in ORDER for name in group} == there
    assert above(PACKAGE) == []


def test_few_modules_stand_loose():
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_nothing_in_the_package_unpickles_or_evaluates():
    assert {name: banned for name, path in modules_of(PACKAGE).items() if (banned := banned_in(path.read_text()))} == {}


def test_the_tests_mirror_the_package():
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("*.py")}
    assert {f for f in folders if str(f) not in UNMIRRORED and not (PACKAGE / f / "__init__.py").exists()} == set()


CIRCLES = {
    "two modules": {"a.py": "from lambent.b import x", "b.py": "import lambent.a"},
    "through a package": {
        "p/__init__.py": "from lambent.p.one import x",
        "p/one.py": "import lambent.a",
        "p/two.py": "",
        "a.py": "from lambent.p.two import y",
    },
    "with the package that holds it": {
        "p/__init__.py": "from lambent.p.a import x",
        "p/a.py": "from lambent.p import y",
    },
    "in a try": {"a.py": "try:\n    import lambent.b\nexcept ImportError:\n    pass", "b.py": "import lambent.a"},
    "in a class": {"a.py": "class A:\n    from lambent.b import x", "b.py": "from lambent import a"},
}


@pytest.mark.parametrize("name", CIRCLES)
def test_a_planted_circle_is_found(name, tmp_path):
    circle = circle_in(import_graph(write(tmp_path, {"__init__.py": ""} | CIRCLES[name])))
    assert any(module.endswith(".a") for module in circle)


def test_what_runs_later_or_never_makes_no_circle(tmp_path):
    later = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lambent.a\ndef f():\n    import lambent.a"
    package = write(tmp_path, {"__init__.py": "", "a.py": "import lambent.b", "b.py": later})
    assert circle_in(import_graph(package)) == []


@pytest.mark.parametrize("source", ["import lambent.runs", "def f():\n    from lambent.runs import fit"])
def test_an_import_against_the_order_is_found(source, tmp_path):
    package = write(tmp_path, {"__init__.py": "", "runs.py": "", "models/__init__.py": source})
    assert above(package) == ["lambent.models imports lambent.runs"]


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f, weights_only=True)",
        "import yaml",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=asked)",
        "eval(text)",
        "exec(text)",
    ],
)
def test_planted_unpickling_is_found(planted):
    assert banned_in(planted)


def test_evaluation_mode_and_plain_arrays_are_no_unpickling():
    assert banned_in("model.eval(); np.load(f, allow_pickle=False); json.loads(text)") == set()
