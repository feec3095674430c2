"""What Compose makes of our files together, as its own `config` says: no engine is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from deploy.container import host_proxies, range_proxy
from deploy.stack.compose import compose_files
from deploy.stack.env_file import write
from deploy.stack.nested import CAPABILITIES, ROOT
from deploy.stack.plugins import docker, docker_environment

ROLES = {"registry-pusher", "deployer", "tar-server", "tracker", "collector", "agent-pool", "api", "range-gateway"}


def merged(
    *,
    join: bool,
    door: bool = False,
    further: bool = False,
    archives: bool = False,
    profiles: tuple[str, ...] = ("demo",),
    **variables: str,
) -> dict[str, Any]:
    """With nothing set but `variables`: what the caller's shell has does not matter."""
    plain = {name: value for name, value in docker_environment().items() if not name.startswith(("STACK_", "CYROID_"))}
    there = compose_files(join=join, door=door, further=further, archives=archives)
    files = [word for file in there for word in ("--file", str(file))]
    wanted = [word for profile in profiles for word in ("--profile", profile)]
    words = ["compose", "--project-directory", str(ROOT), "--env-file", os.devnull, *files, *wanted]
    found: dict[str, Any] = json.loads(docker(*words, "config", "--format", "json", environment={**plain, **variables}))
    return found


def test_beside_cyroid_the_network_is_theirs_and_so_is_redis() -> None:
    """cyroid-mgmt is external, our Redis does not start, nobody waits for it; addresses stay what they are."""
    found = merged(join=True)
    assert found["networks"]["cyroid-mgmt"]["external"] is True
    assert "ipam" not in found["networks"]["cyroid-mgmt"] or not found["networks"]["cyroid-mgmt"]["ipam"]
    assert "redis" not in found["services"]
    assert set(found["services"]) >= ROLES
    for name, service in found["services"].items():
        assert "redis" not in service.get("depends_on", {}), name
    assert found["services"]["registry"]["networks"]["cyroid-mgmt"]["ipv4_address"] == "172.30.0.16"


def test_alone_the_stack_brings_both() -> None:
    """Its own network and its own Redis, which every role waits for."""
    found = merged(join=False)
    assert "external" not in found["networks"]["cyroid-mgmt"]
    assert all("redis" in found["services"][name]["depends_on"] for name in ROLES)


def test_a_further_host_has_a_link_and_a_cache_in_the_places_of_redis_and_registry() -> None:
    """Their names and addresses are the same; what is the first host's alone does not run; nothing waits for it."""
    found = merged(join=False, further=True, profiles=("demo", "mount"), STACK_FIRST_HOST="10.0.0.1")["services"]
    assert not {"redis", "registry", "registry-pull", "deployer", "tracker", "collector", "layer-mounter"} & set(found)
    link, cache = found["link"]["networks"], found["registry-cache"]["networks"]
    assert link["cyroid-mgmt"]["ipv4_address"] == "172.30.0.16"
    assert set(link["cyroid-mgmt"]["aliases"]) == {"cyroid-redis", "cyroid-registry"}
    assert cache["cyroid-pull"]["ipv4_address"] == range_proxy.REGISTRY.partition(":")[0]
    for name, service in found.items():
        assert set(service.get("depends_on", {})) <= set(found), name
    assert {port["host_ip"] for service in found.values() for port in service.get("ports", [])} == {"127.0.0.1"}
    assert "10.0.0.1" in found["prepare"]["command"]
    assert found["api"]["environment"]["CYROID_REGISTRY_STORAGE"] == ""
    for name in ("link", "registry-cache"):
        assert (found[name]["read_only"], found[name]["cap_drop"], found[name]["user"]) == (
            True,
            ["ALL"],
            "10001:10001",
        )
        assert found[name]["sysctls"] == {"net.ipv4.ip_forward": "0"}
    assert link["cyroid-pull"]["ipv4_address"] == host_proxies.FAR_TAR.partition(":")[0]
    assert link["cyroid-mgmt"]["ipv4_address"] == host_proxies.LINK
    assert {found[name]["environment"]["CYROID_TAR_URL"] for name in ROLES & set(found)} == {"http://cyroid-tar:7070"}


