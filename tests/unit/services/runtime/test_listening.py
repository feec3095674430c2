"""Workers of roles: what a handler logs names its entry."""

from typing import Any

import structlog

from events.bus import NOTHING, Delivery, Outcome
from events.envelope import Envelope
from events.messages import (
    PushRequested,
)
from events.subscription import Handlers, Subscription
from services.runtime.listening import traced


async def test_a_handlers_lines_carry_its_entry() -> None:
    """The correlation id is bound while a handler runs, and gone afterwards."""
    seen: list[dict[str, Any]] = []

    async def handler(delivery: Delivery[PushRequested]) -> Outcome:
        seen.append(dict(structlog.contextvars.get_contextvars()))
        return NOTHING

    envelope = Envelope(message=PushRequested(reference="a:1"), source="t", subject="a:1", correlation_id="c-1")
    subscription = Subscription(
        group="g",
        streams=tuple,
        handlers=Handlers().on(PushRequested, handler, key=None, give_up=None),
        dead_stream="d",
    )
    registered = traced(subscription).handlers.find(PushRequested)
    assert registered is not None
    await registered.handler(Delivery(envelope, "s", "1-0"))
    assert seen == [{"correlation_id": "c-1", "entry": envelope.id}]
    assert structlog.contextvars.get_contextvars() == {}
