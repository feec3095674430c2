"""Workers for the subscriptions of roles: named after their process, counted, and traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from events.bus import Delivery, Outcome
from events.lease import Bus
from events.subscription import Handler, Subscription
from events.worker.worker import Worker
from services.runtime import telemetry
from services.runtime.metrics import WorkerMetrics
from services.runtime.runner import Role


def listening(bus: Bus, process: str, *, limit_bytes: int) -> Callable[[Role, Subscription], Worker]:
    """A factory of workers for a role's subscriptions. `process` names this process: `host1.4711`."""

    def listener(role: Role, subscription: Subscription) -> Worker:
        return Worker(
            bus,
            traced(subscription),
            name=f"{role.name}.{process}",
            observer=WorkerMetrics(),
            limit_bytes=limit_bytes,
        )

    return listener


def traced(subscription: Subscription) -> Subscription:
    """The same handlers, with every log line bound to the entry that is handled."""

    def bound(handler: Handler[Any]) -> Handler[Any]:
        async def handle(delivery: Delivery[Any]) -> Outcome | None:
            with telemetry.about(delivery.envelope):
                return await handler(delivery)

        return handle

    return replace(subscription, handlers=subscription.handlers.wrapped(bound))
