"""Validation of a range's messages: decoded and bounded before they are stored.

`events.authority` and `events.range_messages` say what may stand on a range's streams and how large it may be; here it
is checked before it is there. A range speaks about itself and under its own name. What is stored is what was decoded,
spelled anew: unknown fields do not travel on.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from events.bus import BusRefused
from events.codec import Undecodable, decode
from events.envelope import Envelope
from events.gateway.protocol import LIST_ENTRY_BYTES, RangeMessage
from events.messages import AgentStarted
from events.streams import Streams

#: Progress is reported every second; a note is a sentence.
PROGRESS_BYTES = 4096


def read_message(entry: RangeMessage, streams: Streams, range_id: str, host: str = "") -> Envelope:
    """Decode an entry that a range wants to publish on that stream. Raises BusRefused with a reason for a person.

    Where it runs is not for the range to say: it is on the gateway's own `host`.
    """
    outbox = entry.to == "outbox"
    stream = streams.outbox(range_id) if outbox else streams.range_progress(range_id)
    try:
        limit_bytes = LIST_ENTRY_BYTES if outbox else PROGRESS_BYTES
        envelope = decode(entry.fields, stream=stream, limit_bytes=limit_bytes)
    except Undecodable as problem:
        raise BusRefused(f"the gateway does not take it: {problem}") from problem
    if getattr(envelope.message, "range_id", range_id) not in (range_id, None):
        raise BusRefused("a range speaks for itself alone")
    if outbox and envelope.source != f"agent@{range_id}":
        raise BusRefused(f"the agent of this range is agent@{range_id}")
    message = envelope.message
    if isinstance(message, AgentStarted):
        message = msgspec.structs.replace(message, host=host or None)
    return replace(envelope, message=message, source=f"agent@{range_id}")
