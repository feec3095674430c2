"""What `doctor` finds, with twins behind it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.bus import BusDenied, BusError, IndexWrite, Outcome
from events.envelope import Envelope
from events.lease import Bus
from events.messages import AgentStarted
from events.preflight import Concern
from services.core.ranges import RangeKeys
from services.doctor.checkup import Checkup
from services.doctor.findings import Finding
from services.errors import RegistryUnavailable
from services.ports import Engine, Registry
from services.presence import LASTS_SECONDS, RoleBeat
from services.settings import Settings
from tests.unit.services.twins import STREAMS, World


async def _findings(
    world: World, tmp_path: Path, *, bus_error: BusError | None = None, **more: Any
) -> dict[str, Finding]:
    async def bus() -> Bus:
        if bus_error is not None:
            raise bus_error
        return world.bus

    async def concerns() -> Sequence[Concern]:
        return ()

    async def engine() -> Engine:
        return world.engine

    async def registry() -> Registry:
        return world.registry

    settings = Settings(**{"key_prefix": "test", "spool_folder": str(tmp_path), "tar_listen": "127.0.0.1:1", **more})
    checkup = Checkup(settings, bus=bus, concerns=concerns, engine=engine, registry=registry)
    return {finding.what: finding for finding in await checkup.run()}


async def _beats(world: World, role: str, *, host: str = "h", ahead_seconds: float = 0) -> None:
    at = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
    beat = RoleBeat(role=role, host=host, pid=7, version="0.1.0", at=at)
    await world.bus.beat(f"test:role:{role}:{host}.7", msgspec.json.encode(beat), LASTS_SECONDS)
    await world.bus.commit(Outcome(index=(IndexWrite("test:index:roles", f"{role}:{host}.7", at.timestamp()),)))


async def _range(world: World, range_id: str, **beat: str) -> None:
    started = AgentStarted(
        range_id=range_id, engine_id="e", engine_version="26.1.5", store="classic", platform="linux/amd64"
    )
    envelope = Envelope(message=started, source="agent", subject=range_id)
    await world.bus.publish(STREAMS.outbox(range_id), envelope)
    await world.bus.beat(STREAMS.alive(range_id), msgspec.json.encode(beat), 60)


async def test_a_role_that_nobody_serves_is_told_although_nothing_waits(tmp_path: Path) -> None:
    """With what starts it; one that is served says where."""
    world = World()
    await _beats(world, "deployer")
    found = await _findings(world, tmp_path)
    assert found["deployer"].state == "ok"
    assert "runs at h (process 7, 0.1.0)" in found["deployer"].found
    for role in ("registry-pusher", "tracker"):
        assert (found[role].state, found[role].advice) == ("wrong", f"start it: cyroid-images serve {role}")
        assert "no process runs it" in found[role].found
    assert found["tar server"].state == "wrong"
    assert (found["api"].state, found["agent-pool"].state) == ("note", "ok")


async def test_a_tar_server_elsewhere_is_believed_one_here_is_tried(tmp_path: Path) -> None:
    """A process here that beats and does not answer is wrong."""
    world = World()
    await _beats(world, "tar-server", host="elsewhere")
    assert (await _findings(world, tmp_path))["tar server"].state == "ok"
    await _beats(world, "tar-server", host=socket.gethostname())
    assert (await _findings(world, tmp_path))["tar server"].state == "wrong"


async def test_ranges_without_an_agent_need_the_agent_pool(tmp_path: Path) -> None:
    """As soon as there is one."""
    world = World()
    entry = IndexWrite(RangeKeys("test").places, "r9", 1.0)
    await world.bus.commit(Outcome(index=(entry,)))
    finding = (await _findings(world, tmp_path))["agent-pool"]
    assert (finding.state, "r9" in finding.found) == ("wrong", True)


async def test_an_engine_that_is_too_old_is_told(tmp_path: Path) -> None:
    """The host's and a range's."""
    world = World()
    world.engine.version = "19.03.15"
    await _range(world, "r1", engine_version="19.03.15")
    found = await _findings(world, tmp_path)
    assert (found["host engine"].state, found["host engine"].advice) == (
        "wrong",
        "upgrade it: 20.10 is the oldest that works",
    )
    assert "engine older than 20.10: r1" in found["ranges"].found


async def test_a_socket_without_rights_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as an engine that is away."""
    world = World()
    world.engine.away = True
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        monkeypatch.setattr(os, "access", lambda *_: False)
        found = await _findings(world, tmp_path, host_engine_url=f"unix://{tmp_path}/s")
    assert "permission denied" in found["host engine"].found
    assert "to a group" in found["host engine"].advice or "usermod" in found["host engine"].advice


