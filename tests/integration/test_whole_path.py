"""The whole path with real processes: `serve all`, an agent, the command line and HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.machine.polling import poll
from tests.integration.tcp_door import tcp_door
from tests.laboratory import EngineServer, Lab, RedisServer, RegistryServer, System


@dataclass
class Setting:
    """A running system with one range, and a client for its engines."""

    system: System
    range_id: str
    host: EngineServer
    engine: EngineServer

    def docker(self, engine: EngineServer, *arguments: str, given: bytes | None = None) -> str:
        done = subprocess.run(["docker", "-H", engine.url, *arguments], input=given, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.system.api_url}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any, str | None]:
        """Status, answer and Location of a request that may be refused."""
        given = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.system.api_url}{path}", data=given, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null"), answer.headers["Location"]
        except urllib.error.HTTPError as problem:
            return problem.code, json.loads(problem.read()), None

    def ok(self, *arguments: str) -> Any:
        """A command that must end well; what it printed as JSON."""
        said = self.system.cli(*arguments)
        assert said.status == 0, said.talk
        return said.data


@pytest.fixture(scope="module")
def setting(
    lab: Lab,
    redis_server: RedisServer,
    registry_server: RegistryServer,
    host_engine_server: EngineServer,
    range_engine_servers: tuple[EngineServer, EngineServer],
) -> Iterator[Setting]:
    """Everything of the host's side in one process, an agent in another."""
    engine = range_engine_servers[0]
    system = System(
        lab=lab,
        redis=redis_server,
        registry=registry_server,
        host=host_engine_server,
        ranges={"whole-1": engine},
        prefix="whole",
    )
    services = system.services(name="whole-services")
    agent = system.agent("whole-1")
    try:
        yield Setting(system, "whole-1", host_engine_server, engine)
    finally:
        agent.stop()
        services.stop()


@pytest.fixture
def context(setting: Setting, base_image_tar: Path, tmp_path: Path, unique: str) -> Path:
    """A context of two layers, one of them shared by all tests here."""
    base = "whole-base:1"
    if not setting.docker(setting.host, "images", "-q", base):
        setting.docker(setting.host, "import", str(base_image_tar), base)
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY content /content\n")
    (tmp_path / "content").write_text(unique * 1000)
    return tmp_path


def test_build_and_deploy_again_and_rebuilt(setting: Setting, context: Path, unique: str) -> None:
    """First everything is sent, then nothing, then of the rebuilt image only the new layer; the content is right."""
    reference = f"web-{unique}:1"
    (built,) = setting.ok("images", "build", str(context), "-t", reference)["items"]
    assert built["reference"] == f"docker.io/library/{reference}"

    first = setting.ok("deploy", setting.range_id, reference)
    assert first["type"] == "deployment.succeeded.v1"
    (image,) = first["images"]
    assert (image["how"], image["image_id"]) == ("pulled", built["image_id"])
    assert setting.docker(setting.engine, "images", "--no-trunc", "-q", reference) == built["image_id"]
    names = setting.docker(setting.engine, "images", "--format", "{{.Repository}}:{{.Tag}}", "--no-trunc").split()
    assert [name for name in names if unique in name] == [reference]

    (again,) = setting.ok("deploy", setting.range_id, reference)["images"]
    assert (again["how"], again.get("sent_bytes", 0)) == ("present", 0)

    (context / "content").write_text("rebuilt " * 100)
    (rebuilt,) = setting.ok("images", "build", str(context), "-t", reference)["items"]
    (changed,) = setting.ok("deploy", setting.range_id, reference)["images"]
    assert changed["image_id"] == rebuilt["image_id"] != built["image_id"]
    assert (changed["layers_reused"], changed["layers_total"]) == (1, 2)
    assert changed["sent_bytes"] < 100_000
    assert setting.docker(setting.engine, "images", "--no-trunc", "-q", reference) == rebuilt["image_id"]


