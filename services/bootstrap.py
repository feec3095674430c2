"""The only composer: who gets what.

`ROLES` is the system on one screen. A role gets ports and plain values, never settings; `services.parts` opens the
ports and closes them when the process ends. Imports are inside the functions, so that a process loads what it runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from events.bus import Delivery, Handler, Outcome, Speaker, Subscription
from events.lease import Bus
from events.worker import Worker
from services import telemetry
from services.core.secrets import shown
from services.errors import BadInput
from services.metrics import WorkerMetrics
from services.parts import Parts, open_parts
from services.ports import Engine
from services.runner import Role, run_roles, wait_until_there
from services.settings import Settings
from services.stopping import Stop, signals

log = telemetry.get_logger(role="bootstrap")


async def _api(parts: Parts) -> Role:
    from services.api.role import ApiRole

    return ApiRole(
        listen=parts.settings.api_listen,
        bus=await parts.bus(),
        streams=parts.streams,
        registry=await parts.registry(),
        engine=await parts.host_engine(),
        storage=parts.settings.registry_storage,
        source=parts.source("api"),
    )


async def _deployer(parts: Parts) -> Role:
    from services.core.deployment import Policy
    from services.deployer import Deployer

    settings = parts.settings
    return Deployer(
        speaker=await parts.bus(),
        engine=await parts.host_engine(),
        registry=await parts.registry(),
        streams=parts.streams,
        source=parts.source("deployer"),
        tar_url=settings.tar_url,
        sources=await parts.layer_sources(),
        policy=Policy(
            push_patience_seconds=settings.push_wait_seconds,
            silence_seconds=2 * settings.stall_seconds,
            agent_grace_seconds=settings.agent_grace_seconds,
            pulls_per_host=settings.extractions_limit,
            pulls_per_range=settings.pulls_per_range_limit,
            large_bytes=settings.large_image_bytes,
        ),
        lease_seconds=settings.lease_seconds,
    )


async def _registry_pusher(parts: Parts) -> Role:
    from services.registry_pusher import RegistryPusher

    async def auto_push() -> bool:
        return parts.settings.auto_push

    return RegistryPusher(
        push=await parts.image_push(),
        registry=await parts.registry(),
        forms=await parts.layer_forms(),
        streams=parts.streams,
        source=parts.source("registry-pusher"),
        auto_push=auto_push,
        pushes_limit=parts.settings.pushes_limit,
        lease_seconds=parts.settings.lease_seconds,
    )


async def _tar_server(parts: Parts) -> Role:
    from services.exporting.exports import Exports
    from services.exporting.image_reader import ImageReader
    from services.exporting.spool import SpoolFolder
    from services.tar_server import TarServer

    settings = parts.settings
    reader = ImageReader(
        engine=await parts.host_engine(), sources=await parts.layer_sources(), registry=await parts.registry()
    )
    return TarServer(
        speaker=await parts.bus(),
        prefix=parts.streams.prefix,
        exports=Exports(
            reader=reader,
            folder=SpoolFolder(Path(settings.spool_folder), limit_bytes=settings.spool_limit_bytes),
            limit=settings.exports_limit,
        ),
        listen=settings.tar_listen,
        stall_seconds=settings.stall_seconds,
    )


async def _agent(parts: Parts) -> Role:
    return _agent_of(parts, parts.settings.range_id, await parts.engine(parts.settings.engine_url), await parts.bus())


def _agent_of(parts: Parts, range_id: str, engine: Engine, speaker: Speaker) -> Role:
    from services.agent import Agent, Patience, Pulse

    settings = parts.settings
    return Agent(
        range_id=range_id,
        engine=engine,
        speaker=speaker,
        streams=parts.streams,
        slots=2 * settings.pulls_per_range_limit,
        lease_seconds=settings.lease_seconds,
        patience=Patience(stall_seconds=settings.stall_seconds),
        pulse=Pulse(beat_seconds=settings.beat_seconds),
    )


async def _agent_pool(parts: Parts) -> Role:
    from services.agent_pool import AgentPool
    from services.core.ranges import EnginePlace

    bus = await parts.bus()

    async def drive(place: EnginePlace, stop: Stop) -> None:
        async with parts.other_engine(place.engine_url) as engine:
            await run_roles(
                [_agent_of(parts, place.range_id, engine, bus)],
                listener=listening(parts, bus),
                grace_seconds=parts.settings.drain_seconds,
                stop=stop,
            )

    return AgentPool(speaker=bus, prefix=parts.streams.prefix, drive=drive)


async def _tracker(parts: Parts) -> Role:
    from services.tracker import Tracker

    return Tracker(speaker=await parts.bus(), streams=parts.streams, lease_seconds=parts.settings.lease_seconds)


#: Every role and what makes it. `all` is those of the host's side.
ROLES: dict[str, Callable[[Parts], Awaitable[Role]]] = {
    "api": _api,
    "registry-pusher": _registry_pusher,
    "deployer": _deployer,
    "tracker": _tracker,
    "tar-server": _tar_server,
    "agent-pool": _agent_pool,
    "agent": _agent,
}
#: Roles that do not belong to the host's side: `all` leaves them out.
IN_A_RANGE = frozenset({"agent"})


def chosen_roles(names: list[str]) -> list[str]:
    """`all` and repetitions resolved. Raises BadInput for a name that is none."""
    wanted: list[str] = []
    for name in names:
        if name == "all":
            wanted += [role for role in ROLES if role not in IN_A_RANGE]
        elif name in ROLES:
            wanted.append(name)
        else:
            raise BadInput(f"there is no role {name!r}; there are: {', '.join(ROLES)}, all", code="no_such_role")
    return list(dict.fromkeys(wanted))


async def serve(settings: Settings, names: list[str], stop: Stop | None = None) -> None:
    """Run the roles until SIGTERM or Ctrl-C. Waits for Redis to be there; Redis may be started later than this."""
    roles = chosen_roles(names)
    if IN_A_RANGE.intersection(roles) and not settings.range_id:
        raise BadInput("an agent belongs to a range: set CYROID_RANGE_ID or give --range-id", code="bad_setting")
    asking = stop or Stop()
    async with signals(asking), open_parts(settings) as parts:
        log.info("starting", roles=roles, **_chosen(settings))
        where = shown(msgspec.structs.fields(settings)[0], settings.redis_url)
        if not await wait_until_there(lambda: _touch(parts, roles), f"Redis at {where}", stop=asking):
            return
        await check_redis(parts, roles)
        made = [await ROLES[name](parts) for name in roles] + await _presence(parts, roles)
        listener = listening(parts, await parts.bus())
        await run_roles(made, listener=listener, grace_seconds=settings.drain_seconds, stop=asking)


async def _presence(parts: Parts, roles: list[str]) -> list[Role]:
    """What lets others see that these roles are served. An agent has a heart of its own, and no right to this one."""
    from services.presence import Presence

    ours = [role for role in roles if role not in IN_A_RANGE]
    if not ours:
        return []
    prefix = parts.streams.prefix
    return [Presence(speaker=await parts.bus(), prefix=prefix, roles=ours, host=parts.host, pid=os.getpid())]


def listening(parts: Parts, bus: Bus) -> Callable[[Role, Subscription], Worker]:
    """What makes a worker for each of a role's subscriptions."""

    def listener(role: Role, subscription: Subscription) -> Worker:
        return Worker(
            bus,
            traced(subscription),
            name=f"{role.name}.{parts.host}.{os.getpid()}",
            observer=WorkerMetrics(),
            limit_bytes=parts.settings.entry_limit_bytes,
        )

    return listener


