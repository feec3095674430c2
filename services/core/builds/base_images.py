"""Base images of a Dockerfile: the names that a build takes content from, with build arguments filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.core.builds.dockerfile import instructions
from services.core.images.references import Reference
from services.errors import BadReference

_ARGUMENT = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-+])([^{}]*))?\})")
_QUOTES = "\"'"


def base_images(content: str, build_args: Mapping[str, str]) -> tuple[str, ...]:
    """Full names, each once: of FROM and of `COPY --from`. Stages, `scratch`, and what is no name are left out."""
    stages: set[str] = set()
    known: dict[str, str] = {}
    found: dict[str, None] = {}
    for instruction in instructions(content):
        words = instruction.rest.split()
        if instruction.name == "ARG" and not stages:  # those before the first FROM alone count in a FROM
            for word in words:
                name, _, default = word.partition("=")
                known[name] = build_args.get(name, _filled(default.strip(_QUOTES), known))
        named = ""
        if instruction.name == "FROM" and words:
            named = _filled(words[0].strip(_QUOTES), known)
        elif instruction.name == "COPY":
            named = dict(instruction.values).get("from", "").strip(_QUOTES)
        full = _full_name(named) if named.lower() not in stages | {"scratch"} else None
        if full is not None:
            found[full] = None
        if instruction.name == "FROM" and words:
            stages.add(words[2].lower() if len(words) >= 3 and words[1].lower() == "as" else "")
    return tuple(found)


def _filled(text: str, known: Mapping[str, str]) -> str:
    """The text with its arguments: `$A`, `${A}`, `${A:-other}`, `${A:+other}`."""

    def value(found: re.Match[str]) -> str:
        name, operator, other = found[1] or found[2], found[3] or "", found[4] or ""
        there = known.get(name)
        has = bool(there) if operator.startswith(":") else there is not None
        if operator.endswith("+"):
            return other if has else ""
        return (there or "") if has or not operator else other

    return _ARGUMENT.sub(value, text)


def _full_name(text: str) -> str | None:
    """None for the number of a stage, for an argument that nobody gave, and for what is no name."""
    if not text or text.isdecimal():
        return None
    try:
        return str(Reference.parse(text))
    except BadReference:
        return None