async def test_a_registry_that_refuses_credentials_is_told_as_that(tmp_path: Path) -> None:
    """With the variables that hold them."""
    world = World()

    async def ping() -> None:
        raise RegistryUnavailable("the registry answered 401", code="registry_denied")

    world.registry.ping = ping  # type: ignore[method-assign]
    finding = (await _findings(world, tmp_path))["registry"]
    assert "refuses our credentials" in finding.found
    assert "CYROID_REGISTRY_PASSWORD" in finding.advice


async def test_clocks_that_differ_are_told(tmp_path: Path) -> None:
    """Of hosts and of ranges; what a range says may be nonsense."""
    world = World()
    await _beats(world, "deployer", ahead_seconds=60)
    await _range(world, "r1", at=(datetime.now(UTC) - timedelta(seconds=600)).isoformat())
    await _range(world, "r2", at="nonsense")
    finding = (await _findings(world, tmp_path))["clocks"]
    assert finding.state == "wrong"
    assert "s ahead" in finding.found
    assert "range r1 is about 600 s behind" in finding.found
    assert "r2" not in finding.found


async def test_the_registrys_storage_is_looked_at_where_it_is_mounted(tmp_path: Path) -> None:
    """A folder that is not there is wrong; none is not looked at."""
    world = World()
    assert (await _findings(world, tmp_path))["registry storage"].state == "ok"
    assert "GB free" in (await _findings(world, tmp_path, registry_storage=str(tmp_path)))["registry storage"].found
    missing = (await _findings(world, tmp_path, registry_storage=str(tmp_path / "none")))["registry storage"]
    assert (missing.state, missing.advice) == ("wrong", "mount it, or unset CYROID_REGISTRY_STORAGE")


async def test_a_wrong_password_is_told_as_that(tmp_path: Path) -> None:
    """Not as a Redis that is away, and with where the password is set; the password itself is not shown."""
    url = "redis://cyroid:wrong@127.0.0.1:6379/0"
    refused = BusDenied("Redis does not let us in (invalid username-password pair)")
    finding = (await _findings(World(), tmp_path, bus_error=refused, redis_url=url))["redis"]
    assert finding.state == "wrong"
    assert "refuses our user or password" in finding.found
    assert "wrong@" not in finding.found
    assert "CYROID_REDIS_URL_FILE" in finding.advice
    assert "start" not in finding.advice


async def test_the_spool_is_looked_at_where_the_tar_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only place is no fault beside a tar server elsewhere, or where nobody chose a folder; else it is."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    chosen, usual = str(tmp_path), Settings().spool_folder
    assert (await _findings(World(), tmp_path, spool_folder=usual))["spool"].state == "ok"
    assert (await _findings(World(), tmp_path, spool_folder=chosen))["spool"].state == "wrong"
    elsewhere, here = World(), World()
    await _beats(elsewhere, "tar-server", host="elsewhere")
    assert (await _findings(elsewhere, tmp_path, spool_folder=chosen))["spool"].state == "ok"
    await _beats(here, "tar-server", host=socket.gethostname())
    assert (await _findings(here, tmp_path, spool_folder=usual))["spool"].state == "wrong"


@pytest.mark.parametrize(
    ("what", "role", "variable"), [("api", "api", "api_listen"), ("tar server", "tar-server", "tar_listen")]
)
async def test_a_listen_address_that_another_process_has_is_told(
    tmp_path: Path, what: str, role: str, variable: str
) -> None:
    """Something answers there and nobody says that he serves: with the setting that moves ours."""
    world = World()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: dict[str, Any] = {variable: f"127.0.0.1:{server.getsockname()[1]}"}
        finding = (await _findings(world, tmp_path, **taken))[what]
        assert (finding.state, f"CYROID_{variable.upper()}" in finding.advice) == ("wrong", True)
        assert "another one listens" in finding.found
        await _beats(world, role)
        assert (await _findings(world, tmp_path, **taken))[what].state == "ok"
