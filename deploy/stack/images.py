"""Builds every image the stack needs, and writes them to one file that another host loads.

    python -m deploy.stack.images [--base auto|pull|debootstrap] [--engines 20.10 26.1 28.5] [--save FILE]

With `--base debootstrap` nothing is pulled: the base images are made from Debian's packages, and so are stand-ins for
registry:2 and Redis. With `--base pull` the same Dockerfiles build on Docker Hub's Debian, and registry:2 and redis:7
come from there. `auto` tries to pull once, and takes debootstrap where that fails. Needs an engine (DOCKER_HOST).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from deploy.machine.cache import default_cache
from deploy.machine.commands import MachineError, need, run
from deploy.machine.debian import mirror
from deploy.stack.host_engine import engine_socket
from deploy.stack.plugins import docker

ROOT = Path(__file__).parents[2]
#: Engine → the Debian release whose `docker.io` it is.
SUITES = {"20.10": "bookworm", "26.1": "trixie", "28.5": "forky"}
SERVICES_IMAGE = "cyroid/images:latest"
#: The same services on a release that has erofs-utils 1.8, for the role that mounts layers.
MOUNTER_IMAGE, MOUNTER_SUITE = "cyroid/layer-mounter:latest", "trixie"
STANDINS = {"registry": "cyroid/registry:2", "redis": "cyroid/redis:7"}
#: What the stand-ins stand in for.
PULLED = ("registry:2", "redis:7")
#: Everything is built on this release, except ranges with an engine that it does not have.
SUITE = "bookworm"
#: An engine without a way out takes this long at most to say so.
PULL_SECONDS = 180.0
#: The machine's certificates: behind a proxy that re-signs TLS, pip needs them.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def range_image(engine: str) -> str:
    """The name of the range image with this engine."""
    return f"cyroid/range:{engine}"


def build_all(*, base: str, engines: Sequence[str], services: bool = True, mounter: bool = False) -> list[str]:
    """Build everything, or what is asked for; the names of all images that were built or pulled.

    `base` is `auto`, `pull` or `debootstrap`. Raises MachineError with the end of what failed.
    """
    debootstrap = (choose_base() if base == "auto" else base) == "debootstrap"
    suites = {
        *([SUITE] if services else []),
        *([MOUNTER_SUITE] if mounter else []),
        *(SUITES[engine] for engine in engines),
    }
    bases = {suite: _base(suite, debootstrap) for suite in sorted(suites)}
    jobs: list[Callable[[], str]] = []
    if services:
        jobs.append(partial(_build, SERVICES_IMAGE, "deploy/Dockerfile", bases[SUITE]))
        for target, name in STANDINS.items() if debootstrap else ():
            jobs.append(partial(_build, name, "deploy/standins/Dockerfile", bases[SUITE], "--target", target))
        jobs += [partial(_pull, name) for name in (() if debootstrap else PULLED)]
    if mounter:
        also = ["--build-arg", "ALSO=erofs-utils"]
        jobs.append(partial(_build, MOUNTER_IMAGE, "deploy/Dockerfile", bases[MOUNTER_SUITE], *also))
    for engine in engines:
        arguments = ["--build-arg", f"ENGINE={engine}"]
        jobs.append(partial(_build, range_image(engine), "dind/Dockerfile", bases[SUITES[engine]], *arguments))
    # Two at a time: one calculates while the other fetches packages. Steps that two have in common are done once.
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: job(), jobs))


def choose_base() -> str:
    """`pull` where the engine can pull, else `debootstrap`; what was made before is used again."""
    if docker("image", "ls", "--quiet", f"cyroid/base:{SUITE}").strip():
        return "debootstrap"
    try:
        _pull(f"debian:{SUITE}-slim")
    except MachineError:
        say("nothing can be pulled here: making the base images from Debian's packages")
        return "debootstrap"
    return "pull"


def _pull(name: str) -> str:
    """`name` itself, which the engine then has."""
    if not docker("image", "ls", "--quiet", name).strip():
        docker("pull", "--quiet", name, seconds=PULL_SECONDS)
    return name


def save(images: Sequence[str], file: Path) -> None:
    """All `images` in one archive, layers that they share once. `docker load` on another host takes it."""
    new = file.with_name(file.name + ".part")
    docker("save", "--output", str(new), *images, seconds=1800)
    new.replace(file)
    say(f"{file}: {file.stat().st_size / 1e6:.0f} MB, for `docker load --input {file.name}`")


def size_bytes(image: str) -> int:
    """The size of an image in bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def _base(suite: str, debootstrap: bool) -> str:
    if not debootstrap:
        return f"debian:{suite}-slim"
    name = f"cyroid/base:{suite}"
    if docker("image", "ls", "--quiet", name):
        return name
    begun = time.monotonic()
    packed = default_cache() / "bases" / f"{suite}.tar"
    if not packed.exists():
        twice(name, lambda: _make_base(suite, packed))
    docker("import", "--change", 'CMD ["bash"]', str(packed), name)
    say(f"{name}: {size_bytes(name) / 1e6:.0f} MB from Debian's packages in {time.monotonic() - begun:.0f} s")
    return name


