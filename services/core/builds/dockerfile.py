"""Features of a Dockerfile that need BuildKit: the classic builder refuses, ignores or misreads them.

The classic builder of engine 26.1 and 28.5 takes a here-document for an empty command and ends with success, and it
ignores `# syntax=` and `COPY --link`. So a Dockerfile is read before it goes to that builder (docs.docker.com,
"Dockerfile reference"; the classic builder's own flags are those of moby's `builder/dockerfile/dispatchers.go`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][\w-]*)\s*=\s*(.+?)\s*\Z")
_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s*(.*)\Z", re.DOTALL)
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=((?:\"[^\"]*\"|'[^']*'|\S)*))?(?:\s+|\Z)")
_HEREDOC = re.compile(r"(?:^|\s)\d*<<(-?)([\"']?)([A-Za-z_][\w.-]*)\2(?=\s|\Z|[;&|)>])")
_WITH_HEREDOC = {"RUN", "COPY", "ADD"}
#: Flags that the classic builder knows, by instruction.
_CLASSIC_FLAGS: Mapping[str, frozenset[str]] = {
    "ADD": frozenset({"chown"}),
    "COPY": frozenset({"chown", "from"}),
    "FROM": frozenset({"platform"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "retries"}),
}
#: Build arguments that BuildKit sets by itself, and that are empty in the classic builder.
_PLATFORM_ARGUMENTS = frozenset(
    f"{whose}{what}" for whose in ("TARGET", "BUILD") for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `values` are its flags and what was given them, `rest` is what follows; `heredocs` are the names
    of its here-documents."""

    line: int
    name: str
    values: tuple[tuple[str, str], ...]
    rest: str
    heredocs: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.values)


def needs_buildkit(content: str, build_args: Mapping[str, str]) -> list[str]:
    """The parts of a Dockerfile that the classic builder cannot do, as `line 3: RUN --mount`; empty if it can do
    all.
    """
    found = [f"line {line}: # syntax={value}" for name, value, line in _directives(_lines(content)) if name == "syntax"]
    for instruction in instructions(content):
        known = _CLASSIC_FLAGS.get(instruction.name, frozenset())
        where = f"line {instruction.line}: {instruction.name}"
        found += [f"{where} --{flag}" for flag in instruction.flags if flag not in known]
        found += [f"{where} <<{name}" for name in instruction.heredocs]
        if instruction.name == "ARG":
            asked = instruction.rest.split()
            found += [f"{where} {name}" for name in asked if name in _PLATFORM_ARGUMENTS and name not in build_args]
    return found


def instructions(content: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, in order."""
    lines = _lines(content)
    escape = next((value for name, value, _ in _directives(lines) if name == "escape"), "\\")
    return _instructions(lines, escape)


def _lines(content: str) -> list[str]:
    return content.removeprefix("\ufeff").splitlines()


def _directives(lines: list[str]) -> list[tuple[str, str, int]]:
    """Parser directives: the comments of that form at the very top, before any other line."""
    found = []
    for number, line in enumerate(lines, start=1):
        matched = _DIRECTIVE.match(line.strip())
        if matched is None:
            break
        found.append((matched[1].lower(), matched[2], number))
    return found


def _instructions(lines: list[str], escape: str) -> Iterator[Instruction]:
    """Instructions with their continuation lines; the text of here-documents is passed over."""
    place = 0
    while place < len(lines):
        began, written, place = place + 1, *_joined(lines, place, escape)
        matched = _INSTRUCTION.match(written)
        if matched is None:
            continue
        name, rest = matched[1].upper(), matched[2]
        if name == "ONBUILD" and (inner := _INSTRUCTION.match(rest)):
            name, rest = inner[1].upper(), inner[2]
        values = []
        while flag := _FLAG.match(rest):
            values.append((flag[1], flag[2] or ""))
            rest = rest[flag.end() :]
        heredocs = list(_HEREDOC.finditer(rest)) if name in _WITH_HEREDOC else []
        yield Instruction(began, name, tuple(values), rest, tuple(found[3] for found in heredocs))
        for found in heredocs:
            place = _after_heredoc(lines, place, found[3], strip_tabs=bool(found[1]))


def _joined(lines: list[str], place: int, escape: str) -> tuple[str, int]:
    """One instruction's text and the place after it: comments and empty lines within it do not end it."""
    written = ""
    while place < len(lines):
        line = lines[place]
        place += 1
        if line.lstrip().startswith("#") or (written and not line.strip()):
            if not written:
                return "", place
            continue
        stripped = line.rstrip()
        if not stripped.endswith(escape):
            return written + line, place
        written += stripped.removesuffix(escape)
    return written, place


def _after_heredoc(lines: list[str], place: int, end: str, *, strip_tabs: bool) -> int:
    while place < len(lines):
        line = lines[place].lstrip("\t") if strip_tabs else lines[place]
        place += 1
        if line == end:
            break
    return place
