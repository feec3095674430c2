"""One process that serves roles: waits for Redis, checks it, and runs what `services.bootstrap` composes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import msgspec

from services.adapters.openers import REAL, Adapters
from services.bootstrap import IN_A_RANGE, ON_DEMAND, ROLES, chosen_roles
from services.core.ranges.engine_networks import networks_of
from services.core.secrets import shown
from services.errors import BadInput
from services.resources import Resources, open_resources
from services.runtime import telemetry
from services.runtime.listening import listening
from services.runtime.readiness import Dependency, ping_bus
from services.runtime.runner import Role, run_roles, wait_until_there
from services.runtime.shutdown import Stop, signals
from services.settings import Settings

log = telemetry.get_logger(role="bootstrap")


async def serve(settings: Settings, names: list[str], stop: Stop | None = None, *, adapters: Adapters = REAL) -> None:
    """Run the roles until SIGTERM or Ctrl-C."""
    stopping = stop or Stop()
    async with signals(stopping):
        await run(settings, names, stopping, adapters)


async def run(settings: Settings, names: list[str], stop: Stop, adapters: Adapters = REAL) -> None:
    """One process: run the roles until `stop` is asked. Waits for Redis to be there; Redis may be started later."""
    roles = _with_collector(settings, names)
    _check(settings, roles)
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings, adapters))
        log.info("starting", roles=roles, **_chosen(settings))
        running = asyncio.Event()
        if settings.operations_listen:
            await stack.enter_async_context(_operations(resources, roles, running, stop))
        where = shown(msgspec.structs.fields(settings)[0], settings.redis_url)
        if not await wait_until_there(lambda: _touch(resources, roles), f"Redis at {where}", stop=stop):
            return
        await check_redis(resources, roles)
        made = [await ROLES[name](resources) for name in roles] + await _presence(resources, roles)
        listener = listening(await resources.bus(), resources.process, limit_bytes=settings.entry_limit_bytes)
        running.set()
        await run_roles(made, listener=listener, grace_seconds=settings.drain_seconds, stop=stop)


def _with_collector(settings: Settings, names: list[str]) -> list[str]:
    """The roles that are served: `all` has the collector too where it has what it needs, and says where it has not."""
    roles = chosen_roles(names)
    if "all" not in names or "collector" in roles:
        return roles
    from services.collector.needs import without_collector

    reason = without_collector(settings.registry_storage, by_api=settings.collect_by_api)
    if reason is None:
        return [*roles, "collector"]
    log.warning("no collector is started here: images are neither deleted nor collected by this process", why=reason)
    return roles


def _check(settings: Settings, roles: list[str]) -> None:
    """Check what no single setting shows by itself, and what a role needs. Raises BadInput before anything runs."""
    if IN_A_RANGE.intersection(roles) and not settings.range_id:
        raise BadInput("an agent belongs to a range: set CYROID_RANGE_ID or give --range-id", code="bad_setting")
    if "deployer" in roles and settings.registry_auth == "token" and not settings.registry_pull_key:
        raise BadInput("CYROID_REGISTRY_AUTH=token needs CYROID_REGISTRY_PULL_KEY", code="bad_setting")
    if "collector" in roles and bool(settings.registry_storage) == settings.collect_by_api:
        raise BadInput(
            "the collector needs the registry's storage: set CYROID_REGISTRY_STORAGE, or, where that is no folder of"
            " this host, CYROID_COLLECT_BY_API=true alone",
            code="bad_setting",
        )
    try:
        networks_of(settings.engine_networks)
    except ValueError as problem:
        raise BadInput(f"CYROID_ENGINE_NETWORKS: {problem}", code="bad_setting") from problem
    if "api" in roles:
        from services.api.authentication import check_listen

        check_listen(settings.api_auth, settings.api_listen)


def _operations(
    resources: Resources, roles: list[str], running: asyncio.Event, stop: Stop
) -> AbstractAsyncContextManager[str]:
    """The operations listener of this process, which serves while inside."""
    from services.runtime.operations import Operations, Phase, networks

    def dependencies() -> Mapping[str, Dependency]:
        """Redis is required by every role; each has a way around the others, or waits for them."""
        found = {"redis": Dependency(lambda: _touch(resources, roles))}
        for name, ping in resources.opened_dependencies().items():
            found[name] = Dependency(ping, required=False)
        return found

    def phase() -> Phase:
        if stop.is_asked:
            return "stopping"
        return "running" if running.is_set() else "starting"

    clients = networks(resources.settings.operations_clients)
    operations = Operations(dependencies=dependencies, phase=phase, clients=clients)
    return operations.listen(resources.settings.operations_listen)


async def _presence(resources: Resources, roles: list[str]) -> list[Role]:
    """The heartbeat of these roles. An agent sends its own, and has no right to this one."""
    from services.runtime.heartbeat import HeartbeatSender

    ours = [role for role in roles if role not in IN_A_RANGE]
    if not ours:
        return []
    process = resources.adapters
    return [
        HeartbeatSender(
            bus=await resources.bus(),
            prefix=resources.streams.prefix,
            roles=ours,
            host=process.host,
            pid=process.pid,
            clock=process.clock,
        )
    ]


async def check_redis(resources: Resources, roles: list[str]) -> None:
    """Problems of Redis, one line each. Raises BusError, and BadInput if going on would lose events."""
    of_range = resources.settings.range_id if IN_A_RANGE.issuperset(roles) else "any"
    inbox = resources.streams.inbox(of_range) if (IN_A_RANGE | ON_DEMAND).issuperset(roles) else None
    concerns = await resources.concerns(inbox)
    for concern in concerns:
        log.warning(concern.text)
    stops = [concern.text for concern in concerns if concern.stops]
    if stops:
        raise BadInput("\n".join(stops), code="bad_redis")


async def _touch(resources: Resources, roles: list[str]) -> None:
    """Read a key that these roles may read; the agent's user sees the keys of its own range only."""
    bus = await resources.bus()
    async with asyncio.timeout(10):
        if IN_A_RANGE.issuperset(roles):
            # A beat is no record: that of an agent which has just been killed still stands under this key.
            await bus.beats([resources.streams.alive(resources.settings.range_id)])
        else:
            await ping_bus(bus, resources.streams.prefix)


def _chosen(settings: Settings) -> dict[str, object]:
    """The settings that differ from the defaults, without secrets."""
    fields = ((field, getattr(settings, field.name)) for field in msgspec.structs.fields(settings))
    return {field.name: shown(field, value) for field, value in fields if value != field.default}
