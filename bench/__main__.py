"""`python -m bench CASE [--json] …`: side-by-side measurements.

A case is a folder here whose module `case` has `main(argv) -> dict`; that module's first line is its help. One JSON
object goes to stdout; everything a case wants to say meanwhile goes to stderr.
"""

from __future__ import annotations

import ast
import importlib
import json
import signal
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def cases() -> dict[str, str]:
    """Every folder here with a module `case`, and the first line of that module's docstring; read, not imported."""
    docstrings = {path.parent.name: ast.get_docstring(ast.parse(path.read_text())) for path in FOLDER.glob("*/case.py")}
    return {name: (docstrings[name] or "").partition("\n")[0] for name in sorted(docstrings)}


def run(argv: list[str]) -> int:
    known = cases()
    if not argv or argv[0] not in known:
        asked = bool(argv) and argv[0] in ("-h", "--help")
        lines = ["usage: python -m bench CASE [--json] [options of the case]", ""]
        lines += [f"  {name:<12} {line}" for name, line in known.items()]
        sys.stderr.write("\n".join(lines) + "\n")
        return 0 if asked else 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it started ends with it
    pretty = "--json" not in argv
    result = importlib.import_module(f"bench.{argv[0]}.case").main([word for word in argv[1:] if word != "--json"])
    sys.stdout.write(json.dumps(result, indent=2 if pretty else None) + "\n")
    return 0 if result.get("ok", True) else 1


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
