"""What an operator does with a running stack, from outside, and what the log book shows of it."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.machine.polling import poll
from tests.stack.listing import PROGRAM

ROOT = Path(__file__).parents[2]
#: Range → engine, and whether its images are in containerd's store.
RANGES = {"r20": ("20.10", False), "r26": ("26.1", False), "r28": ("28.5", False), "r28c": ("28.5", True)}
#: The range without an agent, and where its engine listens.
PLAIN = "stock"
PLAIN_ADDRESS = "172.30.1.6"
#: How long a deployment may take on a machine that has other things to do.
PATIENCE_SECONDS = 300.0
#: What makes images on the host's engine.
INGESTS = (("build",), ("import",), ("promote",))
ENDS = ("deployment.succeeded.v1", "deployment.failed.v1", "deployment.cancelled.v1")


class Stack:
    """`socket` is the engine's, `data` the stack's folder."""

    def __init__(self, socket: Path, data: Path) -> None:
        self.socket = socket
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "CYROID_DATA_DIR": str(data)}
        self.data = data

    def run(
        self, *command: str, stdin: bytes = b"", check: bool = True, seconds: float = 600
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.environment, cwd=ROOT, check=False, timeout=seconds
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done

    def tool(self, module: str, *words: str) -> str:
        """One of the stack's own programs."""
        return self.run(sys.executable, "-m", f"deploy.stack.{module}", *words, seconds=1800).stdout.decode()

    def docker(self, *words: str, stdin: bytes = b"") -> str:
        return self.run("docker", *words, stdin=stdin).stdout.decode().strip()

    def cyroid(self, *words: str, stdin: bytes = b"", service: str = "") -> list[dict[str, Any]]:
        """`cyroid-images … --json` in a service's container, where that command belongs: the items, or the object."""
        where = service or ("ingest" if words[1:2] in INGESTS else "api")
        inside = ["exec", "-i", f"cyroid-images-{where}-1", "cyroid-images", *words, "--json"]
        text = self.docker(*inside, stdin=stdin)
        found = json.loads(text.splitlines()[-1])
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def in_range(self, name: str, script: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """A shell as root in a range's container."""
        return self.run("docker", "exec", f"cyroid-range-{name}", "sh", "-c", script, check=check)

    def service(self, verb: str, *names: str) -> None:
        """`docker VERB` for services; those that start are waited for, as who asks them next relies on it."""
        containers = [f"cyroid-images-{name}-1" for name in names]
        self.docker(verb, *containers)
        if verb == "start":
            health = ["inspect", "--format", "{{.State.Health.Status}}", *containers]
            well = poll(lambda: set(self.docker(*health).split()) == {"healthy"}, seconds=180.0, every=1.0)
            assert well, f"{names}: {self.docker(*health)}"

    def redis(self, *words: str) -> str:
        """As the operator, who reads everything."""
        return self.docker("exec", "cyroid-images-redis-1", "redis-cli", *words)

    def address(self, name: str, network: str) -> str:
        template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self.docker("inspect", "--format", template, name)

    # ---- deployments ----

    def ask(self, mark: str, ranges: Sequence[str], *images: str, service: str = "api") -> dict[str, str]:
        """Asks for a deployment to all `ranges` at the same moment; range → the deployment's id."""
        ids = {name: f"{mark}-{name}" for name in ranges}
        lines = []
        for name, identity in ids.items():
            where = ["--engine-url", f"tcp://{PLAIN_ADDRESS}:2375"] if name == PLAIN else []
            lines.append(shlex.join(["cyroid-images", "deploy", name, *images, "--no-wait", "--id", identity, *where]))
        shell = "".join(f"{line} & {name}=$!\n" for name, line in zip(ids, lines, strict=True))
        shell += "".join(f"wait ${name}\n" for name in ids)
        self.docker("exec", f"cyroid-images-{service}-1", "sh", "-ec", shell)
        return ids

    def deploy(self, mark: str, ranges: Sequence[str], *images: str) -> dict[str, list[dict[str, Any]]]:
        """Deploys to all `ranges` at once and waits; range → how each image got there."""
        ids = self.ask(mark, ranges, *images)
        ends = self.succeeded(*ids.values())
        return {name: ends[identity]["images"] for name, identity in ids.items()}

    def ended(self, *ids: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """Of these deployments those that have ended: how, and what was said. Said once each."""
        said = self.docker(
            *("exec", "cyroid-images-redis-1", "redis-cli", "--json", "XRANGE", "cyroid:deployments", "-", "+")
        )
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for _, flat in json.loads(said):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            data = json.loads(fields["data"])
            if fields["type"] in ENDS and data["deployment_id"] in ids:
                assert data["deployment_id"] not in found, f"{data['deployment_id']} ended twice"
                found[data["deployment_id"]] = (fields["type"], data)
        return found

    def succeeded(self, *ids: str) -> Mapping[str, dict[str, Any]]:
        """Waits, bounded, until all have ended well; what was said of each."""
        poll(lambda: len(self.ended(*ids)) == len(ids), seconds=PATIENCE_SECONDS, every=1.0)
        ends = self.ended(*ids)
        assert set(ends) == set(ids), f"not ended: {set(ids) - set(ends)}"
        assert {kind for kind, _ in ends.values()} == {"deployment.succeeded.v1"}, ends
        return {identity: data for identity, (_, data) in ends.items()}

    # ---- content ----

    def content(self, name: str, image: str) -> str:
        """What a container of the image says, run by the range's own engine; its layers are the host's."""
        assert self.layers(name, image) == self.layers(None, image)
        return self.in_range(name, f"docker run --rm --network none {image}").stdout.decode().strip()

    def layers(self, name: str | None, image: str) -> list[str]:
        """The image's diff IDs in a range's engine, or the host's."""
        words = f"docker image inspect --format '{{{{json .RootFS.Layers}}}}' {image}"
        said = self.run("sh", "-c", words) if name is None else self.in_range(name, words)
        found: list[str] = json.loads(said.stdout)
        return found

    def listing(self, name: str | None, image: str) -> dict[str, list[Any]]:
        """Every file of the image with type, mode, owner, link, digest and attributes, in a range or on the host."""
        words = (
            f"id=$(docker create --network none {image} sh) && docker export $id"
            f" | python3 -c {shlex.quote(PROGRAM)}; docker rm $id >/dev/null"
        )
        said = self.run("sh", "-ec", words) if name is None else self.in_range(name, words)
        found: dict[str, list[Any]] = json.loads(said.stdout)
        return found


def context(content: str, noise_megabytes: int = 0) -> bytes:
    """A build whose last layer is small and whose layer below is 8 MB; `noise` is what cannot be packed."""
    noise = f"dd if=/dev/urandom of=/noise bs=1M count={noise_megabytes} 2>/dev/null"
    lines = [
        "FROM base:1",
        "RUN dd if=/dev/zero of=/blob bs=1M count=8 2>/dev/null",
        *([f"RUN : {content}; {noise}"] if noise_megabytes else []),  # its own, not what was built before
        f"RUN echo {content} > /etc/content",
    ]
    dockerfile = "\n".join([*lines, 'CMD ["cat", "/etc/content"]', ""]).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        archive.addfile(entry, io.BytesIO(dockerfile))
    return packed.getvalue()
