"""The Helm chart: linted, rendered, and valid by the strict schemas of two versions of Kubernetes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from deploy.container.engine_proxy import RIGHTS
from deploy.machine.cache import default_cache
from deploy.machine.commands import need
from services.bootstrap import ROLES
from services.runtime.environment import read_settings
from tests.laboratory import KUBERNETES_VERSIONS, ROOT, KubernetesTools, kubernetes_tools
from tests.unit.test_compose import SERVICES as COMPOSE

CHART = ROOT / "deploy/helm/cyroid-images"
EVERYTHING = ("--set", "rangeExample.enabled=true", "--set", "otlpEndpoint=http://collector:4318")
LITTLE = (
    *("--set", "redis.enabled=false", "--set", "hosts.enabled=false", "--set", "doors.enabled=false"),
    *("--set", "networkPolicy.enabled=false", "--set", "podDisruptionBudget.enabled=false"),
)
#: Runs nowhere without more rights than others: a nested engine. The chart says so beside it.
PRIVILEGED = {"engine"}

Object = dict[str, Any]


@pytest.fixture(scope="session")
def tools() -> KubernetesTools:
    """Helm and the schemas, from the cache."""
    return kubernetes_tools(default_cache())


def helm(tools: KubernetesTools, *words: str) -> subprocess.CompletedProcess[str]:
    """Helm with no settings of a person's."""
    nothing = {"HOME": "/nonexistent", "HELM_CACHE_HOME": "/nonexistent", "HELM_CONFIG_HOME": "/nonexistent"}
    return subprocess.run([tools.helm, *words], env=nothing, capture_output=True, text=True, timeout=120, check=False)


@cache
def rendered(tools: KubernetesTools, *options: str) -> list[Object]:
    """The objects of a release; not to be changed."""
    done = helm(tools, "template", "cyroid-images", str(CHART), "--namespace", "cyroid", *options)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def problems(folder: Path, found: Object) -> list[str]:
    """What a strict reader of that version refuses: also fields that it does not know."""
    group, _, version = found["apiVersion"].rpartition("/")
    words = [found["kind"].lower(), *([group.split(".")[0]] if group else []), version]
    name = "-".join(words) + ".json"
    name_of = f"{found['kind']} {found['metadata']['name']}"
    return [f"{name_of}: {one.json_path} {one.message}" for one in _validator(folder, name).iter_errors(found)]


@cache
def _validator(folder: Path, name: str) -> Draft202012Validator:
    known = {"/api/_definitions.json": "_definitions.json", f"/api/{name}": name}
    schemas = ((uri, DRAFT202012.create_resource(_schema(folder, file))) for uri, file in known.items())
    registry: Registry[Any] = Registry().with_resources(schemas)
    return Draft202012Validator({"$ref": f"/api/{name}"}, registry=registry)


