"""What `doctor` finds, with fakes behind it."""

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
from events.records import ABSENT
from events.redis.preflight import Concern
from services.core.ranges.contest import ContestedRange, ContestKeys
from services.core.ranges.ranges import KnownRange, RangeKeys
from services.doctor.checks import Checks
from services.doctor.findings import Finding
from services.errors import RegistryUnavailable
from services.ports import Engine, Registry
from services.range_gateway.reports import Reports
from services.runtime.heartbeat import LASTS_SECONDS, RoleBeat
from services.settings import Settings
from tests.unit.services.twins import STREAMS, Cluster


async def _findings(
    world: Cluster, tmp_path: Path, *, bus_error: BusError | None = None, **more: Any
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
    checkup = Checks(settings, bus=bus, concerns=concerns, engine=engine, registry=registry)
    return {finding.what: finding for finding in await checkup.run()}


async def _beats(world: Cluster, role: str, *, host: str = "h", ahead_seconds: float = 0) -> None:
    at = datetime.now(UTC) + timedelta(seconds=ahead_seconds)
    beat = RoleBeat(role=role, host=host, pid=7, version="0.1.0", at=at)
    await world.bus.beat(f"test:role:{role}:{host}.7", msgspec.json.encode(beat), LASTS_SECONDS)
    await world.bus.commit(Outcome(index=(IndexWrite("test:index:roles", f"{role}:{host}.7", at.timestamp()),)))


async def _range(world: Cluster, range_id: str, **beat: str) -> None:
    started = AgentStarted(
        range_id=range_id, engine_id="e", engine_version="26.1.5", store="classic", platform="linux/amd64"
    )
    envelope = Envelope(message=started, source="agent", subject=range_id)
    await world.bus.publish(STREAMS.outbox(range_id), envelope)
    await world.bus.beat(STREAMS.alive(range_id), msgspec.json.encode(beat), 60)


async def test_a_role_that_nobody_serves_is_told_although_nothing_waits(tmp_path: Path) -> None:
    """With what starts it; one that is served says where."""
    world = Cluster()
    await _beats(world, "deployer")
    found = await _findings(world, tmp_path)
    assert found["deployer"].state == "ok"
    assert "runs at h (process 7, 0.1.0)" in found["deployer"].found
    for role in ("registry-pusher", "tracker"):
        assert (found[role].state, found[role].advice) == ("wrong", f"start it: cyroid-images serve {role}")
        assert "no process runs it" in found[role].found
    assert found["tar server"].state == "wrong"
    assert (found["api"].state, found["agent-pool"].state) == ("note", "ok")


async def test_the_layer_store_is_looked_at_where_the_registry_pusher_runs(tmp_path: Path) -> None:
    """Beside one that runs elsewhere, as in Compose, there is nothing to set; here or nowhere it is said."""
    elsewhere, here = Cluster(), Cluster()
    await _beats(elsewhere, "registry-pusher", host="elsewhere")
    found = (await _findings(elsewhere, tmp_path))["layer store"]
    assert (found.state, found.found) == ("ok", "not checked: the registry-pusher runs at elsewhere (process 7, 0.1.0)")
    await _beats(here, "registry-pusher", host=socket.gethostname())
    assert (await _findings(here, tmp_path))["layer store"].state == "note"
    assert (await _findings(Cluster(), tmp_path))["layer store"].state == "note"


async def test_a_tar_server_elsewhere_is_believed_one_here_is_tried(tmp_path: Path) -> None:
    """A process here that beats and does not answer is wrong."""
    world = Cluster()
    await _beats(world, "tar-server", host="elsewhere")
    assert (await _findings(world, tmp_path))["tar server"].state == "ok"
    await _beats(world, "tar-server", host=socket.gethostname())
    assert (await _findings(world, tmp_path))["tar server"].state == "wrong"


async def test_ranges_without_an_agent_need_the_agent_pool(tmp_path: Path) -> None:
    """As soon as there is one."""
    world = Cluster()
    entry = IndexWrite(RangeKeys("test").places, "r9", 1.0)
    await world.bus.commit(Outcome(index=(entry,)))
    finding = (await _findings(world, tmp_path))["agent-pool"]
    assert (finding.state, "r9" in finding.found) == ("wrong", True)


async def test_a_range_over_its_limits_is_named(tmp_path: Path) -> None:
    """With what it did and that it was shut out; without a gateway it is noted that there is none."""
    world = Cluster()
    assert (await _findings(world, tmp_path))["range-gateway"].state == "note"
    await _beats(world, "range-gateway")
    assert (await _findings(world, tmp_path))["range-gateway"].state == "ok"
    reports = Reports(world.bus, STREAMS, source="range-gateway@h", clock=lambda: 100.0)
    reports.met("r9", "rate", cut=True)
    await reports.write()
    finding = (await _findings(world, tmp_path))["range-gateway"]
    assert finding.state == "wrong"
    assert "r9 (rate)" in finding.found
    assert "shut out for a while: r9" in finding.found


async def test_a_range_for_which_two_agents_speak_is_told(tmp_path: Path) -> None:
    """With the engines, and that its deployments wait."""
    world, now = Cluster(), datetime.now(UTC)
    await _range(world, "r1")
    contest = ContestedRange(range_id="r1", engine_ids=("e1", "e2"), since=now, seen_at=now)
    record = ContestKeys("test").record("r1").write(contest, expected=ABSENT)
    await world.bus.commit(Outcome(records=(record,), index=(IndexWrite(ContestKeys("test").index, "r1", 1.0),)))
    finding = (await _findings(world, tmp_path))["ranges"]
    assert finding.state == "wrong"
    assert "two agents speak for range r1, on the engines e1 and e2" in finding.found
    assert "deployments wait" in finding.advice


async def test_a_range_whose_engine_asks_a_proxy_for_the_registry_is_told(tmp_path: Path) -> None:
    """As its agent said; one whose NO_PROXY names the registry is fine."""
    world, keys = Cluster(), RangeKeys("test")
    for range_id, no_proxy in (("r1", "localhost"), ("r2", "registry.test")):
        known = KnownRange(
            range_id=range_id,
            engine_id="e",
            engine_version="28.5.2",
            store="classic",
            platform="linux/amd64",
            started_at=datetime.now(UTC),
            proxy="http://proxy.test:3128",
            no_proxy=no_proxy,
        )
        record = keys.known(range_id).write(known, expected=ABSENT)
        await world.bus.commit(Outcome(records=(record,), index=(IndexWrite(keys.known_index, range_id, 1.0),)))
    finding = (await _findings(world, tmp_path, registry_address="registry.test:5000"))["proxies"]
    assert finding.state == "note"
    assert "r1: this engine goes through the proxy http://proxy.test:3128" in finding.found
    assert "r2" not in finding.found
    assert (await _findings(Cluster(), tmp_path))["proxies"].state == "ok"


async def test_an_engine_that_is_too_old_is_told(tmp_path: Path) -> None:
    """The host's and a range's."""
    world = Cluster()
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
    world = Cluster()
    world.engine.away = True
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        monkeypatch.setattr(os, "access", lambda *_: False)
        found = await _findings(world, tmp_path, host_engine_url=f"unix://{tmp_path}/s")
    assert "permission denied" in found["host engine"].found
    assert "to a group" in found["host engine"].advice or "usermod" in found["host engine"].advice


async def test_a_registry_that_refuses_credentials_is_told_as_that(tmp_path: Path) -> None:
    """With the variables that hold them."""
    world = Cluster()

    async def ping() -> None:
        raise RegistryUnavailable("the registry answered 401", code="registry_denied")

    world.registry.ping = ping  # type: ignore[method-assign]
    finding = (await _findings(world, tmp_path))["registry"]
    assert "refuses our credentials" in finding.found
    assert "CYROID_REGISTRY_PASSWORD" in finding.advice


async def test_clocks_that_differ_are_told(tmp_path: Path) -> None:
    """Of hosts and of ranges; what a range says may be nonsense."""
    world = Cluster()
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
    world = Cluster()
    assert (await _findings(world, tmp_path))["registry storage"].state == "ok"
    assert "GB free" in (await _findings(world, tmp_path, registry_storage=str(tmp_path)))["registry storage"].found
    missing = (await _findings(world, tmp_path, registry_storage=str(tmp_path / "none")))["registry storage"]
    assert (missing.state, missing.advice) == ("wrong", "mount it, or unset CYROID_REGISTRY_STORAGE")


async def test_a_wrong_password_is_told_as_that(tmp_path: Path) -> None:
    """Not as a Redis that is away, and with where the password is set; the password itself is not shown."""
    url = "redis://cyroid:wrong@127.0.0.1:6379/0"
    refused = BusDenied("Redis does not let us in (invalid username-password pair)")
    finding = (await _findings(Cluster(), tmp_path, bus_error=refused, redis_url=url))["redis"]
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
    assert (await _findings(Cluster(), tmp_path, spool_folder=usual))["spool"].state == "ok"
    assert (await _findings(Cluster(), tmp_path, spool_folder=chosen))["spool"].state == "wrong"
    elsewhere, here = Cluster(), Cluster()
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
    world = Cluster()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: dict[str, Any] = {variable: f"127.0.0.1:{server.getsockname()[1]}"}
        finding = (await _findings(world, tmp_path, **taken))[what]
        assert (finding.state, f"CYROID_{variable.upper()}" in finding.advice) == ("wrong", True)
        assert "another one listens" in finding.found
        await _beats(world, role)
        assert (await _findings(world, tmp_path, **taken))[what].state == "ok"


async def test_an_admission_that_stands_still_is_found(tmp_path: Path) -> None:
    """Somebody waits long though a slot is free; who came just now, or waits for its range, does not count."""
    world, now = Cluster(), datetime.now(UTC).timestamp()

    async def put(index: str, ticket: str, since: float) -> None:
        await world.bus.commit(Outcome(index=(IndexWrite(f"test:index:{index}", ticket, since),)))

    await put("queue", "new 0 5 10 r1", now)
    for number in range(3):
        await put("active", f"busy {number} 5 10 r2", now - 100)
    await put("queue", "turn 0 5 10 r2", now - 100)
    assert (await _findings(world, tmp_path))["admission"].state == "ok"
    await put("queue", "old 0 5 10 r1", now - 100)
    found = (await _findings(world, tmp_path))["admission"]
    assert found.state == "wrong"
    assert "admission stands still (deployment old, range r1)" in found.found
