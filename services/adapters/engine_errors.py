"""Classification of an engine's errors by their text, because the engine has status codes for few of them.

The words are those of engine 20.10 to 28.5; the conformance suite makes each of these errors happen on a real engine.
"""

from __future__ import annotations

import re

import msgspec

from events.malformed import MALFORMED
from services.errors import (
    BadArchive,
    BadInput,
    BuildFailed,
    CyroidError,
    EngineUnavailable,
    NoSpace,
    NotFound,
    RegistryUnavailable,
    TransferFailed,
)

_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_AWAY = re.compile(
    r"connection refused|no such host|i/o timeout|network is unreachable|connection reset|context deadline exceeded"
    r"|TLS handshake timeout|no route to host|server misbehaving|Client\.Timeout|received unexpected HTTP status: 5"
    r"|50[0234] ",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"manifest unknown|no such image|not found|does not exist|pull access denied|name unknown|no such container",
    re.IGNORECASE,
)
_BAD_TAR = re.compile(
    r"invalid tar|invalid image|unexpected EOF|archive/tar|invalid archive|no such file or directory|invalid manifest"
    r"|unrecognized image|invalid diffID|wrong diff id"
    r"|invalid character|not a directory|missing|not found|invalid argument|flate:|gzip:|zstd",
    re.IGNORECASE,
)
#: Said by the proxy in front of the engine (deploy/container/engine_proxy.py), not by the engine itself.
_PROXY = "engine-proxy: "
_CLOSING = re.compile(r"daemon is shutting down|server closed|context canceled", re.IGNORECASE)


def engine_error(
    status: int, text: str, what: str, where: str, otherwise: type[CyroidError] = TransferFailed
) -> CyroidError:
    """The error for `status` (0: came as a line of a stream) and the engine's `text`, never longer than a paragraph."""
    said = _message(text)
    kind, advice = _kind(status, said, otherwise)
    return kind(f"{what}: the engine at {where} says: {said[:500]}{advice}")


def describe_connection(what: str, where: str, problem: object) -> str:
    """The error for an engine that does not answer."""
    # aiohttp ends its own text with the system's reason in brackets.
    named = re.search(r"\[([^\[\]]+)\]$", str(problem))
    reason = named[1].lower() if named else problem
    return f"{what}: cannot talk to the engine at {where} ({reason}); see whether it runs and its address is right"


def _message(text: str) -> str:
    try:
        told = msgspec.json.decode(text, type=dict[str, object]).get("message")
    except MALFORMED:
        told = None
    return " ".join(str(told or text or "nothing").split())


def _kind(status: int, said: str, otherwise: type[CyroidError]) -> tuple[type[CyroidError], str]:
    if _NO_SPACE.search(said):
        return NoSpace, "; make room on its disk"
    if _CLOSING.search(said) or (said.startswith(_PROXY) and status in (502, 503, 504)):
        return EngineUnavailable, ""
    if said.startswith(_PROXY) and otherwise is not BuildFailed:
        return BadInput, ""
    if otherwise is BadArchive:
        return (BadArchive if status == 400 or _BAD_TAR.search(said) else TransferFailed), ""
    return (otherwise if otherwise is BuildFailed else _by_words(status, said, otherwise)), ""


def _by_words(status: int, said: str, otherwise: type[CyroidError]) -> type[CyroidError]:
    away = _AWAY.search(said) is not None
    if status == 404 or (_MISSING.search(said) and not away):
        return NotFound
    if away:
        return RegistryUnavailable
    return BadInput if 400 <= status < 500 else otherwise
