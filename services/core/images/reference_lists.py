"""Normalisation of lists of references: `a:1` and `docker.io/library/a:1` are the same."""

from __future__ import annotations

from collections.abc import Iterable

from services.core.images.manifests import sha256
from services.core.images.references import Reference
from services.errors import BadReference


def in_full(asked: Iterable[str]) -> tuple[str, ...]:
    """The references in full, each once; an invalid one stays as it was written."""
    return tuple(dict.fromkeys(map(_full_name, asked)))


def references_digest(asked: Iterable[str]) -> str:
    """A digest of the list that is equal if and only if the references in full are equal."""
    return sha256("\n".join(in_full(asked)).encode())


def _full_name(text: str) -> str:
    try:
        return str(Reference.parse(text))
    except BadReference:
        return text
