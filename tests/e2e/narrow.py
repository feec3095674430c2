"""The system with one slot on the whole host, over lines that can be slow: what waits and what is cancelled is seen."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.machine.polling import poll
from events.messages import DeploymentCancelled, PullRequested
from services.core.images.references import Reference
from tests.e2e.scene import BASE, MEGABYTE, Scene
from tests.laboratory import RoleServer, Valve

NARROW = ("narrow-classic", "narrow-containerd")
"""Ranges by the store of their engine."""
BULK = 8 * MEGABYTE
LARGE = 20 * MEGABYTE
"""More than the kernel takes off a sender's hands at once, to a reader that takes nothing."""
STOPS_SECONDS = 2.0
"""What the product promises of a cancel."""
_FAST_BYTES = 2 * MEGABYTE
_TRICKLE_BYTES_PER_SECOND = 150_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Into the registry, out of it, out of the tar server."""

    push: Valve
    pull: Valve
    tar: Valve
    tar_port: int

    def open(self) -> None:
        for valve in (self.push, self.pull, self.tar):
            valve.open()


@dataclass(slots=True, kw_only=True)
class NarrowScene(Scene):
    """A scene on those lines."""

    lines: Lines
    services: RoleServer

    def make(self, name: str, said: str, *, base: str = BASE, bulk_bytes: int = 0) -> str:
        """As `build`, by the engine alone: nobody hears of it, so a deployment has it pushed. Its image id."""
        context = self.folder / f"made-{len(list(self.folder.iterdir()))}"
        context.mkdir()
        (context / "said").write_text(f"{said}\n")
        (context / "bulk").write_bytes(os.urandom(bulk_bytes))
        bulk = f"COPY bulk /bulk-{context.name}\n" if bulk_bytes else ""
        (context / "Dockerfile").write_text(f"FROM {base}\n{bulk}COPY said /said\n")
        return self.system.host.docker("build", "--quiet", "--tag", name, str(context)).strip()

    def under_way(self, range_id: str, name: str, line: Valve) -> str:
        """A deployment whose bulk has begun to cross `line` and trickles there; its id."""
        slow(line)
        begun = self.begin(range_id, name)
        line.wait_shut()
        return begun

    def cancel(self, deployment_id: str) -> None:
        """As an operator does."""
        done = self.system.cli("deployments", "cancel", deployment_id, "--reason", "wrong range")
        assert done.status == 0, done.talk

    def retry(self, deployment_id: str) -> None:
        """As an operator does."""
        done = self.system.cli("deployments", "retry", deployment_id)
        assert done.status == 0, done.talk

    def cancelled(self, deployment_id: str) -> None:
        """It has ended, once, as that."""
        ended = self.ended(deployment_id)
        assert isinstance(ended, DeploymentCancelled)
        assert (ended.reason, self.show(deployment_id)["state"]) == ("wrong range", "cancelled")

    def asked(self, range_id: str, deployment_id: str) -> int:
        """How many transfers of a deployment the range was ever asked for."""
        whole = {self.book.streams.inbox(range_id): "0-0"}
        return len(self.book.find(PullRequested, whole, lambda one: one.transfer_id.startswith(deployment_id)))

    def spools(self) -> set[str]:
        """Spools that the tar server has open; only their descriptors tell, for they are unlinked at once."""
        found = set()
        for descriptor in Path(f"/proc/{self.services.pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(descriptor))
        return {name for name in found if ".spool" in name}

    def parts(self, range_id: str) -> set[Path]:
        """What the range's engine has of images that are on their way.

        What containerd has of a blob (an ingest) is not among it: that stays until the next pull goes on from there,
        or containerd tidies up, and belongs to no image.
        """
        root = self.system.ranges[range_id].root
        return {*root.glob("tmp/*"), *root.glob("image/overlay2/layerdb/tmp/*")}

    def registry_has(self, name: str) -> bool:
        """Whether the registry has a manifest under that name."""
        reference = Reference.parse(name)
        url = f"{self.system.registry.url}/v2/{reference.repository}/manifests/{reference.registry_tag}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20):
                return True
        except urllib.error.HTTPError as problem:
            if problem.code != 404:
                raise
            return False

    def wait_for_api(self) -> None:
        """It listens a moment after the services have said that they run."""
        assert poll(lambda: _answers(f"{self.system.api_url}/livez"), seconds=20)

    def http(self, path: str, body: object = None) -> Any:
        """What the HTTP API answers to a GET, or to a POST of `body`."""
        asked = urllib.request.Request(f"{self.system.api_url}/api/v1/{path}")
        if body is not None:
            asked.data = json.dumps(body).encode()
            asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)

    def begin(self, range_id: str, *names: str, priority: int = 5) -> str:
        """As everywhere, over HTTP."""
        answer = self.http("deployments", {"range_id": range_id, "images": names, "priority": priority})
        deployment_id: str = answer["deployment_id"]
        return deployment_id

    def show(self, deployment_id: str) -> Any:
        """As everywhere, over HTTP."""
        return self.http(f"deployments/{deployment_id}")

    def place(self, deployment_id: str) -> object:
        """Its place in the queue, about which the two commands and the HTTP API must agree."""
        shown, listed = self.system.cli_together([("deployments", "show", deployment_id), ("deployments", "ls")])
        told = {
            shown.data["queue_position"],
            next(row["queue_position"] for row in listed.data["items"] if row["deployment_id"] == deployment_id),
            self.show(deployment_id)["queue_position"],
        }
        (place,) = told
        return place

    def waits(self, deployment_id: str) -> bool:
        """Whether it comes to stand in the queue."""
        return poll(lambda: self.show(deployment_id)["queue_position"] is not None, seconds=20)


def slow(line: Valve) -> None:
    """Some megabytes at once, then a trickle: the rest of a bulk takes longer than any test."""
    line.slow_after(_FAST_BYTES, _TRICKLE_BYTES_PER_SECOND)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.URLError:
        return False
