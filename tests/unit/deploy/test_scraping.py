"""Prometheus' configurations name the processes that there are, and those serve what alerts and panels ask for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.machine.commands import need
from tests.monitoring import EVERY_ROLE, FOLDER, KINDS, LABEL, METRIC, OF_ROLE, TRANSFER, expressions, family
from tests.unit.deploy.test_swarm import SERVICES as SWARM
from tests.unit.test_compose import SERVICES as COMPOSE
from tests.unit.test_compose import networks

ROOT = Path(__file__).parents[3]
RUNBOOK = (ROOT / "docs/operations.md").read_text()
_TARGET = re.compile(r'\{ targets: \["([\d.:]+)"\], labels: \{ role: ([a-z-]+) \} \}')


def job(name: str) -> dict[str, Any]:
    """The only job of a configuration. It has the name and the rules that the alerts expect."""
    told = yaml.safe_load((FOLDER / name).read_text())
    (found,) = told["scrape_configs"]
    assert (found["job_name"], told["rule_files"]) == ("cyroid-images", ["alerts.yml"])
    assert isinstance(found, dict)
    return found


def targets(name: str) -> dict[str, str]:
    """Role → where it is asked."""
    return {one["labels"]["role"]: target for one in job(name)["static_configs"] for target in one["targets"]}


def served(services: dict[str, Any]) -> set[str]:
    """The services that serve a role."""
    return {name for name, one in services.items() if one.get("command", [])[:2] == ["cyroid-images", "serve"]}


def listens(role: str) -> str:
    """Where a role of the Compose stack answers on cyroid-mgmt."""
    told = COMPOSE[role]["environment"].get("CYROID_OPERATIONS_LISTEN")
    return told or f"{networks(COMPOSE[role])['cyroid-mgmt']['ipv4_address']}:8070"


def test_the_stack_s_configuration_names_every_process_where_it_answers() -> None:
    """The layer-mounter, which does not always run, in a line that is to be uncommented."""
    always = {name for name in served(COMPOSE) if "profiles" not in COMPOSE[name]}
    assert targets("prometheus.yml") == {role: listens(role) for role in always}
    lines = dict(reversed(found) for found in _TARGET.findall((FOLDER / "prometheus.yml").read_text()))
    assert lines == {role: listens(role) for role in served(COMPOSE)}


def test_a_further_host_s_configuration_names_what_runs_there() -> None:
    """At the same addresses: each host has a network of its own."""
    text = (ROOT / "deploy/compose.further-host.yml").read_text()
    changes = yaml.safe_load(text.replace("!override", ""))["services"]
    there = {name for name in served(COMPOSE) if "profiles" not in changes.get(name, {})}
    assert there < served(COMPOSE)
    assert targets("prometheus.further-host.yml") == {role: listens(role) for role in there}


def test_a_swarm_s_configuration_names_every_service() -> None:
    """By the names under which a Swarm tells their containers, and the ports at which those listen."""
    found = {name: one["port"] for one in job("prometheus.swarm.yml")["dns_sd_configs"] for name in one["names"]}
    assert found == {f"tasks.{name}": 8070 if name == "api" else 8071 for name in served(SWARM)}
    for name in served(SWARM):
        told = SWARM[name]["environment"]
        listen = told["CYROID_API_LISTEN"] if name == "api" else told["CYROID_OPERATIONS_LISTEN"]
        assert listen == f"0.0.0.0:{found[f'tasks.{name}']}"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("prometheus*.yml")))
def test_prometheus_takes_the_configuration(name: str, tmp_path: Path) -> None:
    """Debian's Prometheus knows no discovery in Kubernetes: of that one it reads all else."""
    text = (FOLDER / name).read_text()
    if "kubernetes" in name:
        assert text.count("kubernetes_sd_configs: [{ role: pod }]") == 1
        text = text.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: []")
    (tmp_path / name).write_text(text)
    (tmp_path / "alerts.yml").symlink_to(FOLDER / "alerts.yml")
    command = [need("promtool", "prometheus"), "check", "config", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("what", "expression"), list(expressions()))
def test_what_is_asked_for_is_served_by_a_process_that_is_scraped(what: str, expression: str) -> None:
    """In the Compose stack, where agents are not scraped: of transfers they count kinds that no other does."""
    scraped = targets("prometheus.yml").keys()
    seen = EVERY_ROLE.union({"up"}, *(OF_ROLE[role] for role in scraped))
    for name, matchers in METRIC.findall(expression):
        assert family(name) in seen, (what, name)
        if family(name) in TRANSFER:
            kinds = [value for label, how, value in LABEL.findall(matchers) if label == "kind" and how in {"=", "=~"}]
            assert kinds, (what, name)
            assert {KINDS[kind] for text in kinds for kind in text.split("|")} <= scraped, (what, name)


def test_the_documents_say_which_process_serves_what() -> None:
    """Each metric is in the table once, with the roles that serve it."""
    rows = re.findall(r"^\| (`cyroid_[^|]+) \| ([^|]+) \|", RUNBOOK, re.MULTILINE)
    told: dict[str, str] = {}
    for names, roles in rows:
        for name in re.findall(r"`(cyroid_\w+)`", names):
            assert family(name) not in told
            told[family(name)] = roles
    told["cyroid_handler_seconds"] = told["cyroid_bus_events"]  # "the same"
    assert told.keys() == {name for names in OF_ROLE.values() for name in names} | {"cyroid_dependency_up"}
    for role, names in OF_ROLE.items():
        for name in names:
            assert re.search(rf"\b{role}\b(?!-)", told[name]), (role, name)
