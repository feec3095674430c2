"""Alerts and the dashboard name metrics that there are; each alert fires and stops, and is in the runbook."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import Counter, Gauge, Histogram

from deploy.machine.commands import need
from services.runtime import metrics
from tests.monitoring import FOLDER, LABEL, METRIC, RULES, expressions, family

ROOT = Path(__file__).parents[3]
TESTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
RUNBOOK = (ROOT / "docs/operations.md").read_text()
#: Of Prometheus itself and of every process, with the labels that Prometheus gives.
OTHERS = {"up", "process_resident_memory_bytes"}
TARGET_LABELS = {"job", "instance", "le"}


def _series() -> dict[str, set[str]]:
    """Names of all series that the code makes, with their labels."""
    found: dict[str, set[str]] = {name: set() for name in OTHERS}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            name, labels = metric._name, set(metric._labelnames)
            endings = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}[type(metric)]
            found |= {f"{name}{ending}": labels for ending in endings}
    return found


@pytest.mark.parametrize(("what", "expression"), list(expressions()))
def test_every_metric_and_label_exists(what: str, expression: str) -> None:
    """In an alert or a panel that names another one nothing would ever be seen."""
    series = _series()
    named = METRIC.findall(expression)
    assert named, what
    for name, matchers in named:
        assert name in series, (what, name)
        assert {label for label, _, _ in LABEL.findall(matchers)} <= series[name] | TARGET_LABELS, (what, name)


def test_the_dashboard_shows_every_metric() -> None:
    """What is counted is seen."""
    shown = {name for _, text in expressions() for name, _ in METRIC.findall(text)}
    assert {family(name) for name in shown} == {family(name) for name in _series()}


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Read as Grafana's own types and written again, nothing of it is lost or another."""
    register_default_plugins()
    told = json.loads((FOLDER / "dashboard.json").read_text())
    again = json.loads(json.dumps(Dashboard.from_json(told), cls=JSONEncoder))
    assert list(_lost(told, again)) == []
    told["panels"][1]["fieldConfigg"] = {}
    again = json.loads(json.dumps(Dashboard.from_json(told), cls=JSONEncoder))
    assert list(_lost(told, again)) == ["$.panels[1].fieldConfigg"]


def _lost(told: Any, again: Any, place: str = "$") -> Iterator[str]:  # Any: JSON of whatever shape
    """Where `again` has not what `told` has; more than that it may have."""
    if isinstance(told, dict) and isinstance(again, dict):
        for name, value in told.items():
            if name in again:
                yield from _lost(value, again[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"
    elif isinstance(told, list) and isinstance(again, list) and len(told) == len(again):
        for index, (value, found) in enumerate(zip(told, again, strict=True)):
            yield from _lost(value, found, f"{place}[{index}]")
    elif told != again:
        yield place


def test_panels_have_places_and_names_of_their_own() -> None:
    """None lies on another, and each asks the data source that is chosen at the top."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, panel["title"]
        cells |= mine
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel.get("targets", ()))


def test_every_alert_is_made_to_fire_and_to_stop() -> None:
    """And says how bad it is, and what is the matter."""
    looks = [look for test in TESTS for look in test["alert_rule_test"]]
    for rule in RULES:
        outcomes = [bool(look["exp_alerts"]) for look in looks if look["alertname"] == rule["alert"]]
        assert outcomes == [True, False], rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")


def test_promtool_finds_the_rules_right() -> None:
    """The rules can be read, and each of them fires and stops as written down."""
    promtool = need("promtool", "prometheus")
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run([promtool, *words], cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_runbook_has_a_line_for_each_alert() -> None:
    """And for none that there is not."""
    lines = re.findall(r"^\| `(Cyroid\w+)` \| [^|]{20,} \| [^|]{20,} \|$", RUNBOOK, re.MULTILINE)
    assert lines == [rule["alert"] for rule in RULES]
