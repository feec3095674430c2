"""The counts that keep the code readable: lengths of modules and functions, and where tests get their surroundings."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: `events/messages.py`, and the bus of an agent behind its gateway: lists of what there is, one entry after the other.
LONG_MODULES = 2
MODULE_LINES = 300
MEDIAN_LINES = 120
FUNCTION_LINES = 50
#: Tests of the laboratory, of the simulation and of what is made of them.
OWN = (
    "tests/unit/deploy/",
    "tests/unit/bench/",
    "tests/integration/lab/",
    "tests/laboratory.py",
    "tests/simulation.py",
)


def _sources(*packages: str) -> dict[str, str]:
    """Path below the root, and text, of every module."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_modules_are_short() -> None:
    """One idea each."""
    lines = {path: len(text.splitlines()) for path, text in _sources("events", "services").items()}
    long = {path: count for path, count in lines.items() if count > MODULE_LINES}
    assert len(long) <= LONG_MODULES, long
    assert statistics.median(lines.values()) <= MEDIAN_LINES


def test_functions_are_short() -> None:
    """Signature and docstring counted, decorators not."""
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, text in _sources("events", "services", "deploy", "bench").items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_the_package_shows_its_folders() -> None:
    """What lies beside the folders is the public API, its composition, and what all of them share."""
    assert len(list((ROOT / "services").glob("*.py"))) <= 9


def test_nobody_patches_what_composes() -> None:
    """Adapters are given to `open_resources`; a test that patched the composer would prove another one."""
    patching = re.compile(r"monkeypatch\.setattr\(\s*(resources|bootstrap|openers)\b|\"services\.(resources|bootstrap)")
    assert [path for path, text in _sources("tests", "bench").items() if patching.search(text)] == []


def test_tests_get_laboratory_and_simulation_from_one_place() -> None:
    """`tests.laboratory` and `tests.simulation` say what tests may use of them."""
    drawing = re.compile(r"^\s*(from|import) (deploy\.lab|bench\.simulation)\b", re.MULTILINE)
    others = {path: text for path, text in _sources("tests").items() if not path.startswith(OWN)}
    assert [path for path, text in others.items() if drawing.search(text)] == []
