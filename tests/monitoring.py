"""Alerts and the dashboard as expressions, and which role serves which metrics.

`tests/integration/test_operations.py` compares both with running processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy/monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
#: A metric in an expression, and its matchers.
METRIC = re.compile(r"\b(cyroid_[a-z_]+|process_[a-z_]+|up)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r"([a-z_]+)(=~|!~|!=|=)\"([^\"]*)\"")

TRANSFER = {"cyroid_transfers", "cyroid_transferred_bytes", "cyroid_transfer_seconds"}
WORKER = {"cyroid_bus_events", "cyroid_handler_seconds"}
#: Families that each role must have a sample of after an image was built and deployed, once by the registry, once by
#: tar. Together they are all that the code defines.
OF_ROLE = {
    "api": {
        "cyroid_group_oldest_seconds",
        "cyroid_group_entries",
        "cyroid_dead_letters",
        "cyroid_unwanted_images",
        "cyroid_hosts",
        "cyroid_ranges",
        "cyroid_role_processes",
        "cyroid_layers_unreadable",
    },
    "registry-pusher": WORKER
    | TRANSFER
    | {"cyroid_reused_bytes", "cyroid_reclaimed_bytes", "cyroid_layer_source_fallbacks"},
    "deployer": WORKER
    | {
        "cyroid_deployments",
        "cyroid_range_transfers",
        "cyroid_range_transfer_failures",
        "cyroid_range_transferred_bytes",
        "cyroid_range_transfer_seconds",
        "cyroid_layers_not_mounted",
    },
    "tracker": WORKER,
    "tar-server": TRANSFER,
    "agent-pool": set[str](),
    "agent": WORKER | TRANSFER,
    "range-gateway": set[str](),
    "collector": {
        "cyroid_collected_blobs",
        "cyroid_collected_bytes",
        "cyroid_collection_seconds",
        "cyroid_collection_last_seconds",
        "cyroid_store_free_bytes",
        "cyroid_store_pressure",
    },
}
EVERY_ROLE = {"cyroid_dependency_up", "process_resident_memory_bytes"}
#: Values of the label `kind` of TRANSFER → the role that counts them for ranges whose agent is their own.
KINDS = {"push": "registry-pusher", "export": "tar-server", "pull": "agent", "load": "agent"}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with the name of its alert or the title of its panel."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def family(series: str) -> str:
    """The name of a family, of one of its series."""
    return re.sub(r"_(total|bucket|sum|count)$", "", series)
