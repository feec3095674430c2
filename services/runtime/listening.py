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
from services.runtime.tracing import Tracer, tracer_of


def listening(bus: Bus, process: str, *, limit_bytes: int) -> Callable[[Role, Subscription], Worker]:
    """A factory of workers for a role's subscriptions. `process` names this process: `host1.4711`."""

    def listener(role: Role, subscription: Subscription) -> Worker:
        return Worker(
            bus,
            traced(subscription, tracer_of(bus)),
            name=f"{role.name}.{process}",
            observer=WorkerMetrics(),
            limit_bytes=limit_bytes,
        )

    return listener


def traced(subscription: Subscription, tracer: Tracer | None = None) -> Subscription:
    """The same handlers, with every log line bound to the entry that is handled; with a tracer, each run is a span."""

    def bound(handler: Handler[Any]) -> Handler[Any]:
        async def handle(delivery: Delivery[Any]) -> Outcome | None:
            with telemetry.about(delivery.envelope):
                if tracer is None:
                    return await handler(delivery)
                with tracer.handling(subscription.group, delivery) as seen:
                    return await handler(seen)

        return handle

    return replace(subscription, handlers=subscription.handlers.wrapped(bound))
