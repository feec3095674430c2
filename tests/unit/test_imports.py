"""No two modules need one another to be imported, also not by an import that hides in a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("events", "services", "deploy", "bench")


def _modules() -> dict[str, Path]:
    """Every module of the packages, by its name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            words = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    return found


def _imported(tree: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a module imports, at any depth; what only type checkers read does not count."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names if alias.name in modules)
    elif isinstance(tree, ast.ImportFrom) and tree.module is not None:
        for alias in tree.names:
            name = f"{tree.module}.{alias.name}"
            yield from (one for one in (name if name in modules else tree.module,) if one in modules)
    for child in ast.iter_child_nodes(tree):
        yield from _imported(child, modules)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two modules and more that reach one another (strongly connected components, Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_no_modules_import_one_another() -> None:
    """Function-level imports counted: a cycle that hides in a function is one as well."""
    modules = _modules()
    graph = {name: set(_imported(ast.parse(path.read_text()), modules)) - {name} for name, path in modules.items()}
    assert sum(map(len, graph.values())) > len(modules)
    assert cycles(graph) == []


def test_a_cycle_is_found() -> None:
    """Through a third module, and apart from what only leads to it."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set[str]()}
    assert cycles(graph) == [["a", "b", "c"]]
