"""The table of a subscription's handlers."""

from __future__ import annotations

from typing import Any

import pytest

from events.bus import NOTHING, Delivery, Outcome
from events.envelope import Envelope
from events.messages import Failure, ImageBuilt, PushRequested
from events.subscription import Handler, Handlers

DELIVERY: Delivery[PushRequested] = Delivery(
    Envelope(message=PushRequested(reference="a:1"), source="t", subject="a:1"), "s", "1-0"
)


async def handle(delivery: Delivery[Any]) -> Outcome:
    """Does nothing."""
    return NOTHING


def test_what_belongs_to_a_type_is_found_beside_its_handler() -> None:
    """Its key and its give-up, or nothing in their place."""
    gone = Outcome()
    handlers = Handlers().on(
        PushRequested, handle, key=lambda delivery: delivery.message.reference, give_up=lambda delivery, failure: gone
    )
    found = handlers.find(PushRequested)
    assert found is not None
    assert found.key_of(DELIVERY) == "a:1"
    assert found.given_up(DELIVERY, Failure(code="c", message="m")) is gone
    assert handlers.find(ImageBuilt) is None
    plain = Handlers().on(PushRequested, handle, key=None, give_up=None).find(PushRequested)
    assert plain is not None
    assert plain.key_of(DELIVERY) is None
    assert plain.given_up(DELIVERY, Failure(code="c", message="m")) is NOTHING


def test_a_type_has_one_handler() -> None:
    """A second registration would silently win."""
    with pytest.raises(ValueError, match="PushRequested has a handler already"):
        Handlers().on(PushRequested, handle, key=None, give_up=None).on(PushRequested, handle, key=None, give_up=None)


async def test_a_wrapped_table_runs_every_handler_through_the_wrapper() -> None:
    """And leaves the table that it was made from as it is."""
    seen: list[str] = []

    def wrap(handler: Handler[Any]) -> Handler[Any]:
        async def wrapped(delivery: Delivery[Any]) -> Outcome | None:
            seen.append(delivery.stream)
            return await handler(delivery)

        return wrapped

    handlers = Handlers().on(PushRequested, handle, key=None, give_up=None)
    found = handlers.wrapped(wrap).find(PushRequested)
    plain = handlers.find(PushRequested)
    assert found is not None
    assert plain is not None
    assert await found.handler(DELIVERY) is NOTHING
    await plain.handler(DELIVERY)
    assert seen == ["s"]
    assert (list(handlers), len(handlers)) == ([PushRequested], 1)
