"""Figures of a source tree: its size, how it hangs together, and how finely it is cut. Needs the standard library only.

    python benchmarks/source_figures.py src/lambent

Give another tree, such as that of an older commit (`git worktree add`), to compare.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

Graph = dict[str, set[str]]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def main(package: Path) -> None:
    """Print one figure a line."""
    sources = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    stems = Counter(path.stem for path in sources if path.stem != "__init__")
    figures = {
        "files": len(sources),
        "lines": sum(text.count("\n") for text in sources.values()),
        "longest file, lines": max(text.count("\n") for text in sources.values()),
        "modules at the top level": sum(path.parent == package and path.stem[:2] != "__" for path in sources),
        "circles of module imports": len(circles(import_graph(package, trees))),
        "file stems used more than once": sum(count > 1 for count in stems.values()),
        "private functions of one or two lines, called once": len(small_helpers(trees.values())),
        "docstrings under four words": sum(
            len(text.split()) < 4 for tree in trees.values() for text in docstrings(tree)
        ),
        "uses of getattr and hasattr": sum(attribute_lookups(tree) for tree in trees.values()),
    }
    for name, figure in figures.items():
        print(f"{figure:7,}  {name}")


def import_graph(package: Path, trees: dict[Path, ast.Module]) -> Graph:
    """The modules of the package that each module imports: at the top, inside functions, or for type checking."""
    names = {path: ".".join(path.relative_to(package.parent).with_suffix("").parts) for path in trees}
    known = {name.removesuffix(".__init__") for name in names.values()}
    graph: Graph = {}
    for path, tree in trees.items():
        statements = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
        targets = {target for node in statements for target in imported(node, known)}
        graph[names[path].removesuffix(".__init__")] = targets - {names[path]}
    return graph


def imported(node: ast.Import | ast.ImportFrom, known: set[str]) -> set[str]:
    """The modules among ``known`` that a statement names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & known
    whole = {f"{node.module}.{alias.name}" for alias in node.names}
    return whole & known or {str(node.module)} & known


def circles(graph: Graph) -> list[set[str]]:
    """Sets of two or more modules each of which reaches every other one by imports."""
    reach = {name: reachable(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {name} | {other for other in reach[name] if name in reach.get(other, set())}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def reachable(graph: Graph, start: str) -> set[str]:
    """All modules that ``start`` imports, directly or not."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


def small_helpers(trees: Iterable[ast.Module]) -> list[str]:
    """Private module-level functions with a body of one or two lines that their module names once."""
    found = []
    for tree in trees:
        uses = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        for node in tree.body:
            if isinstance(node, FUNCTIONS) and node.name.startswith("_") and uses[node.name] == 1:
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and (body[-1].end_lineno or 0) - body[0].lineno < 2:
                    found.append(node.name)
    return found


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings of a module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | FUNCTIONS) and (text := ast.get_docstring(node)):
            yield text


def attribute_lookups(tree: ast.Module) -> int:
    """Calls of getattr and hasattr."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sum(isinstance(called, ast.Name) and called.id in ("getattr", "hasattr") for called in calls)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "__init__.py").is_file():
        sys.exit(f"usage: {sys.argv[0]} PACKAGE, a folder with an __init__.py, such as src/lambent")
    main(Path(sys.argv[1]))
