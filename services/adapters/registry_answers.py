"""Decoding of a registry's answers. What no registry answers is one kind of error, with its reason.

Where a registry should be there may be a proxy's error page, a portal that answers 200 with HTML, or another service.
"""

from __future__ import annotations

from typing import TypeVar

import aiohttp
import msgspec

from events.malformed import MALFORMED
from services.errors import RegistryUnavailable

T = TypeVar("T")
BAD_ANSWER = "registry_bad_answer"
_SHOWN_BYTES = 80


def decoded(content: bytes, kind: type[T], answer: aiohttp.ClientResponse) -> T:
    """`content` as `kind`. Raises RegistryUnavailable for anything else."""
    try:
        return msgspec.json.decode(content, type=kind)
    except MALFORMED as problem:
        raise not_a_registry(answer, f"{_shown(content)} ({problem})") from problem


def not_a_registry(answer: aiohttp.ClientResponse, found: str) -> RegistryUnavailable:
    """The error for an answer that no registry gives."""
    kind = answer.headers.get("Content-Type", "no type")
    return RegistryUnavailable(
        f"{answer.url.origin()} answered {answer.method} {answer.url.path} with {answer.status} ({kind}) and {found}:"
        " is it a registry? See whether CYROID_REGISTRY_URL is the registry's own address and what stands before it",
        code=BAD_ANSWER,
    )


def _shown(content: bytes) -> str:
    text = " ".join(content[:_SHOWN_BYTES].decode(errors="replace").split())
    return f"{text!r}" if text else "nothing"
