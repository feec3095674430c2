"""What Compose makes of our files together, as its own `config` says: no engine is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deploy.stack.compose import compose_files
from deploy.stack.env_file import write
from deploy.stack.nested import LESS, PRIVILEGED, ROOT
from deploy.stack.plugins import docker, docker_environment

ROLES = {"registry-pusher", "deployer", "tar-server", "tracker", "agent-pool", "api"}


def merged(ranges: tuple[str, ...], *, join: bool, **variables: str) -> dict[str, Any]:
    """With nothing set but `variables`: what the caller's shell has does not matter."""
    plain = {name: value for name, value in docker_environment().items() if not name.startswith(("STACK_", "CYROID_"))}
    files = [word for file in compose_files(ranges, join=join) for word in ("--file", str(file))]
    words = ["compose", "--project-directory", str(ROOT), "--env-file", os.devnull, *files, "--profile", "demo"]
    found: dict[str, Any] = json.loads(docker(*words, "config", "--format", "json", environment={**plain, **variables}))
    return found


def test_beside_cyroid_the_network_is_theirs_and_so_is_redis() -> None:
    """cyroid-mgmt is external, our Redis does not start, nobody waits for it; addresses stay what they are."""
    found = merged(PRIVILEGED, join=True)
    assert found["networks"]["cyroid-mgmt"]["external"] is True
    assert "ipam" not in found["networks"]["cyroid-mgmt"] or not found["networks"]["cyroid-mgmt"]["ipam"]
    assert "redis" not in found["services"]
    assert set(found["services"]) >= ROLES
    for name, service in found["services"].items():
        assert "redis" not in service.get("depends_on", {}), name
    assert found["services"]["registry"]["networks"]["cyroid-mgmt"]["ipv4_address"] == "172.30.0.16"


def test_alone_the_stack_brings_both() -> None:
    """Its own network and its own Redis, which every role waits for."""
    found = merged(PRIVILEGED, join=False)
    assert "external" not in found["networks"]["cyroid-mgmt"]
    assert all("redis" in found["services"][name]["depends_on"] for name in ROLES)


@pytest.mark.parametrize(("ranges", "privileged"), [(PRIVILEGED, True), (LESS, False)])
def test_ranges_get_what_the_machine_allows(ranges: tuple[str, ...], privileged: bool) -> None:
    """Privileged, or every capability but one."""
    for name in ("range-1", "range-2"):
        service = merged(ranges, join=False)["services"][name]
        assert service.get("privileged", False) is privileged
        assert service.get("cap_drop", []) == ([] if privileged else ["SYS_RESOURCE"])


def test_bare_compose_reads_what_make_up_wrote(tmp_path: Path) -> None:
    """The group of the engine's socket, from the file alone."""
    write(tmp_path / ".env", {"STACK_ENGINE_GID": "998", "CYROID_DATA_DIR": "/somewhere/$else"})
    words = ["compose", "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml")]
    plain = {name: value for name, value in docker_environment().items() if not name.startswith(("STACK_", "CYROID_"))}
    text = docker(*words, "--env-file", str(tmp_path / ".env"), "config", "--format", "json", environment=plain)
    services = json.loads(text)["services"]
    assert services["deployer"]["group_add"] == services["api"]["group_add"] == ["998"]
    assert services["prepare"]["volumes"][0]["source"] == "/somewhere/$$else"
