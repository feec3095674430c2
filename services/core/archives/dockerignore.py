"""`.dockerignore` rules of a build's context (docs.docker.com, "Dockerignore files"; moby/patternmatcher).

Lines are patterns relative to the context's root; `*` and `?` stop at a slash, `**` does not, `!` takes back what an
earlier line left out, and the last line that matches a path or one of its parents decides. `#` begins a comment.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class _Rule:
    expression: re.Pattern[str]
    takes_back: bool


@dataclass(frozen=True, slots=True)
class Dockerignore:
    """`excludes("a/b.txt")` for paths with slashes, relative to the context's root."""

    rules: tuple[_Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the file's content. Raises ValueError with the line that is no pattern."""
        rules = []
        for line in text.removeprefix("\ufeff").splitlines():
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            takes_back = pattern.startswith("!")
            cleaned = posixpath.normpath(pattern.removeprefix("!").strip()).lstrip("/")
            if takes_back and pattern == "!":
                raise ValueError(f"illegal exclusion pattern: {line!r}")
            if cleaned in {"", "."}:
                continue
            rules.append(_Rule(_expression(cleaned, line), takes_back))
        return cls(tuple(rules))

    def excludes(self, path: str) -> bool:
        """Whether `path` stays out: what the last line says that matches it or a folder it is in."""
        parts = path.split("/")
        parents = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        out = False
        for rule in self.rules:
            if rule.takes_back == out and any(rule.expression.fullmatch(parent) for parent in parents):
                out = not rule.takes_back
        return out

    @property
    def takes_back(self) -> bool:
        """Whether something inside an excluded folder may still be wanted, so that the folder has to be walked."""
        return any(rule.takes_back for rule in self.rules)


def _expression(pattern: str, line: str) -> re.Pattern[str]:
    """The pattern as a regular expression on a whole path."""
    out = ""
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if pattern.startswith("**", place - 1):
            place += 1
            if pattern.startswith("/", place):
                place += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
        elif letter == "*":
            out += "[^/]*"
        elif letter == "?":
            out += "[^/]"
        elif letter == "[":
            end = pattern.find("]", place + 1)
            if end < 0:
                raise ValueError(f"a '[' without its ']': {line!r}")
            out += f"[{_class(pattern[place:end])}]"
            place = end + 1
        elif letter == "\\" and place < len(pattern):
            out += re.escape(pattern[place])
            place += 1
        else:
            out += re.escape(letter)
    try:
        return re.compile(out, re.DOTALL)
    except re.error as problem:
        raise ValueError(f"{problem}: {line!r}") from problem


def _class(inside: str) -> str:
    """What stands in brackets, letter by letter: `^`, single letters and ranges; nothing else has a meaning there."""
    out, place = "", 0
    if inside.startswith("^") and len(inside) > 1:
        out, place = "^", 1
    while place < len(inside):
        first, rest = inside[place], inside[place + 1 : place + 3]
        if len(rest) == 2 and rest[0] == "-":
            out += f"{re.escape(first)}-{re.escape(rest[1])}"
            place += 3
        else:
            out += re.escape(first)
            place += 1
    return out