def test_verify_tells_content_apart_on_a_real_engine(setting: Setting, context: Path, unique: str) -> None:
    """Right by record and by engine; then the range's engine has other content under the name, then nothing."""
    name, where = f"verified-{unique}:1", ("--engine-url", setting.engine.url)
    setting.ok("images", "build", str(context), "-t", name)
    (image,) = setting.ok("deploy", setting.range_id, name)["images"]
    item = {"reference": f"docker.io/library/{name}", "wanted": image["image_id"], "why": ""}
    right = [{**item, "verdict": "ok", "found": image["image_id"]}]
    assert setting.ok("verify", setting.range_id, "--image", name, *where)["items"] == right
    recorded = ("verify", setting.range_id, "--image", name)
    assert poll(lambda: setting.system.cli(*recorded).status == 0, seconds=20)  # the tracker hears of it a little later
    assert setting.ok(*recorded)["items"] == right
    assert setting.get(f"/api/v1/ranges/{setting.range_id}/verification?image={name}")["items"] == right

    other = setting.docker(setting.engine, "images", "--no-trunc", "-q", "whole-base:1") or setting.docker(
        setting.engine, "import", "-", "whole-other:1", given=bytes(10240)
    )
    setting.docker(setting.engine, "tag", other, name)
    said = setting.system.cli(*recorded, *where)
    assert (said.status, said.data["items"]) == (5, [{**item, "verdict": "other content", "found": other}])
    setting.docker(setting.engine, "rmi", name)
    said = setting.system.cli(*recorded, *where)
    assert (said.status, said.data["items"]) == (5, [{**item, "verdict": "missing", "found": None}])
    forget = ("DELETE", f"/api/v1/ranges/{setting.range_id}/images/{name}")
    assert setting.send(*forget)[0] == 204
    assert setting.send(*forget)[0] == 404
    whole = f"/api/v1/ranges/{setting.range_id}/verification"  # from the read model, a moment later
    assert poll(lambda: item["reference"] not in [one["reference"] for one in setting.get(whole)["items"]], seconds=20)
    assert setting.send("DELETE", f"/api/v1/ranges/{setting.range_id}")[1]["code"] == "range_alive"


def test_an_image_brought_by_hand_is_reported_until_it_is_gone(setting: Setting, unique: str) -> None:
    """Nobody deployed it: the range's agent sees it, every door tells it with its size, and `verify` only notes it."""
    name, range_id = f"by-hand-{unique}:1", setting.range_id
    reference = f"docker.io/library/{name}"
    image_id = setting.docker(setting.engine, "import", "-", name, given=bytes(10240))

    def reported() -> dict[str, Any] | None:
        (report,) = setting.ok("ranges", "unwanted", range_id)["items"]
        return next((one for one in report["images"] if reference in one["references"]), None)

    assert poll(lambda: reported() is not None, seconds=60)
    found = reported()
    assert found is not None
    assert (found["references"], found["image_id"], found["shared"]) == ([reference], image_id, False)
    assert poll(lambda: found in setting.get(f"/api/v1/ranges/{range_id}/unwanted")["images"], seconds=20)
    assert range_id in [report["range_id"] for report in setting.get("/api/v1/unwanted")["items"]]
    for arguments in (("verify", range_id), ("verify", range_id, "--engine-url", setting.engine.url)):
        assert [reference] in [one["references"] for one in setting.system.cli(*arguments).data["unwanted"]]
    setting.docker(setting.engine, "rmi", name)
    assert poll(lambda: reported() is None, seconds=60)


def test_a_prompt_is_answered_by_pushing(setting: Setting, context: Path, unique: str) -> None:
    """An image with `--push ask` stays out of the registry until somebody pushes it; then the prompt is gone."""
    name = f"asked-{unique}:1"

    def prompted() -> bool:
        return any(name in item["reference"] for item in setting.ok("images", "prompts")["items"])

    setting.ok("images", "build", str(context), "-t", name, "--push", "ask")
    assert poll(prompted, seconds=20)
    registered = {row["reference"]: row["registry"] for row in setting.ok("images", "ls")["items"]}
    assert registered[f"docker.io/library/{name}"] == "no"
    (pushed,) = setting.ok("images", "push", name)["items"]
    assert (pushed["type"], pushed["reference"]) == ("image.pushed.v1", f"docker.io/library/{name}")
    assert not prompted()


def test_import_and_promote_are_deployed_like_builds(
    setting: Setting, context: Path, tmp_path: Path, unique: str
) -> None:
    """However an image came to the host, it reaches the range."""
    name, promoted = f"imported-{unique}:1", f"promoted-{unique}:1"
    setting.docker(setting.host, "build", "-q", "-t", name, str(context))
    saved = tmp_path / "saved.tar"
    setting.docker(setting.host, "save", "-o", str(saved), name)
    setting.docker(setting.host, "rmi", name)
    setting.ok("images", "import", str(saved))
    setting.docker(setting.host, "create", "--name", f"c-{unique}", name, "true")
    setting.docker(setting.host, "cp", str(context / "content"), f"c-{unique}:/more")
    setting.ok("images", "promote", f"c-{unique}", promoted)
    setting.docker(setting.host, "rm", f"c-{unique}")
    ended = setting.ok("deploy", setting.range_id, name, promoted)
    assert [image["reference"] for image in ended["images"]] == [
        f"docker.io/library/{name}",
        f"docker.io/library/{promoted}",
    ]
    for reference in (name, promoted):
        here, there = (
            setting.docker(engine, "images", "--no-trunc", "-q", reference) for engine in (setting.host, setting.engine)
        )
        assert here == there != ""