@cache
def _schema(folder: Path, name: str) -> Object:
    found: Object = json.loads((folder / name).read_text())
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod's specification, with the name of what makes it."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found["metadata"]["name"], found["spec"]
        elif "template" in found.get("spec", {}):
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Every container, with its pod."""
    for _, pod in pods(objects):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield pod, container


def test_helm_finds_nothing_to_say(tools: KubernetesTools) -> None:
    """`helm lint --strict`, with everything and with little."""
    for options in (EVERYTHING, LITTLE):
        done = helm(tools, "lint", "--strict", str(CHART), *options)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("options", [EVERYTHING, LITTLE, ()], ids=["everything", "little", "as it is"])
def test_kubernetes_takes_every_object(tools: KubernetesTools, version: str, options: tuple[str, ...]) -> None:
    """The strict schemas know every field, in both versions."""
    objects = rendered(tools, *options)
    assert [one for found in objects for one in problems(tools.schemas(version), found)] == []
    named = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(named)) == len(named)


def test_a_wrong_field_is_found(tools: KubernetesTools) -> None:
    """What is not in the schema is told, so the test above tells something."""
    found = rendered(tools)[0]
    for version in KUBERNETES_VERSIONS:
        assert len(problems(tools.schemas(version), {**found, "oops": 1})) == 1


@pytest.mark.parametrize("option", ["doors.replicas=0", "image.taag=1", "registry.address=no-port", "redis=yes"])
def test_a_wrong_value_is_refused(tools: KubernetesTools, option: str) -> None:
    """A name that there is not, and a value that cannot be."""
    done = helm(tools, "template", "r", str(CHART), "--set", option)
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_every_role_is_there(tools: KubernetesTools) -> None:
    """But the agent pool and the layer-mounter, which the README names."""
    served = {
        container["args"][2]
        for _, container in containers(rendered(tools, *EVERYTHING))
        if container.get("args", [""])[:2] == ["cyroid-images", "serve"]
    }
    missing = set(ROLES) - served
    assert missing == {"agent-pool", "layer-mounter"}
    told = (CHART / "README.md").read_text()
    assert [role for role in missing if f"`{role}`" not in told] == []


def test_containers_have_the_rights_that_they_have_in_compose(tools: KubernetesTools) -> None:
    """No more powers, a read-only file system, no root without need, bounds on memory and processor."""
    for pod, container in containers(rendered(tools, *EVERYTHING)):
        name = container["name"]
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}, name
        assert pod["automountServiceAccountToken"] is False
        if name in PRIVILEGED:
            continue
        security = container["securityContext"]
        there = COMPOSE.get(name, {})
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"]["drop"] == ["ALL"], name
        assert set(security["capabilities"].get("add", ())) <= set(there.get("cap_add", ())), name
        user = security.get("runAsUser", pod.get("securityContext", {}).get("runAsUser"))
        assert user == (0 if there.get("user") == "0:0" else 10001), name
        profile = security.get("seccompProfile", pod.get("securityContext", {}).get("seccompProfile"))
        assert profile == {"type": "RuntimeDefault"}, name


def test_what_runs_for_long_is_probed(tools: KubernetesTools) -> None:
    """Whether it lives; and what somebody calls or waits for also whether it is ready."""
    for pod, container in containers(rendered(tools, *EVERYTHING)):
        ends = container in pod.get("initContainers", ()) and container.get("restartPolicy") != "Always"
        if ends or container["name"] in PRIVILEGED:
            assert "livenessProbe" not in container
            continue
        assert "livenessProbe" in container, container["name"]


def test_settings_are_ones_there_are(tools: KubernetesTools, tmp_path: Path) -> None:
    """The services' own strict reader takes what the pods hand them."""
    (tmp_path / "redis_url").write_text("redis://cyroid:s@cyroid-redis:6379/0")
    (tmp_path / "registry_pull_key").write_text("k3y")
    for _, container in containers(rendered(tools, *EVERYTHING)):
        environment = {one["name"]: one.get("value", "n1") for one in container.get("env", ())}
        for text, meant in (("$(NODE)", "n1"), ("$(POD_IP)", "10.0.0.1"), ("/run/cyroid", str(tmp_path))):
            environment = {name: value.replace(text, meant) for name, value in environment.items()}
        if environment:
            read_settings(environment)


def test_every_pod_is_behind_a_policy(tools: KubernetesTools) -> None:
    """Nobody reaches what is not named; ranges reach the doors and the tar servers alone."""
    objects = rendered(tools)
    policies = {
        one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy"
    }
    components = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in objects
        if "template" in one.get("spec", {})
    }
    assert set(policies) == components
    open_to_ranges = {
        (component, rule["ports"][0]["port"])
        for component, policy in policies.items()
        for rule in policy["ingress"]
        for source in rule["from"]
        if "cyroid.io/ranges" in source.get("namespaceSelector", {}).get("matchLabels", {})
    }
    assert open_to_ranges == {("range-gateway", 7071), ("range-proxy", 5000), ("host", 7070)}


def test_metrics_are_open_to_prometheus_alone(tools: KubernetesTools) -> None:
    """Each port on which a process tells its metrics has a rule of its own."""
    objects = rendered(tools)
    told = {
        (one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"], port["containerPort"])
        for one in objects
        if "template" in one.get("spec", {})
        for container in one["spec"]["template"]["spec"]["containers"]
        for port in container.get("ports", ())
        if "operations" in port["name"] and "cyroid-images" in container.get("args", ())
    }
    opened = {
        (one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], rule["ports"][0]["port"])
        for one in objects
        if one["kind"] == "NetworkPolicy"
        for rule in one["spec"]["ingress"]
        if any("cyroid.io/metrics" in str(source) for source in rule["from"])
    }
    assert opened == told | {("api", 8070)}


