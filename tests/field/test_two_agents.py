"""One range id given to two ranges: two agents, on two engines, of which each carries out a part of what is asked.

Learnt from this project's own trial (case `two-agents`): seven of twelve deployments landed on one engine.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from events.messages import RangeContested
from tests.images import tar_of
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, RoleServer, System, free_port

pytestmark = pytest.mark.real

RANGE = "twice"
SECRET = "a-secret-of-this-test"


@dataclass(frozen=True, slots=True)
class Twins:
    """A running system whose one range is spoken for twice, through the range gateway."""

    system: System
    engines: tuple[EngineServer, EngineServer]

    def images(self) -> list[set[str]]:
        """What each engine has under a name of this test."""
        listed = [engine.docker("images", "--format", "{{.Repository}}").split() for engine in self.engines]
        return [{name for name in names if name.startswith("twice/")} for names in listed]


@pytest.fixture
def twins(  # noqa: PLR0917  pytest hands fixtures over by name
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    engine_servers: Callable[[str], EngineServer],
    unique: str,
    tmp_path: Path,
) -> Iterator[Twins]:
    """Two agents with one secret; each has its own engine."""
    engines = (engine_servers("26.1"), engine_servers("28.5"))
    gateway = f"127.0.0.1:{free_port()}"
    (tmp_path / RANGE).write_text(sha256(SECRET.encode()).hexdigest())
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=engine_servers("machine"),
        ranges={RANGE: engines[0]},
        prefix=f"twice-{unique}",
        settings={
            "spool_folder": tmp_path / "spool",
            "agent_grace_seconds": 2,
            "gateway_listen": gateway,
            "gateway_secrets": tmp_path,
        },
    )
    servers = [system.services("all", "range-gateway", name=f"services-{unique}")]
    for number, engine in enumerate(engines):
        settings = {
            "redis_url": f"gateway://{RANGE}:{SECRET}@{gateway}",
            "key_prefix": system.prefix,
            "range_id": RANGE,
            "engine_url": engine.url,
            "beat_seconds": 1,
            "drain_seconds": 1,
        }
        name = f"agent-{number}-{unique}"
        servers.append(lab.start(RoleServer(name, lab.place(name), lab.mark, roles=["agent"], settings=settings)))
    yield Twins(system, engines)
    for server in servers:
        server.stop()


def _contested(system: System) -> dict[str, object] | None:
    """As the HTTP API lists the range."""
    with urllib.request.urlopen(f"{system.api_url}/api/v1/ranges", timeout=10) as answer:
        rows = json.load(answer)["items"]
    found = rows[0]["contested"] if rows else None  # a range is listed once its first heartbeat was read
    assert found is None or isinstance(found, dict)
    return found


def test_two_agents_with_one_range_id(twins: Twins, unique: str, tmp_path: Path) -> None:
    """The event, HTTP and doctor name both engines; no deployment is said to be done, and nothing lands on either."""
    system = twins.system
    ids = sorted(engine.docker("info", "--format", "{{.ID}}").strip() for engine in twins.engines)
    assert poll(lambda: _contested(system) is not None, seconds=90)
    contest = _contested(system)
    assert contest is not None
    assert contest["engine_ids"] == ids
    with system.logbook() as book:
        said = book.find(RangeContested, {system.streams.deployments: "0-0"})
    assert [(one.range_id, one.resolved) for one in said] == [(RANGE, False)]
    findings = {row["what"]: row for row in system.cli("doctor").data["items"]}
    assert findings["ranges"]["state"] == "wrong"
    assert f"two agents speak for range {RANGE}, on the engines {ids[0]} and {ids[1]}" in findings["ranges"]["found"]
    name = f"twice/{unique}:1"
    (tmp_path / "files.tar").write_bytes(tar_of({"t/file": unique.encode()}))
    system.host.docker("import", str(tmp_path / "files.tar"), name)
    ended = system.cli_together([("deploy", RANGE, name, "--id", f"d{number}-{unique}") for number in range(4)])
    assert {one.status for one in ended} == {5}
    assert {image["error"]["code"] for one in ended for image in one.data["images"]} == {"range_contested"}
    assert twins.images() == [set(), set()]
