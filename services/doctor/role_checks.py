"""Checks through Redis: which roles are served, how far they are behind, ranges, clocks, dead letters."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from events.bus import BusError, HandlingError
from events.dead_letters import dead_letters
from events.lease import Bus
from events.records import load_values
from events.streams import Streams
from services.core.deployments.admission import Ticket, choose
from services.core.deployments.index import DeploymentKeys
from services.core.ranges.proxies import proxy_note
from services.core.ranges.ranges import RangeKeys
from services.doctor.findings import Note, Wrong
from services.doctor.host_checks import check_hosts
from services.doctor.layer_checks import mounted_layers
from services.doctor.machine import OLDEST_ENGINE, clock_problems, too_old, with_free_space
from services.doctor.store_checks import StoreChecks
from services.queries.known_hosts import known_hosts
from services.queries.known_ranges import RangeView, known_ranges
from services.queries.limited_ranges import limited_ranges
from services.runtime.heartbeat import LASTS_SECONDS, RoleBeat, serving
from services.runtime.readiness import ping_bus
from services.settings import Settings

#: Who waits longer than this though there is room for it is kept by something.
_ADMITTED_SECONDS = 30
_UNSEEN = "cannot be seen without Redis"
_SLOW_SECONDS = 60.0
#: A range that met a limit is named for so long.
_LIMITED_SECONDS = 600
#: A range's beat may be this old: its agent may take as long to ask its engine.
_RANGE_LATE_SECONDS = 60.0


class RoleChecks:
    """Checks by name, in order; each returns what is well, or raises Wrong or Note."""

    def __init__(self, settings: Settings, bus: Callable[[], Awaitable[Bus]]) -> None:
        self._settings = settings
        self._streams = Streams(settings.key_prefix)
        self._bus = bus
        self._store = StoreChecks(
            settings.key_prefix,
            there=self._there,
            group=lambda: self._group("collector", self._streams.images),
        )

    def all(self) -> list[tuple[str, Callable[[], Awaitable[str]], str]]:
        """(what, check, what to do if it raises something unexpected)."""
        streams = self._streams
        return [
            ("registry-pusher", lambda: self._group("registry-pusher", streams.images), _start("registry-pusher")),
            ("deployer", lambda: self._group("deployer", streams.deployments), _start("deployer")),
            ("admission", self._admission, "read the deployer's log: it says what keeps it"),
            ("tracker", lambda: self._group("tracker", streams.deployments), _start("tracker")),
            ("tar server", self._tar_server, _start("tar-server")),
            ("spool", self._spool, "make the folder writable, or set CYROID_SPOOL_FOLDER"),
            ("agent-pool", self._agent_pool, _start("agent-pool")),
            ("range-gateway", self._range_gateway, _start("range-gateway")),
            ("api", self._api, _start("api")),
            ("collector", self._store.collector, _start("collector")),
            ("disk pressure", self._store.disk_pressure, "see the collector's log"),
            ("hosts", self._hosts, "see the logs of their registry-pushers"),
            ("ranges", self._ranges, "look at the agents that do not answer"),
            ("mounted layers", self._mounted_layers, "see the layer-mounter's log"),
            ("proxies", self._proxies, "configure the proxy of their engines (docs.docker.com, daemon/proxy)"),
            ("clocks", self._clocks, "have them set by NTP"),
            ("dead letters", self._dead, "look at them: cyroid-images events dead list"),
        ]

    async def _there(self) -> Bus:
        """Wrap a check so that what is only seen through Redis is not reported as broken when Redis is."""
        try:
            bus = await self._bus()
            await ping_bus(bus, self._streams.prefix)
        except (HandlingError, BusError, OSError) as problem:
            raise Note(_UNSEEN, "") from problem
        return bus

    async def _serving(self, role: str) -> list[RoleBeat]:
        return (await serving(await self._there(), self._streams.prefix)).get(role, [])

    async def _group(self, group: str, stream: str) -> str:
        bus = await self._there()
        served = await self._serving(group)
        status = next((one for one in await bus.groups([stream]) if one.group == group), None)
        behind = (
            f"{status.pending} under way, {'?' if status.lag is None else status.lag} not read yet"
            if status
            else f"never listened to {stream}"
        )
        if not served:
            raise Wrong(f"no process runs it; {behind}", _start(group))
        if status is not None and status.oldest_undelivered_seconds > _SLOW_SECONDS:
            late = f"{behind}, the oldest for {status.oldest_undelivered_seconds:.0f} s"
            raise Wrong(f"{late}, although it runs at {_places(served)}", "look at its log")
        return f"runs at {_places(served)}; {behind}"

    async def _tar_server(self) -> str:
        """The tar server is asked where it listens, if it runs on this machine; otherwise Redis tells where it runs."""
        settings = self._settings
        problem = await _silence(settings.tar_listen)
        if problem is None:
            if await self._known("tar-server") == []:
                raise _taken(settings.tar_listen, "CYROID_TAR_LISTEN")
            return f"listens at {settings.tar_listen}; ranges reach it as {settings.tar_url}"
        served = await self._serving("tar-server")
        if not served:
            raise Wrong(
                f"no process runs it, and nothing answers at {settings.tar_listen}", _start("tar-server")
            ) from problem
        if _is_here(served):
            raise problem
        return f"runs at {_places(served)}; ranges reach it as {settings.tar_url}"

    async def elsewhere(self, role: str) -> str:
        """Where a role runs, if that is not here; empty if it is, or if nobody knows."""
        served = await self._known(role)
        return _places(served) if served and not _is_here(served) else ""

    async def _known(self, role: str) -> list[RoleBeat] | None:
        """Who serves a role; None: without Redis it is not known."""
        try:
            return await self._serving(role)
        except Note:
            return None

    async def _spool(self) -> str:
        """The spool folder: checked where the tar server runs, or where somebody chose a folder for it."""
        folder = Path(self._settings.spool_folder)
        served = await self._known("tar-server")
        if served and not _is_here(served):
            return f"not checked: the tar server runs at {_places(served)}"
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(nearest, os.W_OK | os.X_OK):
            if not served and self._settings.spool_folder == Settings().spool_folder:
                return "not checked: no tar server runs here"
            raise Wrong(f"{nearest} cannot be written", "make it writable, or set CYROID_SPOOL_FOLDER")
        return f"{folder}, {with_free_space(nearest, 'make room, or set CYROID_SPOOL_FOLDER')}"

    async def _agent_pool(self) -> str:
        bus = await self._there()
        places = await bus.members(RangeKeys(self._streams.prefix).places)
        served = await self._serving("agent-pool")
        if served:
            return f"runs at {_places(served)} for {len(places)} ranges"
        if places:
            raise Wrong(f"no process runs it, and {_few(places)} have no agent of their own", _start("agent-pool"))
        return "does not run; no range needs it"

    async def _range_gateway(self) -> str:
        """Ranges over their limits are named for ten minutes."""
        bus = await self._there()
        served = await self._serving("range-gateway")
        since = datetime.now(UTC).timestamp() - _LIMITED_SECONDS
        limited = await limited_ranges(bus, self._streams.prefix, since=since)
        if limited:
            shut_out = [one.range_id for one in limited if one.cut_off]
            text = f"ranges over their limits lately: {_few([f'{one.range_id} ({one.limit})' for one in limited])}"
            text += f"; shut out for a while: {_few(shut_out)}" if shut_out else ""
            raise Wrong(text, "see what runs there; other ranges are not affected")
        if served:
            return f"runs at {_places(served)}; no range was over its limits lately"
        raise Note("does not run: agents connect to Redis itself, for trusted ranges only", _start("range-gateway"))

    async def _api(self) -> str:
        served = await self._serving("api")
        if not served:
            if await _silence(self._settings.api_listen) is None:
                raise _taken(self._settings.api_listen, "CYROID_API_LISTEN")
            raise Note("no process runs it: nothing answers over HTTP", _start("api"))
        return f"runs at {_places(served)}"

    async def _hosts(self) -> str:
        return check_hosts(await known_hosts(await self._there(), self._streams))

    async def _ranges(self) -> str:
        ranges = await known_ranges(await self._there(), self._streams)
        away = [row.range_id for row in ranges if row.agent != "alive"]
        old = [row.range_id for row in ranges if too_old(row.engine_version)]
        text = f"{len(ranges) - len(away)} of {len(ranges)} have an agent that answers"
        contested = [row.contested.explain() for row in ranges if row.contested is not None]
        if contested:
            raise Wrong(f"{text}; {'; '.join(contested[:5])}", "their deployments wait until one agent alone is left")
        if old:
            oldest = ".".join(map(str, OLDEST_ENGINE))
            raise Wrong(f"{text}; engine older than {oldest}: {_few(old)}", "upgrade their engines")
        if away:
            raise Note(f"{text}; no answer from {_few(away)}", "start their agents; what is deployed to them waits")
        return text

    async def _mounted_layers(self) -> str:
        """Layers that hosts show their ranges: as the layer-mounters and the ranges' agents last said."""
        return await mounted_layers(await self._there(), self._streams)

    async def _proxies(self) -> str:
        """Whether the engines of ranges ask a proxy for the registry: as their agents said when they came up."""
        bus, keys = await self._there(), RangeKeys(self._streams.prefix)
        known = await load_values(bus, [keys.known(range_id) for range_id in await bus.members(keys.known_index)])
        address = self._settings.registry_address
        notes = {one.range_id: proxy_note(address, one.proxy, one.no_proxy) for one in known}
        found = [f"{range_id}: {note}" for range_id, note in notes.items() if note is not None]
        if found:
            raise Note(f"pulls of ranges go through a proxy: {_few(found)}", "images come as archives where it fails")
        return "no engine of a range asks a proxy for the registry"

    async def _clocks(self) -> str:
        """Clocks: every heartbeat tells its sender's time; Redis's own is checked with Redis."""
        bus, now = await self._there(), datetime.now(UTC)
        roles = await serving(bus, self._streams.prefix)
        hosts = {beat.host: beat.at for beats in roles.values() for beat in beats}
        ranges = {
            f"range {row.range_id}": at
            for row in await known_ranges(bus, self._streams)
            if (at := _moment(row)) is not None
        }
        found = clock_problems(hosts, now, late_seconds=LASTS_SECONDS)
        found += clock_problems(ranges, now, late_seconds=_RANGE_LATE_SECONDS)
        if found:
            raise Wrong(f"against this machine's: {_few(found)}", "have them set by NTP")
        return f"{len(hosts) + len(ranges)} agree with this machine's"

    async def _admission(self) -> str:
        """Whether an image waits for a slot although slots are free: admission passes are made every half second."""
        bus, keys, settings = await self._there(), DeploymentKeys(self._streams.prefix), self._settings
        long_ago = datetime.now(UTC).timestamp() - _ADMITTED_SECONDS
        waiting = [Ticket.parse(text) for text in await bus.members(keys.queue, high=long_ago)]
        active = [Ticket.parse(text) for text in await bus.members(keys.active)]
        stuck = choose(
            waiting,
            active,
            slots=settings.extractions_limit,
            large_bytes=settings.large_image_bytes,
            per_range=settings.pulls_per_range_limit,
        )
        if stuck:
            raise Wrong(
                f"{len(stuck)} images wait for more than {_ADMITTED_SECONDS} s though slots are free: admission stands"
                f" still (deployment {stuck[0].deployment_id}, range {stuck[0].range_id})",
                "read the deployer's log: it says what keeps it; that it runs is another check",
            )
        return f"{len(active)} at work, {len(await bus.members(keys.queue))} wait"

    async def _dead(self) -> str:
        letters = await dead_letters(await self._there(), self._streams.dead)
        if letters:
            raise Note(str(len(letters)), "look at them: cyroid-images events dead list")
        return "none"


async def _silence(listen: str) -> OSError | None:
    """Why nothing answers at an address where one of our processes listens; None where one answers."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        _, writer = await asyncio.open_connection(host, int(port), family=socket.AF_UNSPEC)
    except OSError as problem:
        return problem
    writer.close()
    await writer.wait_closed()
    return None


def _taken(listen: str, variable: str) -> Wrong:
    return Wrong(f"no process of ours runs it, but another one listens at {listen}", f"end that one, or set {variable}")


def _is_here(beats: Sequence[RoleBeat]) -> bool:
    return any(beat.host == socket.gethostname() for beat in beats)


def _start(role: str) -> str:
    return f"start it: cyroid-images serve {role}"


def _places(beats: Sequence[RoleBeat]) -> str:
    return ", ".join(f"{beat.host} (process {beat.pid}, {beat.version})" for beat in beats[:3])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _moment(row: RangeView) -> datetime | None:
    """The time in a heartbeat of a range, which may be forged; None where it is not a time."""
    try:
        at = datetime.fromisoformat(row.at)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