def test_a_stopped_registry_means_tar(setting: Setting, context: Path, unique: str) -> None:
    """The deployment succeeds all the same, with the layers that the range has left out."""
    base, name = f"base-{unique}:1", f"tar-{unique}:1"
    setting.docker(setting.host, "tag", "whole-base:1", base)
    setting.ok("deploy", setting.range_id, base)
    setting.system.registry.stop()
    try:
        setting.ok("images", "build", str(context), "-t", name)
        (image,) = setting.ok("deploy", setting.range_id, name)["images"]
    finally:
        setting.system.registry.start()
    assert image["how"] == "loaded"
    assert image["sent_bytes"] < 1_000_000  # the base has more than two megabytes
    here = setting.docker(setting.host, "images", "--no-trunc", "-q", name)
    assert setting.docker(setting.engine, "images", "--no-trunc", "-q", name) == here


def test_a_range_without_an_agent_is_driven_from_the_host(
    setting: Setting, context: Path, range_engine_servers: tuple[EngineServer, EngineServer], unique: str
) -> None:
    """The deployment gives the engine's address; the agent-pool does what an agent in the range would."""
    engine, name = range_engine_servers[1], f"pooled-{unique}:1"
    setting.ok("images", "build", str(context), "-t", name)
    with tcp_door(engine.socket) as url:
        (image,) = setting.ok("deploy", f"pooled-{unique}", name, "--engine-url", url)["images"]
    assert image["how"] == "pulled"
    assert setting.docker(engine, "images", "--no-trunc", "-q", name) == image["image_id"]


def test_a_plan_over_http_brings_images_before_anybody_asks(setting: Setting, context: Path, unique: str) -> None:
    """202 and its place, where it says that it is done; the deployment that follows finds everything there."""
    name, plan_id = f"planned-{unique}:1", f"plan-{unique}"
    setting.ok("images", "build", str(context), "-t", name, "--push", "never")
    body = {"images": [name], "range_ids": [setting.range_id, f"nobody-{unique}"], "plan_id": plan_id}
    status, said, location = setting.send("POST", "/api/v1/plans", body)
    assert (status, said, location) == (202, {"plan_id": plan_id}, f"/api/v1/plans/{plan_id}")
    assert location is not None
    assert poll(lambda: setting.get(location)["state"] == "incomplete", seconds=60)  # one of the ranges is away
    plan = setting.get(location)
    assert plan["images"] == [{"reference": f"docker.io/library/{name}", "registry": "there", "error": None}]
    assert [(one["state"], one["ready"]) for one in plan["ranges"]] == [("succeeded", 1), ("away", 0)]
    assert setting.ok("plans", "show", plan_id) == plan
    assert setting.docker(setting.engine, "images", "-q", name) != ""
    (image,) = setting.ok("deploy", setting.range_id, name)["images"]
    assert image["how"] == "present"
    refused = setting.send("POST", "/api/v1/plans", {**body, "images": ["other:1"]})
    assert (refused[0], refused[1]["code"]) == (409, "duplicate_plan")


def test_what_cannot_work_fails_with_a_reason(setting: Setting, unique: str) -> None:
    """An unknown image ends the deployment, at once and with a code."""
    said = setting.system.cli("deploy", setting.range_id, f"nothing-{unique}:1")
    assert said.status == 5
    assert said.data["type"] == "deployment.failed.v1"
    assert said.data["images"][0]["error"]["code"] == "image_not_found"


def test_the_doors_show_what_is(setting: Setting) -> None:
    """Ranges, images, deployments, health, statistics, metrics and the doctor, on a system that runs."""
    ranges = setting.ok("ranges", "ls")["items"]
    assert ("whole-1", "alive") in [(row["range_id"], row["agent"]) for row in ranges]
    assert any(row["registry"] == "same" for row in setting.ok("images", "ls")["items"])
    assert {row["state"] for row in setting.ok("deployments", "ls")["items"]} >= {"succeeded", "failed"}
    assert setting.get("/readyz")["status"] == "ok"

    def stats_are_whole() -> bool:
        stats = setting.get("/api/v1/registry/stats")
        return bool(stats["healthy"] and stats["storage_measured"] and stats["saved_bytes"] > 0)

    assert poll(stats_are_whole, seconds=60)
    assert "whole-1" in [item["range_id"] for item in setting.get("/api/v1/ranges")["items"]]
    findings = {item["what"]: item for item in setting.ok("doctor")["items"]}
    ranges_found = findings.pop("ranges")  # one whose engine an earlier test drove may be noted as away by now
    assert ranges_found["state"] in ("ok", "note")
    assert "whole-1" not in ranges_found["found"]
    # A laboratory trusts its ranges: they reach the registry without a token, and Redis itself.
    trusting = [findings.pop("range-gateway"), *(one for one in findings.values() if "AUTH=token" in one["advice"])]
    assert [one["state"] for one in trusting] == ["note", "note"]
    assert [one for one in findings.values() if one["state"] != "ok" and one not in trusting] == []


def test_sigterm_ends_everything_well(setting: Setting) -> None:
    """Within the grace, with exit status 0 and a last word."""
    extra = setting.system.services("deployer", "registry-pusher", name="whole-extra")
    os.kill(extra.pid, signal.SIGTERM)
    assert poll(lambda: not extra.running, seconds=20)
    assert b'"event":"stopped"' in extra.said()