async def check_redis(parts: Parts, roles: list[str]) -> None:
    """One line for each thing that is wrong with Redis. Raises BadInput if going on would lose events."""
    inbox = parts.streams.inbox(parts.settings.range_id) if IN_A_RANGE.issuperset(roles) else None
    concerns = await parts.concerns(inbox)
    for concern in concerns:
        log.warning(concern.text)
    stops = [concern.text for concern in concerns if concern.stops]
    if stops:
        raise BadInput("\n".join(stops), code="bad_redis")


def traced(subscription: Subscription) -> Subscription:
    """The same, with every line that a handler logs bound to the entry that it handles."""

    def bound(handler: Handler) -> Handler:
        async def handle(delivery: Delivery) -> Outcome | None:
            with telemetry.about(delivery.envelope):
                return await handler(delivery)

        return handle

    return replace(subscription, handlers={kind: bound(handler) for kind, handler in subscription.handlers.items()})


async def _touch(parts: Parts, roles: list[str]) -> None:
    """Read a key that these roles may read: an agent's user sees the keys of its own range only."""
    bus = await parts.bus()
    async with asyncio.timeout(10):
        if IN_A_RANGE.issuperset(roles):
            # A beat is no record: that of an agent which has just been killed still stands under this key.
            await bus.beats([parts.streams.alive(parts.settings.range_id)])
        else:
            await bus.load(f"{parts.streams.prefix}:ping")


def _chosen(settings: Settings) -> dict[str, object]:
    """What differs from the defaults, without secrets."""
    fields = ((field, getattr(settings, field.name)) for field in msgspec.structs.fields(settings))
    return {field.name: shown(field, value) for field, value in fields if value != field.default}
