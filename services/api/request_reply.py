"""Request-reply client for the commands of one HTTP call: the caller is the actor, and the wait is bounded."""

from __future__ import annotations

from typing import Any

from services.api.route import Call
from services.commands.request_reply import RequestReplyClient


def request_reply_client(call: Call[Any, Any]) -> RequestReplyClient:
    """A client that speaks for the caller of `call`."""
    context = call.context
    return RequestReplyClient(
        bus=context.bus,
        streams=context.streams,
        source=context.source,
        actor=call.actor,
        within_seconds=context.answer_seconds,
    )
