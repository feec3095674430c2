"""Composition of the roles: which role gets which resources.

`ROLES` is the system on one screen. A role gets ports and plain values, never settings; `services.resources` opens the
ports, `services.serving` runs what is composed here. Imports are inside the functions: a process loads what it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from events.bus import BusClient
from services.core.hosts.hosts import LOCAL
from services.errors import BadInput
from services.ports import Engine, LayerPlacer
from services.resources import Resources
from services.runtime.listening import listening
from services.runtime.runner import Role, run_roles
from services.runtime.shutdown import Stop

if TYPE_CHECKING:
    from services.commands.ingest import IngestJobs


async def _api(resources: Resources) -> Role:
    from services.api.login import LoginSettings
    from services.api.role import ApiRole
    from services.doctor.http import doctor_of
    from services.queries.settings import setting_views

    settings = resources.settings
    return ApiRole(
        listen=settings.api_listen,
        login=LoginSettings.of(settings),
        host_names=[name.strip() for name in settings.api_hosts.split(",") if name.strip()],
        frame_ancestors=settings.api_frame_ancestors,
        engine_networks=settings.engine_networks,
        settings=setting_views(settings),
        bus=await resources.bus(),
        streams=resources.streams,
        registry=await resources.registry(),
        engine=await resources.host_engine(),
        source=resources.source("api"),
        doctor=doctor_of(resources),
        storage=settings.registry_storage,
        ingest=await _ingest(resources),
    )


async def _ingest(resources: Resources) -> IngestJobs:
    from services.ingest.jobs import EngineIngestJobs
    from services.ingest.work import IngestWork

    work = IngestWork(
        build=await resources.build(),
        importer=await resources.importer(),
        promote=await resources.promote(),
        import_limit_bytes=resources.settings.import_limit_bytes,
    )
    return EngineIngestJobs(bus=await resources.bus(), prefix=resources.streams.prefix, work=work)


async def _deployer(resources: Resources) -> Role:
    from services.content.image_signatures import signatures_by
    from services.core.deployments.pull_tokens import PullTokens
    from services.deployer.policy import policy_of
    from services.deployer.role import Deployer

    settings = resources.settings
    return Deployer(
        bus=await resources.bus(),
        registry=await resources.registry(),
        streams=resources.streams,
        source=resources.source("deployer"),
        tar_url=settings.tar_url,
        host=resources.identity().known or LOCAL,
        signatures=signatures_by(await resources.registry(), settings.signature_keys),
        policy=policy_of(settings, resources.adapters.policy),
        pull_tokens=PullTokens(settings.registry_pull_key) if settings.registry_auth == "token" else None,
        lease_seconds=settings.lease_seconds,
        clock=resources.adapters.clock,
    )


async def _registry_pusher(resources: Resources) -> Role:
    from services.core.images.auto_push import AutoPush, auto_push_key
    from services.registry_pusher.role import RegistryPusher

    bus = await resources.bus()

    async def auto_push(reference: str) -> bool:
        chosen = (await auto_push_key(resources.streams.prefix).load(bus)).value or AutoPush()
        return chosen.decides(reference, otherwise=resources.settings.auto_push)

    return RegistryPusher(
        push=await resources.image_push(),
        registry=await resources.registry(),
        encodings=await resources.layer_encodings(),
        streams=resources.streams,
        source=resources.source("registry-pusher"),
        auto_push=auto_push,
        host_images=await resources.host_images(),
        hosts=await resources.host_routing(),
        presence=await resources.host_presence(),
        pushes_limit=resources.settings.pushes_limit,
        lease_seconds=resources.settings.lease_seconds,
    )


async def _tar_server(resources: Resources) -> Role:
    from services.tar_server.exports import Exports
    from services.tar_server.image_reader import ImageReader
    from services.tar_server.role import TarServer
    from services.tar_server.spool import SpoolFolder

    settings = resources.settings
    reader = ImageReader(
        engine=await resources.host_engine(),
        sources=await resources.layer_sources(),
        registry=await resources.registry(),
    )
    return TarServer(
        bus=await resources.bus(),
        prefix=resources.streams.prefix,
        exports=Exports(
            reader=reader,
            folder=SpoolFolder(Path(settings.spool_folder), limit_bytes=settings.spool_limit_bytes),
            limit=settings.exports_limit,
        ),
        listen=settings.tar_listen,
        stall_seconds=settings.stall_seconds,
        clock=resources.adapters.clock,
    )


async def _agent(resources: Resources) -> Role:
    settings, bus = resources.settings, await resources.bus()
    engine, placer = await resources.engine(settings.engine_url), await resources.layer_placer()
    return _agent_of(resources, settings.range_id, engine, bus, host=settings.host_id, placer=placer)


def _agent_of(
    resources: Resources, range_id: str, engine: Engine, bus: BusClient, *, host: str, placer: LayerPlacer | None = None
) -> Role:
    from services.agent import Agent, HeartbeatInterval, Patience

    settings = resources.settings
    return Agent(
        range_id=range_id,
        engine=engine,
        bus=bus,
        streams=resources.streams,
        slots=2 * settings.pulls_per_range_limit,
        lease_seconds=settings.lease_seconds,
        patience=Patience(stall_seconds=settings.stall_seconds),
        pulse=HeartbeatInterval(beat_seconds=settings.beat_seconds),
        placer=placer,
        host=host,
    )


async def _agent_pool(resources: Resources) -> Role:
    from services.agent.pool import AgentPool
    from services.commands.range_claims import claiming
    from services.core.ranges.ranges import EnginePlace

    bus, host = await resources.bus(), resources.identity().known or ""

    async def drive(place: EnginePlace, stop: Stop) -> None:
        async with resources.other_engine(place.engine_url) as engine:
            await run_roles(
                [_agent_of(resources, place.range_id, engine, bus, host=host)],
                listener=listening(bus, resources.process, limit_bytes=resources.settings.entry_limit_bytes),
                grace_seconds=resources.settings.drain_seconds,
                stop=stop,
            )

    prefix = resources.streams.prefix
    return AgentPool(
        bus=bus,
        prefix=prefix,
        drive=drive,
        engine_networks=resources.settings.engine_networks,
        host=host,
        claim=claiming(bus, prefix, host=host, clock=resources.adapters.clock),
        subscriptions=((await resources.range_push()).subscription(),),
    )


async def _range_gateway(resources: Resources) -> Role:
    from services.commands.range_claims import claiming
    from services.range_gateway.role import RangeGateway
    from services.range_gateway.secrets import RangeSecrets

    settings, bus, host = resources.settings, await resources.bus(), resources.identity().known or ""
    return RangeGateway(
        bus=bus,
        streams=resources.streams,
        secrets=RangeSecrets(Path(settings.gateway_secrets) if settings.gateway_secrets else None),
        listen=settings.gateway_listen,
        source=resources.source("range-gateway"),
        host=host,
        claim=claiming(bus, resources.streams.prefix, host=host, clock=resources.adapters.clock),
    )


async def _tracker(resources: Resources) -> Role:
    from services.tracker.role import Tracker

    return Tracker(
        bus=await resources.bus(),
        streams=resources.streams,
        registry=await resources.registry(),
        engine=await resources.host_engine(),
        scan_seconds=resources.settings.scan_seconds,
        lease_seconds=resources.settings.lease_seconds,
        clock=resources.adapters.clock,
    )


async def _layer_mounter(resources: Resources) -> Role:
    from services.layer_mounter import LayerMounter

    return LayerMounter(
        bus=await resources.bus(),
        mounts=resources.layer_mounts(),
        streams=resources.streams,
        host=resources.identity().known or LOCAL,
        source=resources.source("layer-mounter"),
        lease_seconds=resources.settings.lease_seconds,
    )


async def _collector(resources: Resources) -> Role:
    from services.collector import Collector
    from services.collector.storage import RegistryStorage
    from services.collector.sweep import CollectionPolicy
    from services.collector.without_storage import ApiCollector

    settings = resources.settings
    if settings.collect_by_api:
        return ApiCollector(
            bus=await resources.bus(),
            streams=resources.streams,
            source=resources.source("collector"),
            registry=await resources.registry(),
            period_seconds=settings.collect_seconds,
            lease_seconds=settings.lease_seconds,
        )
    return Collector(
        bus=await resources.bus(),
        streams=resources.streams,
        source=resources.source("collector"),
        storage=RegistryStorage(Path(settings.registry_storage)),
        registry=await resources.registry(),
        policy=CollectionPolicy(
            grace_seconds=settings.collect_grace_seconds, keep_seconds=settings.collect_keep_seconds
        ),
        period_seconds=settings.collect_seconds,
        scrub_bytes_per_second=settings.scrub_bytes_per_second,
        free_percent=settings.store_free_percent,
        lease_seconds=settings.lease_seconds,
    )


#: Every role and what makes it. `all` is those of the host's side.
ROLES: dict[str, Callable[[Resources], Awaitable[Role]]] = {
    "api": _api,
    "registry-pusher": _registry_pusher,
    "deployer": _deployer,
    "tracker": _tracker,
    "tar-server": _tar_server,
    "agent-pool": _agent_pool,
    "collector": _collector,
    "range-gateway": _range_gateway,
    "agent": _agent,
    "layer-mounter": _layer_mounter,
}
#: Roles that need the ranges' secrets, the registry's storage, or the right to mount: `all` leaves them out
#: (`services.serving` adds the collector where it has what it needs).
ON_DEMAND = frozenset({"range-gateway", "collector", "layer-mounter"})
#: Roles that do not belong to the host's side: `all` leaves them out.
IN_A_RANGE = frozenset({"agent"})


def chosen_roles(names: list[str]) -> list[str]:
    """The names of the roles, with `all` and repetitions resolved. Raises BadInput for an unknown name."""
    wanted: list[str] = []
    for name in names:
        if name == "all":
            wanted += [role for role in ROLES if role not in IN_A_RANGE | ON_DEMAND]
        elif name in ROLES:
            wanted.append(name)
        else:
            raise BadInput(f"there is no role {name!r}; there are: {', '.join(ROLES)}, all", code="no_such_role")
    return list(dict.fromkeys(wanted))
