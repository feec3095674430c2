"""Settings that are replaced as a whole, by who has seen the one that is replaced (If-Match) or by anybody."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from events.bus import Outcome, RecordConflict
from events.records import ANY, Key
from services.api.responses import etag_of, matches
from services.api.route import Call, Reply
from services.errors import RequestRefused

S = TypeVar("S", bound=msgspec.Struct)
CHANGED = "changed_meanwhile"


async def replaced(call: Call[Any, S], key: Key[S], empty: S) -> Reply[S]:
    """Write the body in place of the record. Raises RequestRefused where If-Match names another one, BusError."""
    bus = call.context.bus
    if not call.if_match:
        await bus.commit(Outcome(records=(key.write(call.body, expected=ANY),)))
        return Reply(call.body)
    stored = await key.load(bus)
    changed = RequestRefused("somebody else changed it meanwhile", code=CHANGED)
    if not matches(call.if_match, etag_of(msgspec.json.encode(stored.value or empty))):
        raise changed
    try:
        await bus.commit(Outcome(records=(key.write(call.body, expected=stored),)))
    except RecordConflict:
        raise changed from None
    return Reply(call.body)
