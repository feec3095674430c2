"""Health and metrics of every process of the running stack, and who may read them."""

from __future__ import annotations

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.machine.polling import poll
from services.runtime.metrics import REGISTRY
from tests.stack.operator import RANGES, ROOT, Stack, context

FETCH = (
    "import sys, urllib.error, urllib.request\n"
    "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
    "except urllib.error.HTTPError as problem: print(problem.code)\n"
)
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
#: Role → where it serves its metrics on the management network.
HOST_SIDE = {
    service["command"][2]: service["environment"].get("CYROID_OPERATIONS_LISTEN", "172.30.0.23:8070")
    for service in SERVICES.values()
    if service.get("command", [])[:2] == ["cyroid-images", "serve"] and "profiles" not in service
}
IN_THE_RANGE = "127.0.0.1:18071"
#: Counted only when a layer source gives nothing, which does not happen here; tests/integration makes it happen.
NOT_HERE = {"cyroid_layer_source_fallbacks"}


def scrape(stack: Stack, role: str) -> str:
    """What Prometheus on the management network reads; an agent's from inside its range."""
    if role == "agent":
        return stack.docker("exec", "cyroid-range-r28", "python3", "-c", FETCH, f"http://{IN_THE_RANGE}/metrics")
    url = f"http://{HOST_SIDE[role]}/metrics"
    return stack.docker("exec", "cyroid-images-api-1", "python", "-c", FETCH, url)


@pytest.mark.usefixtures("base")
def test_every_metric_of_the_code_is_served_by_a_role(stack: Stack) -> None:
    """After a deployment by the registry and one by tar, each family has a sample in one of the processes."""
    images = ["metrics-by-registry:1", "metrics-by-tar:1"]
    for image in images:
        stack.cyroid("images", "build", "-", "-t", image, stdin=context(image, 1))
    stack.deploy("metrics", list(RANGES), images[0])
    stack.service("stop", "registry", "registry-pull")
    try:
        stack.deploy("metrics-tar", ["r28"], images[1])
    finally:
        stack.service("start", "registry", "registry-pull")
    defined = {family.name for family in REGISTRY.collect() if family.name.startswith("cyroid_")}

    def missing() -> set[str]:
        seen: set[str] = set()
        for role in (*HOST_SIDE, "agent"):
            seen |= {one.name for one in text_string_to_metric_families(scrape(stack, role)) if one.samples}
        return defined - NOT_HERE - seen

    assert poll(lambda: not missing(), seconds=90.0, every=2.0), missing()


def test_a_range_reads_no_metrics_of_the_services(stack: Stack) -> None:
    """Under every address of the containers on its network; the management network gets them.

    Under the address on the management network the listener answers 403, if the packet gets there at all: an engine
    from 28 on drops what comes to a container's address over another bridge.
    """
    for role in ("range-gateway", "agent-pool"):
        host, _, port = HOST_SIDE[role].partition(":")
        via = stack.address(f"cyroid-images-{role}-1", "cyroid-ranges-r28")
        assert "cyroid_" in scrape(stack, role)
        fetch = f"python3 -c '{FETCH}' http://{host}:{port}/metrics"
        said = stack.in_range("r28", f"ip route replace {host}/32 via {via} && {fetch}; ip route del {host}/32")
        assert said.stdout.strip() in {b"403", b""}, role
        with pytest.raises(AssertionError, match="refused"):
            stack.in_range("r28", f"python3 -c '{FETCH}' http://{via}:{port}/metrics")
