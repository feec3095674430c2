"""Checks of dependencies, in turn: what is wrong with each and what to do about it.

`services.doctor.role_checks` looks at those who serve, `services.doctor.machine` at disks, sockets and clocks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from events.bus import BusDenied, BusError, HandlingError
from events.lease import Bus
from events.redis.connections import Connections
from events.redis.preflight import Concern
from events.redis.replication import Replication
from services.core.ranges.proxies import proxy_note
from services.core.secrets import without_password
from services.doctor.capacity import check_connections
from services.doctor.findings import Finding, Note, Wrong
from services.doctor.machine import OLDEST_ENGINE, too_old, with_free_space, without_rights
from services.doctor.replication import check_replication
from services.doctor.role_checks import RoleChecks
from services.errors import EngineUnavailable, RegistryUnavailable
from services.ports import Engine, Registry
from services.runtime.readiness import ping_bus
from services.settings import Settings

PATIENCE_SECONDS = 10.0


async def not_counted() -> Connections | None:
    """The connections of a bus whose server cannot be asked."""
    return None


async def not_replicated() -> Replication | None:
    """The replication of a bus whose server cannot be asked."""
    return None


#: Where to look as well.
_FAR = "; on a further host look at its link (docs/hosts.md)"


class Checks:
    """All checks. `openers` give the ports, so that one that cannot be opened is a finding too."""

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Callable[[], Awaitable[Bus]],
        concerns: Callable[[], Awaitable[Sequence[Concern]]],
        engine: Callable[[], Awaitable[Engine]],
        registry: Callable[[], Awaitable[Registry]],
        connections: Callable[[], Awaitable[Connections | None]] = not_counted,
        replication: Callable[[], Awaitable[Replication | None]] = not_replicated,
    ) -> None:
        self._settings = settings
        self._bus, self._engine, self._registry = bus, engine, registry
        self._concerns, self._connections, self._replication = concerns, connections, replication
        self._roles = RoleChecks(settings, bus)

    async def run(self) -> list[Finding]:
        """Run all checks; one finding per dependency, in the order in which they depend on one another."""
        checks: list[tuple[str, Callable[[], Awaitable[str]], str]] = [
            ("redis", self._redis, f"start Redis, or correct CYROID_REDIS_URL{_FAR}"),
            ("redis connections", self._room_for_ranges, "raise maxclients of Redis"),
            ("redis replication", self._replicas, "see docs/redis.md"),
            ("host engine", self._host_engine, "start the engine, or correct CYROID_HOST_ENGINE_URL"),
            ("layer store", self._layer_store, "mount the engine's data root read-only and set CYROID_ENGINE_ROOT"),
            ("registry", self._registry_there, f"start the registry, or correct CYROID_REGISTRY_URL{_FAR}"),
            ("registry storage", self._registry_storage, "mount it, or unset CYROID_REGISTRY_STORAGE"),
            *self._roles.all(),
        ]
        return [await self._one(what, check, advice) for what, check, advice in checks]

    async def _one(self, what: str, check: Callable[[], Awaitable[str]], advice: str) -> Finding:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return Finding("ok", what, await check())
        except TimeoutError:
            return Finding("wrong", what, f"no answer within {PATIENCE_SECONDS:g} seconds", advice)
        except Note as note:
            return Finding("note", what, str(note), note.advice)
        except Wrong as problem:
            return Finding("wrong", what, str(problem), problem.advice)
        except (HandlingError, BusError, OSError) as problem:
            return Finding("wrong", what, str(problem), advice)

    async def _redis(self) -> str:
        try:
            bus = await self._bus()
            await ping_bus(bus, self._settings.key_prefix)
            concerns = await self._concerns()
        except BusDenied as problem:
            url = without_password(self._settings.redis_url)
            if "certificate" in str(problem):
                raise Wrong(f"{url}: {problem}", "see docs/hosts.md for certificates between hosts") from problem
            raise Wrong(
                f"{url} refuses our user or password",
                "correct them in CYROID_REDIS_URL, or in the file that CYROID_REDIS_URL_FILE names",
            ) from problem
        if concerns:
            raise Wrong("; ".join(concern.text for concern in concerns), "see its configuration")
        return f"answers at {without_password(self._settings.redis_url)}"

    async def _room_for_ranges(self) -> str:
        try:
            return check_connections(await self._connections())
        except (BusError, OSError) as problem:
            raise Note("cannot be counted without Redis", "") from problem

    async def _replicas(self) -> str:
        settings = self._settings
        try:
            found = await self._replication()
        except (BusError, OSError) as problem:
            raise Note("cannot be asked without Redis", "") from problem
        return check_replication(found, redis_url=settings.redis_url, confirm_replicas=settings.confirm_replicas)

    async def _host_engine(self) -> str:
        url = without_password(self._settings.host_engine_url)
        try:
            info = await (await self._engine()).info()
        except EngineUnavailable as problem:
            refused = without_rights(url)
            if refused is not None:
                raise Wrong(*refused) from problem
            if problem.code == "engine_too_old":
                raise Wrong(str(problem), _upgrade()) from problem
            raise
        if too_old(info.version):
            raise Wrong(f"{info.version} at {url} is too old", _upgrade())
        if note := proxy_note(self._settings.registry_place().authority, info.proxy, info.no_proxy):
            raise Note(
                f"{info.version} at {url}: {note}", "configure the proxy of dockerd (docs.docker.com, daemon/proxy)"
            )
        return f"{info.version} ({info.store} store, {info.platform}) at {url}"

    async def _layer_store(self) -> str:
        root = self._settings.engine_root
        if not root:
            if where := await self._roles.elsewhere("registry-pusher"):
                return f"not checked: the registry-pusher runs at {where}"
            text = "CYROID_ENGINE_ROOT is not set: layers are read through `docker save`, which is slower"
            raise Note(text, "mount the engine's data root read-only and set it")
        info = await (await self._engine()).info()
        path = Path(root)
        if not os.access(path, os.R_OK | os.X_OK):
            raise Wrong(f"{root} cannot be read", "mount the engine's data root there, readable for this user")
        wanted = path / ("containerd" if info.store == "containerd" else "image/overlay2/layerdb")
        if info.store == "classic" and not wanted.is_dir():
            raise Wrong(
                f"{root} holds no image/overlay2/layerdb, so it is not this engine's data root",
                f"set CYROID_ENGINE_ROOT to where the engine's {info.root} is mounted",
            )
        free = with_free_space(path, "make room: docker system prune")
        return f"{root} can be read, {free}"

    async def _registry_there(self) -> str:
        settings = self._settings
        try:
            registry = await self._registry()
            await registry.ping()
            async for _ in registry.repositories():  # lists and statistics need more than a registry that answers
                break
        except RegistryUnavailable as problem:
            if problem.code == "registry_denied":
                advice = "correct CYROID_REGISTRY_USERNAME and CYROID_REGISTRY_PASSWORD, or CYROID_REGISTRY_TOKEN"
                raise Wrong(f"it refuses our credentials: {problem}", advice) from problem
            raise
        text = f"answers at {settings.registry_place().url}; ranges pull from {settings.registry_address}"
        if settings.registry_auth == "none":
            advice = "for ranges that are not trusted: CYROID_REGISTRY_AUTH=token, and the proxy of docs/security.md"
            raise Note(f"{text} without a token: every range may read every image", advice)
        return text

    async def _registry_storage(self) -> str:
        folder = self._settings.registry_storage
        if not folder:
            return "CYROID_REGISTRY_STORAGE is not set: not checked"
        free = with_free_space(Path(folder), "make room: delete images and collect the registry's garbage")
        return f"{folder}, {free}"


def _upgrade() -> str:
    return f"upgrade it: {'.'.join(map(str, OLDEST_ENGINE))} is the oldest that works"
