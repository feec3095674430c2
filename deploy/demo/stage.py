"""Helpers of the demonstration's steps: run the project's commands, wait for events, inspect engines.

No result of a service is believed: layers are read from the engines, manifests and transferred bytes from the
registry and its log, content from a container started in the range.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deploy.demo.show import Show, Went
from deploy.lab.logbook import LogBook, Mark
from deploy.lab.system import Said, System
from events.messages import DeploymentSucceeded, ImagePushed
from services.core.images.references import Reference

_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class StoryFailed(Exception):
    """A step of the demonstration failed."""


@dataclass(slots=True)
class Stage:
    """The system under demonstration, and the output."""

    system: System
    book: LogBook
    show: Show
    folder: Path
    ways: list[tuple[str, Went]] = field(default_factory=list)
    step: str = ""
    log_mark: int = 0
    attributed: set[str] = field(default_factory=set)
    """Layers whose upload was shown with an image already: others with the same layer reuse it."""

    def begin(self, number: str, text: str) -> None:
        """Begin the next step: print its heading, and note from where its evidence is read."""
        self.step = text
        self.show.step(number, text)
        self.log_mark = self.system.registry.log.stat().st_size

    def expect(self, holds: bool, text: str, instead: object = "") -> None:
        """Check a condition and print it as `text`. Raises StoryFailed when it does not hold."""
        if not holds:
            self.show.failed(text)
            raise StoryFailed(f"{text}: it is not so{f' ({instead})' if instead != '' else ''}")
        self.show.checked(text)

    def run(self, *arguments: str) -> Any:
        """Run one command of the project, printed as typed. Returns its JSON. Raises StoryFailed when it fails."""
        return self.run_all([arguments])[0]

    def run_all(self, commands: Sequence[Sequence[str]]) -> list[Any]:
        """Several at the same time."""
        for arguments in commands:
            shown = (argument.replace(f"{self.folder}/", "") for argument in arguments)
            self.show.command(f"cyroid-images {' '.join(shown)}")
        results = self.system.cli_together(commands)
        for arguments, result in zip(commands, results, strict=True):
            if result.status:
                raise StoryFailed(_complaint(arguments, result))
        return [result.data for result in results]

    # ---- into the registry ------------------------------------------------------------------------------------

    def pushed(self, mark: Mark, name: str, *, image_id: str, seconds: float = 120) -> Went:
        """Wait for the event that the image was pushed, and check the registry's content."""
        reference = str(Reference.parse(name))
        said = self.book.wait(
            ImagePushed, mark, lambda m: m.reference == reference and m.image_id == image_id, seconds=seconds
        )
        manifest = self.manifest(name)
        if manifest["config"]["digest"] != image_id:
            raise StoryFailed(f"{name} was said to be pushed as {image_id}, the registry has {manifest['config']}")
        if (total := sum(layer["size"] for layer in manifest["layers"])) != sum(x.size_bytes for x in said.layers):
            raise StoryFailed(f"{name}: the registry's layers have {total} bytes, not what was said")
        sent = {layer["digest"] for layer in manifest["layers"]} & self.uploaded(reference) - self.attributed
        self.attributed |= sent
        way = Went(
            image=reference,
            where="registry",
            path=f"pushed ({said.method})",
            sent_bytes=said.sent_bytes,
            layers_reused=len(manifest["layers"]) - len(sent),
            layers_total=len(manifest["layers"]),
            seconds=said.seconds,
        )
        self.ways.append((self.step, way))
        return way

    def uploaded(self, reference: str) -> set[str]:
        """Digests that were uploaded into the image's repository in this step, according to the registry's log."""
        repository = Reference.parse(reference).repository
        found = set()
        for request in self.system.registry.requests(self.log_mark):
            target = urlsplit(request.path)
            if request.method == "PUT" and request.status == 201 and target.path.startswith(f"/v2/{repository}/blobs/"):
                found.update(parse_qs(target.query).get("digest", []))
        return found

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest that the registry has under a name. Raises StoryFailed when it has none, or is unavailable."""
        reference = Reference.parse(name)
        path = f"/v2/{reference.repository}/manifests/{reference.registry_tag}"
        # Not urllib: with `http_proxy` set it would ask the proxy for what is on loopback.
        connection = http.client.HTTPConnection(self.system.registry.address, timeout=10)
        try:
            connection.request("GET", path, headers={"Accept": _MANIFESTS})
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            raise StoryFailed(f"the registry at {self.system.registry.address} does not answer: {problem}") from problem
        finally:
            connection.close()
        if answer.status != 200:
            raise StoryFailed(f"the registry has no manifest of {name}: it answers {answer.status} to GET {path}")
        found: dict[str, Any] = json.loads(said)
        return found

    # ---- to the ranges ----------------------------------------------------------------------------------------

    def deploy(self, *names: str) -> list[Went]:
        """Deploy to every range at the same time, and check in each range's engine that the content is there."""
        ended = self.run_all([("deploy", range_id, *names) for range_id in self.system.ranges])
        ways: list[Went] = []
        for range_id, end in zip(self.system.ranges, ended, strict=True):
            if end["type"] != "deployment.succeeded.v1":
                raise StoryFailed(f"the deployment to {range_id} ended as {end}")
            self.book.wait(
                DeploymentSucceeded, dict.fromkeys([self.book.streams.deployments], "0-0"), _is(end["deployment_id"])
            )
            ways.extend(Went.of(image, range_id) for image in end["images"])
        self.ways.extend((self.step, way) for way in ways)
        return ways

    def same_content(self, *names: str) -> None:
        """Check that every range's engine reports the layers that the host's engine has."""
        for name in names:
            wanted = self.system.host.layers(name)
            for range_id, engine in self.system.ranges.items():
                if (found := engine.layers(name)) != wanted:
                    raise StoryFailed(f"{range_id} has {name} with layers {found}, the host has {wanted}")
        several = f"{len(names)} images" if len(names) > 1 else "the image"
        self.show.checked(f"each range's engine has {several} with exactly the host's layers")

    def reads(self, name: str, path: str, text: str) -> None:
        """Check that a container of the image, started in each range, reads `text` in a file."""
        for range_id, engine in self.system.ranges.items():
            found = engine.docker("run", "--rm", name, "cat", path).strip()
            if found != text:
                raise StoryFailed(f"{path} of {name} in {range_id} reads {found!r}, not {text!r}")
        self.show.checked(f"a container of {name} in each range reads {text!r} in {path}")

    def served_bytes(self) -> int:
        """Bytes of blobs that ranges fetched from the registry in this step, according to the registry's log."""
        return sum(
            request.sent_bytes
            for request in self.system.registry.requests(self.log_mark)
            if request.method == "GET" and "/blobs/" in request.path and request.status in (200, 206)
        )


def _is(deployment_id: str) -> Any:
    return lambda message: message.deployment_id == deployment_id


def _complaint(arguments: Sequence[str], result: Said) -> str:
    said = result.talk.strip()[-1500:] or json.dumps(result.data)
    return f"`cyroid-images {' '.join(arguments)}` ended with exit status {result.status}:\n{said}"
