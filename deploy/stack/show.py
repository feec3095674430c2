"""Demonstration at the end of `make up DEMO=1`: an image built, deployed to both demo ranges, and run in each."""

from __future__ import annotations

import io
import json
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deploy.demo.show import Show, Went
from deploy.machine.base_image import base_image_tar
from deploy.machine.cache import default_cache
from deploy.machine.commands import MachineError
from deploy.stack.compose import Stack
from deploy.stack.plugins import docker

BASE, IMAGE = "training/base:1.0", "training/hello:1.0"
DOCKERFILE = f"""\
FROM {BASE}
RUN dd if=/dev/urandom of=/disk bs=1M count=20 2>/dev/null
CMD ["echo", "hello from a machine of this range"]
"""
RANGES = ("range-1", "range-2")
API, INGEST = "cyroid-images-api-1", "cyroid-images-ingest-1"


def deploy_to_both(stack: Stack) -> None:
    """Build, deploy, run, and say what went where. Raises MachineError."""
    show = Show()
    if not docker("image", "ls", "--quiet", BASE).strip():
        docker("import", str(base_image_tar(default_cache())), BASE)
    show.title("An image, and two ranges that want it")
    show.command(f"cyroid-images images build - -t {IMAGE}")
    _cyroid("images", "build", "-", "-t", IMAGE, stdin=context(), container=INGEST)
    for name in RANGES:
        show.command(f"cyroid-images deploy {name} {IMAGE}")
    with ThreadPoolExecutor(len(RANGES)) as both:
        outcomes = list(both.map(_deploy, RANGES))
    show.went([way for outcome in outcomes for way in outcome])
    for name in RANGES:
        said = docker("exec", f"cyroid-images-{name}-1", "docker", "run", "--rm", "--network", "none", IMAGE).strip()
        show.checked(f"{name}: docker run {IMAGE} says “{said}”")
    show.console.print()


def context() -> str:
    """A tar with the Dockerfile alone: plain ASCII, so it goes where text goes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(DOCKERFILE)
        archive.addfile(entry, io.BytesIO(DOCKERFILE.encode()))
    return packed.getvalue().decode("ascii")


def ways(name: str, outcome: dict[str, Any], seconds: float) -> list[Went]:
    """A row for each image of a deployment that ended. Raises MachineError for one that did not succeed."""
    if outcome.get("type") != "deployment.succeeded.v1":
        raise MachineError(f"the deployment to {name} ended otherwise: {json.dumps(outcome)}")
    return [Went.of(image, name, seconds) for image in outcome["images"]]


def _deploy(name: str) -> list[Went]:
    begun = time.monotonic()
    outcome = _cyroid("deploy", name, IMAGE, "--timeout", "180")
    return ways(name, outcome, time.monotonic() - begun)


def _cyroid(*words: str, stdin: str = "", container: str = API) -> dict[str, Any]:
    """`cyroid-images … --json` in a container: the object it ends with."""
    said = docker("exec", "--interactive", container, "cyroid-images", *words, "--json", stdin=stdin)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
