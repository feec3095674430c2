"""docker-compose.yml and what is baked into a range, read as the files they are."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.container.bridge_guard import PREFIX
from deploy.container.engine_proxy import FOLDER, RIGHTS, SOCKET
from deploy.container.range_proxy import REGISTRY, TAR_SERVER
from deploy.stack import ranges
from deploy.stack.bridges import BRIDGE
from deploy.stack.compose import Stack
from deploy.stack.nested import CAPABILITIES
from deploy.stack.up import addresses as addresses_told
from services.bootstrap import ON_DEMAND, chosen_roles
from services.runtime.environment import read_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RANGES = {name: service for name, service in SERVICES.items() if "demo" in service.get("profiles", [])}
ROLES = {
    name: service
    for name, service in SERVICES.items()
    if "cyroid/images" in service["image"] or "cyroid/layer-mounter" in service["image"]
}
HARDENED = {name: service for name, service in SERVICES.items() if name not in RANGES}

#: CYROID's own: api, db, redis, minio, traefik, worker, frontend.
TAKEN = {f"172.30.0.{last}" for last in (10, 11, 12, 13, 14, 15, 20)}


def networks(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = service.get("networks", {})
    return found


def addresses() -> Iterator[tuple[str, str, str]]:
    for name, service in SERVICES.items():
        for network, options in networks(service).items():
            yield name, network, options["ipv4_address"]


def subnet(network: str) -> ipaddress.IPv4Network:
    (config,) = COMPOSE["networks"][network]["ipam"]["config"]
    return ipaddress.IPv4Network(config["subnet"])


def test_no_address_is_taken_twice() -> None:
    """Every container has a fixed address of its own, none of CYROID's and none of a network's first (the gateway)."""
    seen = [address for _, _, address in addresses()]
    assert len(seen) == len(set(seen))
    assert not TAKEN & set(seen)
    for name, network, address in addresses():
        assert ipaddress.IPv4Address(address) in list(subnet(network).hosts())[1:], f"{name} on {network}: {address}"


def test_the_registry_is_where_everybody_looks_for_it() -> None:
    """registry:2 has .16 and the alias cyroid-registry, on the host's disk, with deletion enabled."""
    registry = SERVICES["registry"]
    assert registry["image"] == "${STACK_REGISTRY_IMAGE:-registry:2}"
    assert networks(registry) == {"cyroid-mgmt": {"ipv4_address": "172.30.0.16", "aliases": ["cyroid-registry"]}}
    assert "${CYROID_DATA_DIR:-/data/cyroid}/registry:/var/lib/registry" in registry["volumes"]
    config = yaml.safe_load((ROOT / "deploy/registry.yml").read_text())
    assert config["storage"]["delete"]["enabled"] is True
    assert config["http"]["addr"] == "0.0.0.0:5000"
    assert "cache" not in config["storage"]


def test_networks_do_not_overlap_and_ranges_are_cut_out_of_theirs() -> None:
    """cyroid-mgmt is 172.30.0.0/24; every range has its own part of 172.30.1.0/24, without host and without way out."""
    assert subnet("cyroid-mgmt") == ipaddress.IPv4Network("172.30.0.0/24")
    of_ranges = [name for name in COMPOSE["networks"] if name.startswith("cyroid-ranges-")]
    assert set(COMPOSE["networks"]) == {"cyroid-mgmt", "cyroid-pull", *of_ranges}
    assert COMPOSE["networks"]["cyroid-pull"]["internal"] is True
    for name in of_ranges:
        assert subnet(name).subnet_of(ipaddress.IPv4Network("172.30.1.0/24"))
        assert COMPOSE["networks"][name]["internal"] is True
        options = dict(COMPOSE["networks"][name]["driver_opts"])
        assert options.pop(BRIDGE).startswith(PREFIX)  # else bridge-guard does not know it
        assert options == {"com.docker.network.bridge.inhibit_ipv4": "true"}
        assert not any(subnet(name).overlaps(subnet(other)) for other in COMPOSE["networks"] if other != name)