def test_the_first_host_of_several_lets_the_others_in_at_one_address() -> None:
    """The door alone is published there; the rest stays on loopback."""
    found = merged(join=False, door=True, STACK_DOOR_ADDRESS="10.0.0.1")["services"]
    published = {
        name: {(port["host_ip"], port["published"]) for port in service["ports"]}
        for name, service in found.items()
        if "ports" in service
    }
    assert published.pop("host-door") == {("10.0.0.1", "6380"), ("10.0.0.1", "5443")}
    assert {address for ports in published.values() for address, _ in ports} == {"127.0.0.1"}
    place = host_proxies.FAR_TAR.partition(":")[0]
    assert set(found["host-door"]["networks"]) == {"cyroid-mgmt", "cyroid-pull"}
    assert found["host-door"]["networks"]["cyroid-pull"]["ipv4_address"] == place
    assert found["host-door"]["sysctls"] == {"net.ipv4.ip_forward": "0"}
    tar = f"{found['tar-server']['networks']['cyroid-mgmt']['ipv4_address']}:7070"
    assert tar == host_proxies.TAR_SERVER
    pusher = found["registry-pusher"]["environment"]["CYROID_TAR_URL"]
    assert (pusher, found["deployer"]["environment"]["CYROID_TAR_URL"]) == (
        f"http://{host_proxies.FIRST_TAR_NAME}:7070",
        "http://cyroid-tar:7070",
    )
    assert (found["host-door"]["read_only"], found["host-door"]["cap_drop"]) == (True, ["ALL"])


def test_a_further_host_gives_archives_at_the_address_that_the_first_one_was_told() -> None:
    """One port of the link, for the door alone; and its registry-pusher says where they are."""
    url = f"http://{host_proxies.FIRST_TAR_NAME}:7070/hosts/b"
    found = merged(join=False, further=True, archives=True, STACK_ARCHIVES_ADDRESS="10.0.0.2", STACK_TAR_URL=url)[
        "services"
    ]
    published = {(port["host_ip"], port["published"]) for port in found["link"]["ports"]}
    assert published == {("127.0.0.1", "5000"), ("10.0.0.2", "5443")}
    assert found["registry-pusher"]["environment"]["CYROID_TAR_URL"] == url
    assert found["tar-server"]["environment"]["CYROID_TAR_URL"] == "http://cyroid-tar:7070"


def test_ranges_get_what_an_engine_needs() -> None:
    """The capabilities of `deploy.stack.nested`, its filter, control groups of their own; nobody is privileged."""
    found = merged(join=False)
    assert not any(service.get("privileged") for service in found["services"].values())
    for name in ("range-1", "range-2"):
        service = found["services"][name]
        assert (service["cap_drop"], tuple(service["cap_add"]), service["cgroup"]) == (["ALL"], CAPABILITIES, "private")
        assert any(option.endswith("range-seccomp.json") for option in service["security_opt"])


def test_bare_compose_reads_what_make_up_wrote(tmp_path: Path) -> None:
    """The group of the engine's socket, from the file alone."""
    write(tmp_path / ".env", {"STACK_ENGINE_GID": "998", "CYROID_DATA_DIR": "/somewhere/$else"})
    words = ["compose", "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml")]
    plain = {name: value for name, value in docker_environment().items() if not name.startswith(("STACK_", "CYROID_"))}
    text = docker(*words, "--env-file", str(tmp_path / ".env"), "config", "--format", "json", environment=plain)
    services = json.loads(text)["services"]
    assert services["engine-proxy"]["group_add"] == ["998"]
    assert not any("group_add" in service for name, service in services.items() if name != "engine-proxy")
    assert services["prepare"]["volumes"][0]["source"] == "/somewhere/$$else"
