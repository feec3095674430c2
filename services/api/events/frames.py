"""Frames of server-sent events, and the ids by which a client goes on where it was, on several streams at once."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from events.malformed import MALFORMED

#: Before the first entry of a stream.
BEGINNING = "0-0"
HEARTBEAT = b": heartbeat\n\n"
_ENTRY = re.compile(r"(?P<ms>[0-9]{1,20})-(?P<seq>[0-9]{1,20})")
_ID_CHARACTERS = 512


def frame(event: str, data: object, *, ident: str = "") -> bytes:
    """One event. JSON has no line breaks, whatever text is in it."""
    head = f"id: {ident}\nevent: {event}\ndata: " if ident else f"event: {event}\ndata: "
    return head.encode() + msgspec.json.encode(data) + b"\n\n"


class Positions(msgspec.Struct, frozen=True):
    """The last entry that was told of each stream, by the stream's short name."""

    entries: dict[str, str]

    def encode(self) -> str:
        return ";".join(f"{name}={entry}" for name, entry in sorted(self.entries.items()))

    @classmethod
    def decode(cls, text: str, names: Mapping[str, str]) -> Positions | None:
        """The positions of exactly these streams; None for what is no id of ours."""
        if len(text) > _ID_CHARACTERS:
            return None
        try:
            found = dict(part.split("=", 1) for part in text.split(";"))
        except (*MALFORMED, ValueError):
            return None
        if set(found) != set(names) or not all(_ENTRY.fullmatch(entry) for entry in found.values()):
            return None
        return cls(found)

    def moved(self, name: str, entry: str) -> Positions:
        return Positions({**self.entries, name: entry})


def order_of(entry: str) -> tuple[int, int]:
    """The entry's id as numbers, by which ids are compared."""
    milliseconds, _, sequence = entry.partition("-")
    return int(milliseconds), int(sequence or 0)
