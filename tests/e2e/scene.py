"""Steps that end-to-end tests share."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.messages import (
    DeploymentCancelled,
    DeploymentEnded,
    DeploymentFailed,
    DeploymentSucceeded,
    ImageAppeared,
    ImageOutcome,
    ImagePushed,
)
from services.core.images.references import Reference
from tests.laboratory import LogBook, Mark, Request, System, Valve

BASE = "e2e/base:1"
MEGABYTE = 1_000_000
SLACK_BYTES = 100_000
"""More than an image's config, manifest and small files; less than any layer that matters here."""


@dataclass(slots=True)
class Scene:
    """The running system, a name nobody else has, and where the log book stood when the test began."""

    system: System
    book: LogBook
    valve: Valve
    folder: Path
    name: str
    mark: Mark
    log_mark: int = field(default=0)

    def __post_init__(self) -> None:
        self.from_now()

    def from_now(self) -> None:
        """What is counted begins here."""
        self.mark = self.book.mark()
        self.log_mark = self.system.registry.log.stat().st_size

    # ---- making images ----------------------------------------------------------------------------------------

    def build(
        self, name: str, said: str, *, base: str = BASE, bulk_bytes: int = 0, push: str = "auto", pushed: bool = True
    ) -> str:
        """An image whose /said reads `said`, on `base`, after a layer of `bulk_bytes` that nothing else has.

        Returns its image id; with `pushed` the registry has it by then.
        """
        context = self.folder / f"context-{len(list(self.folder.iterdir()))}"
        context.mkdir()
        (context / "said").write_text(f"{said}\n")
        bulk = ""
        if bulk_bytes:
            (context / "bulk").write_bytes(os.urandom(bulk_bytes))
            bulk = f"COPY bulk /bulk-{context.name}\n"
        (context / "Dockerfile").write_text(f"FROM {base}\n{bulk}COPY said /said\n")
        done = self.system.cli("images", "build", str(context), "-t", name, "--push", push, "--quiet")
        assert done.status == 0, done.talk
        image_id: str = done.data["items"][0]["image_id"]
        if pushed and push != "never":
            self.pushed(name, image_id)
        return image_id

    def pushed(self, name: str, image_id: str) -> ImagePushed:
        """Wait until the registry has it."""
        reference = str(Reference.parse(name))
        return self.book.wait(ImagePushed, self.mark, lambda m: (m.reference, m.image_id) == (reference, image_id))

    def announced(self) -> list[ImageAppeared]:
        """Images that were said to have appeared since the mark."""
        kinds: Any = ImageAppeared
        found: list[ImageAppeared] = self.book.find(kinds, self.mark)
        return found

    # ---- deploying --------------------------------------------------------------------------------------------

    def deploy(self, range_id: str, *names: str) -> list[ImageOutcome]:
        """Deploy and wait; how each image came. Fails unless all are ready."""
        ended = self.ended(self.begin(range_id, *names))
        assert isinstance(ended, DeploymentSucceeded), ended
        return list(ended.images)

    def begin(self, range_id: str, *names: str, priority: int = 5) -> str:
        """Ask for a deployment; its id."""
        done = self.system.cli("deploy", range_id, *names, "--no-wait", "--priority", str(priority))
        assert done.status == 0, done.talk
        deployment_id: str = done.data["deployment_id"]
        return deployment_id

    def show(self, deployment_id: str) -> Any:
        """What an operator is told of a deployment now."""
        done = self.system.cli("deployments", "show", deployment_id)
        assert done.status == 0, done.talk
        return done.data

    def ended(self, deployment_id: str, *, seconds: float = 90) -> DeploymentEnded:
        """Wait for the end of a deployment; there must be exactly one."""
        whole = {self.book.streams.deployments: "0-0"}
        kinds: Any = DeploymentSucceeded | DeploymentFailed | DeploymentCancelled
        self.book.wait(kinds, whole, lambda m: m.deployment_id == deployment_id, seconds=seconds)
        found = self.book.find(kinds, whole, lambda m: m.deployment_id == deployment_id)
        assert len(found) == 1, found
        ended: DeploymentEnded = found[0]
        return ended

    # ---- looking for oneself ----------------------------------------------------------------------------------

    def read(self, range_id: str, name: str) -> str:
        """What /said reads in a container of the image, started in the range."""
        return self.system.ranges[range_id].docker("run", "--rm", name, "cat", "/said").strip()

    def is_whole(self, range_id: str, name: str) -> bool:
        """Whether the range's engine reports the host's layers under the name."""
        return self.system.ranges[range_id].layers(name) == self.system.host.layers(name)

    def stray_names(self, range_id: str) -> set[str]:
        """Names in a range's engine that hold the registry's address: nobody asked for those."""
        addresses = (self.valve.address, self.system.registry.address)
        return {name for name in self.system.ranges[range_id].names() if name.startswith(addresses)}

    def fetched(self) -> list[Request]:
        """Blobs that ranges fetched from the registry since the mark, by the registry's own log."""
        asked = self.system.registry.requests(self.log_mark)
        return [one for one in asked if one.method == "GET" and "/blobs/" in one.path and one.status in (200, 206)]

    def fetched_bytes(self) -> int:
        return sum(request.sent_bytes for request in self.fetched())
