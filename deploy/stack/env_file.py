"""`.env` beside docker-compose.yml: what `make up` found out and was given.

So a bare `docker compose` there does the same as `make up`, and `make down` finds what was started. Lines outside our
marks are the operator's: they stay, and win.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BEGIN = "# ---- begin: written by `make up`, made anew by the next one; put settings of your own outside of it"
END = "# ---- end"


def read(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The operator's own variables, and ours. Both empty where there is no file."""
    if not file.exists():
        return {}, {}
    outside, inside = _parts(file.read_text())
    return _variables(outside), _variables(inside)


def write(file: Path, values: Mapping[str, str]) -> None:
    """Put `values` between our marks, except what the operator sets; without any, our part goes."""
    outside, _ = _parts(file.read_text()) if file.exists() else ([], [])
    own = _variables(outside)
    block = [f"{name}={_quoted(value)}" for name, value in sorted(values.items()) if name not in own]
    lines = [*outside, *([BEGIN, *block, END] if block else [])]
    if not lines:
        file.unlink(missing_ok=True)
        return
    new = file.with_name(file.name + ".new")
    new.write_text("".join(f"{line}\n" for line in lines))
    new.replace(file)


def _parts(text: str) -> tuple[list[str], list[str]]:
    """The lines outside our marks and inside."""
    outside: list[str] = []
    inside: list[str] = []
    current = outside
    for line in text.splitlines():
        if line == BEGIN:
            current = inside
        elif line == END and current is inside:
            current = outside
        else:
            current.append(line)
    return outside, inside


def _variables(lines: list[str]) -> dict[str, str]:
    pairs = (line.removeprefix("export ").partition("=") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, equals, value in pairs if equals}


def _quoted(value: str) -> str:
    """In single quotes Compose takes everything as it stands. A value that has one, or a line's end, is refused."""
    if "'" in value or "\n" in value:
        raise ValueError(f"{value!r} cannot stand in .env: it has a quote or an end of line")
    return f"'{value}'"
