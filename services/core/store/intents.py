"""Intents: the digests that pushes under way rely on, so that garbage collection leaves them alone.

    {prefix}:store:intents    sorted set: digest, scored by the moment until which a push may rely on it

A pusher writes a digest here **before** it asks the registry for it; the collector reads the set **after** it has set a
blob aside. So either the pusher finds the blob missing and uploads it, or the collector finds the intent and brings the
blob back. Intents are left to lapse; nobody has to be alive to take them out.
"""

from __future__ import annotations

from collections.abc import Iterable

from events.bus import IndexWrite, Outcome

#: Longer than any push takes between its first look at a blob and its manifest.
INTENT_SECONDS = 6 * 3600.0


def intents_key(prefix: str) -> str:
    """The key of the sorted set of intents."""
    return f"{prefix}:store:intents"


def announced(prefix: str, digests: Iterable[str], now: float) -> Outcome:
    """Add intents for `digests` (`sha256:…`) from `now`, in seconds since the epoch."""
    key = intents_key(prefix)
    return Outcome(index=tuple(IndexWrite(key, digest, now + INTENT_SECONDS) for digest in digests))


def lapsed(prefix: str, digests: Iterable[str]) -> Outcome:
    """Remove the intents that have expired."""
    key = intents_key(prefix)
    return Outcome(index=tuple(IndexWrite(key, digest, None) for digest in digests))
