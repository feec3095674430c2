"""Request-reply client for the commands of one HTTP call: the caller is the actor, and the wait is bounded."""

from __future__ import annotations

import re
from typing import Any

from services.api.route import Call
from services.commands.request_reply import RequestReplyClient

#: Nobody may keep a connection for longer.
LONGEST_SECONDS = 600.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?=$|[,;])", re.IGNORECASE)


def request_reply_client(call: Call[Any, Any]) -> RequestReplyClient:
    """A client that speaks for the caller of `call`."""
    context = call.context
    return RequestReplyClient(
        bus=context.bus,
        streams=context.streams,
        source=context.source,
        actor=call.actor,
        within_seconds=min(wait_of(call.prefer, context.answer_seconds), LONGEST_SECONDS),
    )


def wait_of(prefer: str, otherwise: float) -> float:
    """The seconds of a Prefer header's `wait` (RFC 7240, 4.3), `otherwise` where it has none. The first one counts."""
    found = _WAIT.search(prefer)
    return float(found[1]) if found else otherwise