def _make_base(suite: str, packed: Path) -> None:
    """A root file system of `suite` as a tar, kept for the next time."""
    packed.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cyroid-base-") as scratch:
        root = Path(scratch, "root")
        scripts = Path("/usr/share/debootstrap/scripts")
        script = scripts / suite
        command = [need("debootstrap", "debootstrap"), "--variant=minbase", suite, str(root), mirror()]
        run([*command, str(script if script.exists() else scripts / "sid")], seconds=900)
        for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / rubbish, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
        (root / "etc/apt/apt.conf.d/90machine").write_text(_validity())
        new = packed.with_name(f"{packed.name}.{os.getpid()}")
        run([need("tar", "tar"), "-C", str(root), "-cf", str(new), "."])
        new.replace(packed)


def _validity() -> str:
    """apt's setting of this machine: behind a mirror that stands still, release files are past their date."""
    value = (
        run([need("apt-config", "apt"), "shell", "V", "Acquire::Check-Valid-Until"])
        .strip()
        .removeprefix("V=")
        .strip("'")
    )
    return f'Acquire::Check-Valid-Until "{value}";\n' if value else ""


def _build(name: str, dockerfile: str, base: str, *options: str) -> str:
    begun = time.monotonic()
    secret = ["--secret", f"id=ca,src={CERTIFICATES}"] if CERTIFICATES.exists() else []
    words = ["buildx", "build", "--progress", "plain", "--load", "--provenance=false", "--file", str(ROOT / dockerfile)]
    words += ["--build-arg", f"BASE={base}", *options, *secret, "--tag", name, str(ROOT)]
    twice(name, lambda: docker(*words, seconds=1800))
    say(f"{name}: {size_bytes(name) / 1e6:.0f} MB in {time.monotonic() - begun:.0f} s")
    return name


def twice(name: str, step: Callable[[], object]) -> None:
    """Run what fetches packages, and once more where that fails. Raises the second error."""
    try:
        step()
    except MachineError as problem:
        say(f"{name}: once more, after this: {problem}")
        step()


def say(text: str) -> None:
    """Print a line of progress to standard error."""
    sys.stderr.write(f"images: {text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy.stack.images", description="Build the stack's images.")
    parser.add_argument(
        "--base", choices=["auto", "pull", "debootstrap"], default="auto", help="where base images come from"
    )
    parser.add_argument("--engines", nargs="+", choices=list(SUITES), default=list(SUITES), help="ranges to build")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write all images to one archive")
    options = parser.parse_args(arguments)
    os.nice(5)  # a build is in no hurry; what else runs on the machine may be
    try:
        engine_socket(os.environ)
        built = build_all(base=options.base, engines=options.engines, mounter=True)
        if options.save:
            save(built, options.save)
    except MachineError as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
