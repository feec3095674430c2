"""Tailing of a stream: decodes entries that were read outside any consumer group, malformed ones too."""

from __future__ import annotations

from collections.abc import Mapping

from events.bus import Tailed
from events.codec import Undecodable, decode


def tailed(stream: str, entry_id: str, fields: Mapping[bytes, bytes]) -> Tailed:
    """An entry as raw fields, with the envelope in it or the reason why there is none."""
    shown = {name.decode(errors="surrogateescape"): value for name, value in fields.items()}
    try:
        return Tailed(stream, entry_id, shown, decode(fields, stream=stream))
    except Undecodable as error:
        return Tailed(stream, entry_id, shown, None, f"{error.code}: {error}")