def test_a_range_meets_those_it_needs_and_nobody_else() -> None:
    """On each range's network are three of ours, under the names that its agent is configured with, and that range."""
    for name, service in RANGES.items():
        (network,) = networks(service)
        others = {other for other, one in SERVICES.items() if network in networks(one)} - {name}
        assert others == {"range-proxy", "range-gateway", "agent-pool"}
        aliases = {alias for other in others for alias in networks(SERVICES[other])[network].get("aliases", [])}
        assert aliases == {"cyroid-registry", "cyroid-gateway", "cyroid-tar", "cyroid-first-tar", "cyroid-pool"}


def test_the_pull_side_cannot_write() -> None:
    """What ranges pull from has its storage mounted read-only, refuses writes itself and is on no other network."""
    pull = SERVICES["registry-pull"]
    assert "${CYROID_DATA_DIR:-/data/cyroid}/registry:/var/lib/registry:ro" in pull["volumes"]
    config = yaml.safe_load((ROOT / "deploy/registry-pull.yml").read_text())
    assert config["storage"]["maintenance"]["readonly"]["enabled"] is True
    assert config["storage"]["delete"]["enabled"] is False
    assert set(networks(pull)) == {"cyroid-pull"}


def test_who_stands_on_several_networks_is_no_router() -> None:
    """A container between networks forwards nothing."""
    between = {name for name, service in SERVICES.items() if len(networks(service)) > 1}
    assert between == {"range-proxy", "range-gateway", "tar-server", "agent-pool"}
    for name in between:
        assert SERVICES[name]["sysctls"] == {"net.ipv4.ip_forward": "0"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_limited_and_watched(name: str) -> None:
    """Health, memory, processors, processes and log size are bounded for each."""
    service = SERVICES[name]
    assert {"mem_limit", "cpus", "pids_limit", "logging", "healthcheck", "restart"} <= set(service)
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["healthcheck"].get("test") or name == "prepare"


def test_services_come_before_what_runs_in_ranges() -> None:
    """Where processors are short; ranges that are added later get the same share as those of the demo."""
    assert RANGES
    assert {str(service["cpu_shares"]) for service in RANGES.values()} == {ranges.CPU_SHARES}
    assert int(ranges.CPU_SHARES) < 1024
    assert not any("cpu_shares" in service for service in HARDENED.values())


@pytest.mark.parametrize("name", sorted(HARDENED))
def test_every_service_is_hardened(name: str) -> None:
    """Read-only root, no capability but what is named, no new privileges, and root only where files demand it."""
    service = HARDENED[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"][:1] == ["no-new-privileges:true"]
    # One may see the kernel's switches, the other may mount.
    assert (len(service["security_opt"]) == 1) == (name not in {"bridge-guard", "layer-mounter"})
    assert "privileged" not in service
    powers = {"prepare": ["CHOWN", "DAC_OVERRIDE", "FOWNER"], "bridge-guard": ["NET_ADMIN"]}
    powers["registry-pusher"] = ["DAC_READ_SEARCH"]
    powers["layer-mounter"] = ["SYS_ADMIN", "CHOWN", "SETUID", "SETGID", "SETPCAP", "KILL"]
    assert service.get("cap_add", []) == powers.get(name, [])
    assert (service["user"] == "0:0") == (name in powers)


def test_published_ports_are_the_hosts_own() -> None:
    """Whatever is published is published on loopback."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def mounts(service: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Source, target, and whether it is read-only, of each mount in either of Compose's ways to write one."""
    found = []
    for mount in service.get("volumes", []):
        if isinstance(mount, dict):
            found.append((str(mount["source"]), str(mount["target"]), bool(mount.get("read_only"))))
        else:
            source, target, *options = re.split(r":(?=/|ro$)", mount)
            found.append((source, target, "ro" in options))
    return found


def test_the_proxy_alone_has_the_engines_socket() -> None:
    """And the group that may use it; on no network. Whoever has that socket is root on the host."""
    socket = "${STACK_ENGINE_SOCKET:-/var/run/docker.sock}"
    holders = {
        name
        for name, service in SERVICES.items()
        for source, target, _ in mounts(service)
        if "docker.sock" in source + target
    }
    assert holders == {name for name, one in SERVICES.items() if "group_add" in one} == {"engine-proxy"}
    assert (socket, "/var/run/docker.sock", False) in mounts(SERVICES["engine-proxy"])
    assert SERVICES["engine-proxy"]["network_mode"] == "none"


def test_every_role_reaches_the_engine_through_a_socket_of_its_own() -> None:
    """The proxy has rights for each role that needs the engine, and that role mounts that folder alone."""
    folder = "${CYROID_DATA_DIR:-/data/cyroid}/engine"
    users = {name: [one for one in mounts(service) if one[0].startswith(folder)] for name, service in SERVICES.items()}
    assert users.pop("engine-proxy") == [(folder, FOLDER, False)]
    assert {name: found for name, found in users.items() if found} == {
        role: [(f"{folder}/{role}", FOLDER, True)] for role in RIGHTS
    }
    for role in RIGHTS:
        assert SERVICES[role]["environment"]["CYROID_HOST_ENGINE_URL"].partition(" ")[0] == f"unix://{FOLDER}/{SOCKET}"
        assert SERVICES[role]["depends_on"]["engine-proxy"] == {"condition": "service_healthy"}


def test_the_engines_folders_are_read_by_the_pusher_alone() -> None:
    """Read-only, without the mounts below; the tar server reads the registry and what the engine saves."""
    readers = set()
    for name in HARDENED:
        for mount in SERVICES[name].get("volumes", []):
            if isinstance(mount, dict) and mount["target"] == "/var/lib/docker":
                readers.add(name)
                assert mount["read_only"] is True
                assert mount["bind"] == {"recursive": "disabled"}
    assert readers == {"registry-pusher"}


def test_the_stop_grace_is_longer_than_the_drain() -> None:
    """Work under way is handed back before Compose cuts it off."""
    for name, service in ROLES.items():
        drain = float(service.get("environment", {}).get("CYROID_DRAIN_SECONDS", 0))
        assert float(service["stop_grace_period"].removesuffix("s")) > drain, name


def test_a_ranges_agent_is_given_longer_than_its_drain() -> None:
    """The init waits longer than the agent drains, and the container's grace is longer than both its children take."""
    assignments = re.findall(r"^STOP_SECONDS = ([\d.]+)$", (ROOT / "dind/init.py").read_text(), re.MULTILINE)
    (stop,) = map(float, assignments)
    (drain,) = map(float, re.findall(r"CYROID_DRAIN_SECONDS=([\d.]+)", (ROOT / "dind/Dockerfile").read_text()))
    assert drain <= stop / 2
    for service in RANGES.values():
        assert "CYROID_DRAIN_SECONDS" not in service["environment"]
        assert float(service["stop_grace_period"].removesuffix("s")) > 2 * stop


def test_every_service_waits_for_what_it_stands_on() -> None:
    """Starts are ordered by health, not by hope."""
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other == "prepare" else "service_healthy"
            assert how == {"condition": expected}, f"{name} on {other}"
    assert set(SERVICES["tracker"]["depends_on"]) == {"prepare", "redis", "registry", "engine-proxy"}
    assert set(SERVICES["deployer"]["depends_on"]) == {"prepare", "redis", "registry"}


@pytest.mark.parametrize("name", sorted(ROLES))
def test_settings_are_ones_there_are(name: str, tmp_path: Path) -> None:
    """The services' own strict reader takes what Compose hands them."""
    environment = dict(SERVICES[name].get("environment", {})) | {"CYROID_HOST_ID": "", "CYROID_CONFIRM_REPLICAS": "0"}
    if "CYROID_LAYER_FOLDER" in environment:
        environment |= {"CYROID_MOUNT_COMPRESSED": "true", "CYROID_UNPACKED_LIMIT_BYTES": "0"}
    if "CYROID_REGISTRY_PULL_KEY_FILE" in environment:
        environment["CYROID_REGISTRY_PULL_KEY_FILE"] = str(tmp_path / "key")
        (tmp_path / "key").write_text("k3y\n")
    if "CYROID_REDIS_URL_FILE" in environment:
        environment["CYROID_REDIS_URL_FILE"] = str(tmp_path / "redis_url")
        (tmp_path / "redis_url").write_text("redis://cyroid:secret@cyroid-redis:6379/0\n")
    assert read_settings(environment).log_format in ("json", "auto")


def test_every_role_serves_health_and_metrics_on_the_management_network() -> None:
    """At its own address there, answering that network alone; its health check asks whether it is ready."""
    for name, service in ROLES.items():
        if service["command"][1] != "serve" or name == "api":  # which has the same paths under its own address
            continue
        address = networks(service)["cyroid-mgmt"]["ipv4_address"]
        assert service["environment"]["CYROID_OPERATIONS_LISTEN"] == f"{address}:8071"
        assert service["environment"]["CYROID_OPERATIONS_CLIENTS"] == str(subnet("cyroid-mgmt"))
        assert service["healthcheck"]["test"][-1] == f"http://{address}:8071/readyz"
    assert "CYROID_OPERATIONS_LISTEN=127.0.0.1:" in (ROOT / "dind/Dockerfile").read_text()
    assert "deploy.container.health" in (ROOT / "dind/range-healthy").read_text()


def test_every_role_of_the_hosts_side_runs() -> None:
    """Each role that `cyroid-images serve all` runs has one service here."""
    served = [service["command"][2:] for service in ROLES.values() if service["command"][1] == "serve"]
    assert sorted(name for names in served for name in names if name not in ON_DEMAND) == sorted(chosen_roles(["all"]))


def test_layers_are_mounted_where_it_is_wanted() -> None:
    """Profile mount: the registry's storage read-only, one shared folder, read-ahead, and no other writable place."""
    mounter = SERVICES["layer-mounter"]
    assert mounter["profiles"] == ["mount"]
    writable = [volume for volume in mounter["volumes"] if not (isinstance(volume, str) and volume.endswith(":ro"))]
    read_ahead, shown = writable
    assert read_ahead == "/sys/devices/virtual/bdi:/sys/devices/virtual/bdi"
    assert shown["bind"] == {"propagation": "rshared"}
    assert shown["target"] == mounter["environment"]["CYROID_LAYER_FOLDER"]


def test_the_proxy_has_the_addresses_it_is_configured_with() -> None:
    """Its two backends are where its configuration says, on a network that no range is on."""
    assert networks(SERVICES["registry-pull"])["cyroid-pull"]["ipv4_address"] == REGISTRY.partition(":")[0]
    assert networks(SERVICES["tar-server"])["cyroid-pull"]["ipv4_address"] == TAR_SERVER.partition(":")[0]
    assert not any("cyroid-pull" in networks(service) for service in RANGES.values())


def test_ranges_are_not_privileged() -> None:
    """The same rights as `ranges add` gives (deploy/stack/nested.py)."""
    for service in RANGES.values():
        assert "privileged" not in service
        assert (service["cap_drop"], tuple(service["cap_add"]), service["cgroup"]) == (["ALL"], CAPABILITIES, "private")


def test_redis_has_room_above_what_it_may_store() -> None:
    """Buffers of clients and a rewrite of the log come on top of maxmemory, so the container allows more than twice."""
    lines = (ROOT / "deploy/redis.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert (settings["maxmemory"], SERVICES["redis"]["mem_limit"]) == ("768mb", "2g")
    assert {"proto-max-bulk-len", "client-query-buffer-limit", "maxmemory-clients"} <= set(settings)


def test_the_commands_that_people_are_told_name_containers_that_there_are() -> None:
    """In the README and at the end of `make up`: Compose calls a service's container PROJECT-SERVICE-1."""
    told = (ROOT / "README.md").read_text() + addresses_told(Stack(data=Path("/d"), environment={}, demo=True))
    named = set(re.findall(rf"{COMPOSE['name']}-([a-z0-9-]+)-1\b", told))
    assert {"redis", "api", "deployer"} <= named <= set(SERVICES)


def test_two_ranges_are_there_to_try() -> None:
    """Profile demo, and nothing of it otherwise."""
    assert set(RANGES) == {"range-1", "range-2"}


def test_a_ranges_engine_is_configured_as_the_design_says() -> None:
    """daemon.json: sockets, TCP, overlay2, the registry's two names, bounded logs, live restore, no proxy."""
    assert json.loads((ROOT / "dind/daemon.json").read_text()) == {
        "hosts": ["unix:///var/run/docker.sock", "unix:///run/range/engine.sock", "tcp://0.0.0.0:2375"],
        "storage-driver": "overlay2",
        "insecure-registries": ["cyroid-registry:5000", "172.30.0.16:5000"],
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "live-restore": True,
        "userland-proxy": False,
    }


def test_redis_keeps_everything_and_knows_everybody() -> None:
    """No eviction, an append-only file, and the users' list that `prepare` writes."""
    lines = (ROOT / "deploy/redis.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["aclfile"] == "/data/users.acl"