def test_what_pods_write_before_they_start_is_right(tools: KubernetesTools, tmp_path: Path) -> None:
    """The programs in the chart run, and HAProxy takes what they write."""
    scripts = [
        container["args"][0]
        for _, container in containers(rendered(tools))
        if container.get("command") == ["python", "-c"]
    ]
    assert len(scripts) == 2
    for number, script in enumerate(scripts):
        folder = tmp_path / str(number)
        for name in ("cyroid", "engine", "proxy"):
            (folder / name).mkdir(parents=True)
        (folder / "cyroid/registry_pull_key").write_text("k3y\n")
        here = script.replace("/run/", f"{folder}/").replace("cyroid-registry-pull:", "127.0.0.1:")
        subprocess.run([sys.executable, "-c", here], cwd=ROOT, check=True, timeout=60)
        checked = subprocess.run(
            [need("haproxy", "haproxy"), "-c", "-f", folder / "proxy/haproxy.cfg"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr
    assert {path.name for path in (tmp_path / "0/engine").iterdir()} | {
        path.name for path in (tmp_path / "1/engine").iterdir()
    } == set(RIGHTS)


def test_services_lead_to_pods(tools: KubernetesTools) -> None:
    """Each selector and each named port is one of a pod; none is published on a node."""
    objects = rendered(tools)
    templates = [one["spec"]["template"] for one in objects if "template" in one.get("spec", {})]
    for service in (one for one in objects if one["kind"] == "Service"):
        assert service["spec"]["type"] == "ClusterIP"
        (pod,) = [one for one in templates if service["spec"]["selector"].items() <= one["metadata"]["labels"].items()]
        names = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    assert not any("hostPort" in port for _, one in containers(objects) for port in one.get("ports", ()))


def test_the_charts_files_are_those_of_the_stack() -> None:
    """A chart cannot read what is outside it, so it has copies."""
    for name in ("registry.yml", "registry-pull.yml", "redis.conf"):
        assert (CHART / "files" / name).read_text() == (ROOT / "deploy" / name).read_text(), name


def test_the_charts_version_is_the_projects() -> None:
    """As in pyproject.toml."""
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{told["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_prometheus_finds_the_processes_of_the_roles(tools: KubernetesTools) -> None:
    """By the pods' labels and the names of their ports, each once; the agent of a range listens to its pod alone."""
    told = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.kubernetes.yml").read_text())
    (job,) = told["scrape_configs"]
    found: list[str] = []
    for labels, container in _labelled(rendered(tools, *EVERYTHING)):
        for port in container.get("ports", ()):
            target = {
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": labels["app.kubernetes.io/name"],
                "__meta_kubernetes_pod_label_app_kubernetes_io_component": labels["app.kubernetes.io/component"],
                "__meta_kubernetes_pod_container_port_name": port.get("name", ""),
                "__meta_kubernetes_pod_container_name": container["name"],
            }
            if _relabelled(job["relabel_configs"], target):
                found.append(target["role"])
    served = {
        container["args"][2]
        for _, container in containers(rendered(tools, *EVERYTHING))
        if container.get("args", [""])[:2] == ["cyroid-images", "serve"]
    }
    assert sorted(found) == sorted(served - {"agent"})


def _labelled(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Every container, with the labels of its pod."""
    for found in objects:
        pod = found if found["kind"] == "Pod" else found.get("spec", {}).get("template")
        if pod is not None:
            for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
                yield pod["metadata"]["labels"], container


def _relabelled(rules: list[Object], target: dict[str, str]) -> bool:
    """Whether Prometheus keeps a target; the labels that it adds are in `target` then."""
    for rule in rules:
        value = ";".join(target[name] for name in rule["source_labels"])
        fits = re.fullmatch(rule.get("regex", "(.*)"), value) is not None
        match rule.get("action", "replace"):
            case "keep" if not fits:
                return False
            case "drop" if fits:
                return False
            case "replace" if fits:
                target[rule["target_label"]] = value
    return True
