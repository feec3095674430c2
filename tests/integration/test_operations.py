"""Every role as a process of its own: each serves liveness, readiness and metrics, and no metric is counted unseen."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.machine.commands import need
from deploy.machine.polling import poll
from services.bootstrap import ROLES
from services.runtime.metrics import REGISTRY
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, RoleServer, System, free_port
from tests.monitoring import EVERY_ROLE, FOLDER, METRIC, OF_ROLE, expressions

RANGE = "operations-1"
#: Selectors of alerts and panels about what need not happen in these tests.
NEVER_HERE = {
    'cyroid_bus_events_total{event="failed"}',
    'cyroid_bus_events_total{event="spoilt"}',
    'cyroid_bus_events_total{event=~"takeovers|lost_leases"}',
}


def families(text: str) -> set[str]:
    """Names of the families that have a sample; `_total` and the like are no part of a family's name."""
    return {family.name for family in text_string_to_metric_families(text) if family.samples}


def defined() -> set[str]:
    """Names of the families that the code defines."""
    return {family.name for family in REGISTRY.collect() if family.name.startswith("cyroid_")}


@dataclass
class Installation:
    """A process for each role, and where it answers."""

    system: System
    host: EngineServer
    registry: RegistryServer
    urls: dict[str, str]
    servers: dict[str, RoleServer]

    def get(self, role: str, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.urls[role]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as problem:
            return problem.code, problem.read().decode()

    def ready(self, role: str) -> tuple[int, dict[str, Any]]:
        status, text = self.get(role, "/readyz")
        return status, json.loads(text)


@pytest.fixture(scope="module")
def installation(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    range_engine_servers: tuple[EngineServer, EngineServer],
) -> Iterator[Installation]:
    """The pusher's engine root is empty, so its first layer source gives nothing and the next one is counted."""
    nothing = lab.folder / "operations-no-engine-root"
    nothing.mkdir()
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=host_engine_server,
        ranges={RANGE: range_engine_servers[0]},
        prefix="operations",
        settings={"engine_root": nothing, "gateway_listen": f"127.0.0.1:{free_port()}"},
    )
    urls, servers = {"api": system.api_url}, {}
    try:
        servers["api"] = system.services("api", name="operations-api")
        for role in ROLES:
            if role == "api":
                continue
            address = f"127.0.0.1:{free_port()}"
            urls[role] = f"http://{address}"
            own = {"operations_listen": address, "operations_clients": "127.0.0.0/8"}
            told = replace(system, settings={**system.settings, **own})
            servers[role] = told.agent(RANGE) if role == "agent" else told.services(role, name=f"operations-{role}")
        yield Installation(system, host_engine_server, registry_server, urls, servers)
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture(scope="module")
def used(installation: Installation, base_image_tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """After two deployments, one by the registry and one by tar, while the registry is away."""
    tmp_path = tmp_path_factory.mktemp("context")
    installation.host.docker("import", str(base_image_tar), "operations-base:1")
    (tmp_path / "content").write_text("operations " * 1000)
    (tmp_path / "Dockerfile").write_text("FROM operations-base:1\nCOPY content /content\n")
    built = installation.system.cli("images", "build", str(tmp_path), "-t", "operations:1")
    assert built.status == 0, built.talk
    assert installation.system.cli("deploy", RANGE, "operations:1").status == 0
    installation.registry.stop()
    try:
        (tmp_path / "content").write_text("by tar " * 1000)
        assert installation.system.cli("images", "build", str(tmp_path), "-t", "operations:2").status in (0, 4)
        by_tar = installation.system.cli("deploy", RANGE, "operations:2")
        assert by_tar.data["images"][0]["how"] == "loaded", by_tar
        status, found = installation.ready("registry-pusher")
        assert (status, found["status"], found["dependencies"]["registry"]["status"]) == (
            200,
            "degraded",
            "unavailable",
        )
        assert installation.ready("api")[0] == 503
    finally:
        installation.registry.start()
    return installation


def test_every_role_serves_its_metrics(used: Installation) -> None:
    """Every family that the code defines has a sample in the process that counts it."""
    seen: set[str] = set()
    for role, expected in OF_ROLE.items():
        wanted = expected | EVERY_ROLE

        def missing(role: str = role, wanted: set[str] = wanted) -> set[str]:
            return wanted - families(used.get(role, "/metrics")[1])

        assert poll(lambda: not missing(), seconds=90, every=0.5), (role, missing())
        seen |= families(used.get(role, "/metrics")[1])
    assert defined() <= seen
    assert set().union(*OF_ROLE.values(), EVERY_ROLE) >= defined()
    assert 'cyroid_deployments_total{outcome="succeeded"} 2.0' in used.get("deployer", "/metrics")[1]


@pytest.fixture
def prometheus(used: Installation, tmp_path: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Prometheus with the rules of deploy/monitoring, which reads every process but the agent; answers expressions."""
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    told["rule_files"] = [str(FOLDER / "alerts.yml")]
    urls = {role: url.removeprefix("http://") for role, url in used.urls.items() if role != "agent"}
    told["scrape_configs"][0]["static_configs"] = [
        {"targets": [url], "labels": {"role": role}} for role, url in urls.items()
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(told))
    address = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    command = [need("prometheus", "prometheus"), *words, f"--web.listen-address={address}"]

    def ask(expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            assert poll(lambda: _is_ready(address), seconds=30), (tmp_path / "log").read_text()
            yield ask
        finally:
            running.terminate()
            running.wait(timeout=30)


def _is_ready(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
        return True
    return False


def test_prometheus_finds_what_alerts_and_panels_ask_for(
    used: Installation, prometheus: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Without the agent: every selector of theirs has a series, but for what never went wrong here."""
    role_of = {role: url for role, url in used.urls.items() if role != "agent"}
    assert poll(lambda: len(prometheus('up{job="cyroid-images"} == 1')) == len(role_of), seconds=30)
    names = {match.group(0) for _, text in expressions() for match in METRIC.finditer(text)}

    def missing() -> set[str]:
        return {one for one in names if not prometheus(one)}

    assert poll(lambda: missing() <= NEVER_HERE, seconds=60), missing()
    # One is pending for a moment where the rules are evaluated before the first scrape.
    assert poll(lambda: not prometheus('ALERTS{alertname=~"Cyroid(NotScraped|ApiNotScraped|ProcessDown)"}'), seconds=30)


def test_every_role_is_alive_and_ready(installation: Installation) -> None:
    """With everything there each role answers 200 on both paths."""
    assert set(installation.urls) == set(ROLES)
    for role in ROLES:
        assert installation.get(role, "/livez")[0] == 200
        status, found = installation.ready(role)
        assert (status, found["dependencies"]["redis"]) == (200, {"status": "ok"}), (role, found)


def test_a_process_whose_redis_goes_away_is_alive_and_not_ready(installation: Installation, lab: Lab) -> None:
    """Readiness says which dependency is missing, and comes back with it."""
    redis = lab.redis("operations-own")
    address = f"127.0.0.1:{free_port()}"
    own = {**installation.system.settings, "operations_listen": address}
    server = replace(installation.system, redis=redis, settings=own).services("tracker", name="operations-own-tracker")
    alone = replace(installation, urls={"tracker": f"http://{address}"})
    try:
        assert alone.ready("tracker")[0] == 200
        redis.stop()
        assert alone.get("tracker", "/livez")[0] == 200
        status, found = alone.ready("tracker")
        assert (status, found["status"], found["dependencies"]["redis"]["status"]) == (503, *2 * ("unavailable",))
        redis.start()
        assert poll(lambda: alone.ready("tracker")[0] == 200, seconds=30)
    finally:
        server.stop()
        redis.stop()
