"""deploy/swarm.yml beside docker-compose.yml: the same rights, and nothing that reaches beyond the Swarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.bootstrap import IN_A_RANGE, ROLES
from services.runtime.environment import read_settings
from tests.unit.test_compose import SERVICES as COMPOSE

ROOT = Path(__file__).parents[3]
SWARM: dict[str, Any] = yaml.safe_load((ROOT / "deploy/swarm.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = SWARM["services"]
#: What needs networks of one host, or mounts that its ranges see: docs/orchestrators.md says so.
OF_ONE_HOST = {"agent-pool", "range-gateway", "layer-mounter"}


def test_it_has_every_role_that_is_not_of_one_host() -> None:
    """And the document names those that it has not."""
    served = {service["command"][2] for service in SERVICES.values() if service.get("command", [""])[1:2] == ["serve"]}
    assert served == set(ROLES) - IN_A_RANGE - OF_ONE_HOST
    told = (ROOT / "docs/orchestrators.md").read_text()
    assert [role for role in OF_ONE_HOST if f"`{role}`" not in told] == []


def test_nothing_is_published() -> None:
    """A Swarm publishes on every address of every node, whatever address is written down."""
    assert [name for name, service in SERVICES.items() if "ports" in service] == []
    assert SWARM["networks"]["mgmt"]["internal"] is True


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_the_rights_that_it_has_in_compose(name: str) -> None:
    """User, powers, limits, the file system, and how long it may take to stop."""
    here, there = SERVICES[name], COMPOSE[name]
    assert here["read_only"] is there["read_only"] is True
    assert here["cap_drop"] == there["cap_drop"] == ["ALL"]
    assert set(here.get("cap_add", ())) == set(there.get("cap_add", ()))
    assert here["user"].partition(":")[0] == there["user"].partition(":")[0]
    assert here["stop_grace_period"] == there["stop_grace_period"]
    limits = here["deploy"]["resources"]["limits"]
    assert limits["pids"] == there["pids_limit"]
    assert limits["memory"].lower() == there["mem_limit"]
    assert float(limits["cpus"]) == float(there["cpus"])
    assert here["image"] == there["image"]
    assert here["command"] == there["command"] if "command" in there else "command" not in here


def test_what_stands_beside_an_engine_is_on_every_host() -> None:
    """And is replaced host by host; whoever has no state begins anew before the old one ends."""
    for name in ("engine-proxy", "registry-pusher", "tar-server"):
        assert SERVICES[name]["deploy"]["mode"] == "global"
        assert SERVICES[name]["deploy"]["placement"] == {"constraints": ["node.labels.cyroid.host == true"]}
    for service in SERVICES.values():
        deploy = service["deploy"]
        assert deploy["restart_policy"]["condition"] == "any"
        assert deploy["update_config"]["failure_action"] == "rollback"
        stateful = deploy["mode"] == "global" or "cyroid.store" in str(deploy.get("placement"))
        assert deploy["update_config"]["order"] == ("stop-first" if stateful else "start-first")
        assert deploy["endpoint_mode"] == "dnsrr"


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if "environment" in one])
def test_settings_are_ones_there_are(name: str, tmp_path: Path) -> None:
    """The services' own strict reader takes what the Swarm hands them."""
    environment = dict(SERVICES[name]["environment"]) | {"CYROID_KEY_PREFIX": "cyroid", "CYROID_SIGNATURE_KEYS": ""}
    environment = {key: value.replace("{{.Node.ID}}", "n1") for key, value in environment.items()}
    environment["CYROID_OPERATIONS_CLIENTS"] = "10.131.0.0/16,127.0.0.0/8"
    for variable, text in (("REDIS_URL", "redis://cyroid:s@cyroid-redis:6379/0"), ("REGISTRY_PULL_KEY", "k3y")):
        if f"CYROID_{variable}_FILE" in environment:
            file = tmp_path / variable
            file.write_text(text)
            environment[f"CYROID_{variable}_FILE"] = str(file)
    assert read_settings(environment).host_id == "n1"
