"""Compose project: which files, which images, which paths of this machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.machine.commands import MachineError
from deploy.stack import env_file
from deploy.stack.host_engine import engine_facts, engine_socket
from deploy.stack.images import MOUNTER_IMAGE, SERVICES_IMAGE, STANDINS, build_all, range_image
from deploy.stack.nested import ROOT, nested_options
from deploy.stack.plugins import docker, docker_environment

DATA = Path("/data/cyroid")
ENV_FILE = ROOT / ".env"
#: Puts the stack on CYROID's own network, with CYROID's Redis.
JOIN = ROOT / "deploy/compose.cyroid.yml"
WRITE = ROOT / "deploy/compose.write.yml"
#: Where the kernel mounts EROFS from block devices alone.
LOOPS = ROOT / "deploy/compose.loops.yml"
#: The first kernel that mounts it from plain files.
PLAIN_FILES = (6, 12)
#: On the first host of several, and on each further one.
DOOR = ROOT / "deploy/compose.door.yml"
FURTHER = ROOT / "deploy/compose.further-host.yml"
#: On a further host that gives other hosts' ranges archives.
ARCHIVES = ROOT / "deploy/compose.archives.yml"
#: The engine of a demo range.
ENGINE = "28.5"
#: Looked up anew each time, so never taken from what an earlier start wrote down.
FOUND = ("STACK_ENGINE_SOCKET", "STACK_ENGINE_ROOT", "STACK_ENGINE_GID", "COMPOSE_FILE")
#: Never written down: a secret, which the secrets folder keeps, and what the tests say.
PASSING = ("STACK_REDIS_URL", "STACK_TEST_ENGINE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """`data` is CYROID_DATA_DIR; `ranges` are options of `docker run` for a nested engine, if they were looked for.

    `join`: beside CYROID. `mount`: with the layer-mounter, and a pusher that writes into the registry's storage.
    """

    data: Path
    environment: dict[str, str]
    demo: bool
    ranges: tuple[str, ...] = ()
    join: bool = False
    mount: bool = False

    @property
    def key_prefix(self) -> str:
        """What every key in Redis begins with: one for each installation."""
        return self.environment.get("STACK_KEY_PREFIX") or "cyroid"

    @property
    def door(self) -> bool:
        """Whether it lets further hosts in."""
        return self.environment.get("STACK_DOOR_ADDRESS", "") not in ("", "0")

    @property
    def further(self) -> bool:
        """Whether Redis and registry are on another host."""
        return bool(self.environment.get("STACK_FIRST_HOST"))

    @property
    def archives(self) -> bool:
        """Whether the first host gets archives here, for ranges of all hosts."""
        return self.further and bool(self.environment.get("STACK_ARCHIVES_ADDRESS"))

    @property
    def loops(self) -> bool:
        """Whether the layer-mounter may use loop devices: with an older kernel, unless somebody says otherwise."""
        said = self.environment.get("STACK_LOOP_DEVICES", "")
        return self.mount and (said != "0" if said else older_than(platform.release(), PLAIN_FILES))

    def files(self) -> list[Path]:
        return compose_files(
            join=self.join,
            mount=self.mount,
            loops=self.loops,
            door=self.door,
            further=self.further,
            archives=self.archives,
        )

    def compose(
        self,
        *words: str,
        seconds: float = 300.0,
        environment: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> str:
        """`docker compose words…`, with `environment` added to ours. Raises MachineError with what it said."""
        files = [word for file in self.files() for word in ("--file", str(file))]
        profiles = [*(["demo"] if self.demo else []), *(["mount"] if self.mount else [])]
        profile = [word for name in profiles for word in ("--profile", name)]
        whole = ["compose", "--project-directory", str(ROOT), *files, *profile, *words]
        return docker(*whole, seconds=seconds, environment={**self.environment, **(environment or {})}, stdin=stdin)

    def running(self) -> list[str]:
        return self.compose("ps", "--services", "--status", "running").split()

    def remember(self) -> None:
        """Write down what bare `docker compose` and the next `make` need to know. Raises MachineError."""
        values = {name: value for name, value in self.environment.items() if name.startswith("STACK_")}
        values = {name: value for name, value in values.items() if name not in PASSING}
        values["CYROID_DATA_DIR"] = str(self.data)
        values["COMPOSE_FILE"] = ":".join(str(file.relative_to(ROOT)) for file in self.files())
        try:
            env_file.write(ENV_FILE, values)
        except (OSError, ValueError) as problem:
            raise MachineError(f"{ENV_FILE} cannot be written: {problem}") from problem


def forget() -> None:
    """Take away what `Stack.remember` wrote."""
    env_file.write(ENV_FILE, {})


def older_than(release: str, wanted: tuple[int, int]) -> bool:
    """Whether a kernel's release, such as `6.8.0-45-generic`, comes before a version; False for what has no number."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) < wanted


def compose_files(
    *,
    join: bool,
    mount: bool = False,
    loops: bool = False,
    door: bool = False,
    further: bool = False,
    archives: bool = False,
) -> list[Path]:
    """docker-compose.yml, and what changes it beside CYROID, with mounted layers, and on one of several hosts."""
    more = ((join, JOIN), (mount, WRITE), (loops, LOOPS), (door, DOOR), (further, FURTHER), (archives, ARCHIVES))
    return [ROOT / "docker-compose.yml", *(file for wanted, file in more if wanted)]


def chosen(environment: Mapping[str, str], own: Mapping[str, str], remembered: Mapping[str, str]) -> dict[str, str]:
    """What counts: this process's variables, then the operator's lines in `.env`, then what the last start was told."""
    kept = {name: value for name, value in remembered.items() if name not in FOUND}
    # A stand-in that was found then is looked for again; another image that was named stays named.
    kept = {name: value for name, value in kept.items() if value not in STANDINS.values()}
    return {**kept, **own, **environment}


def standins(environment: Mapping[str, str], there: Iterable[str]) -> dict[str, str]:
    """The variables for images that cannot be had by their usual name, and are there by another."""
    names, found = set(there), {}
    for variable, pulled, kind in (
        ("STACK_REGISTRY_IMAGE", "registry:2", "registry"),
        ("STACK_REDIS_IMAGE", "redis:7", "redis"),
    ):
        if variable not in environment and pulled not in names and STANDINS[kind] in names:
            found[variable] = STANDINS[kind]
    return found


def inspect_machine(
    *,
    demo: bool,
    join: bool | None = None,
    mount: bool | None = None,
    build: bool = False,
    need_images: bool = True,
    host: str = "",
) -> Stack:
    """The stack for the engine that `docker` talks to. Raises MachineError, a line for each thing that is missing.

    `host` is the id of a host that has none yet; else that is its engine's.
    `join` and `mount` None: as the last start was told. With `build` the images of ours that are missing are built.
    Without `need_images` none is looked for, nor what a nested engine needs: enough to take the stack down.
    """
    socket = engine_socket(os.environ)
    own, remembered = env_file.read(ENV_FILE)
    environment = chosen(docker_environment(), own, remembered)
    data = Path(environment.get("CYROID_DATA_DIR") or DATA).absolute()
    joined = _is_set(environment, "STACK_JOIN") if join is None else join
    mounted = _is_set(environment, "STACK_MOUNT") if mount is None else mount
    environment |= {"CYROID_DATA_DIR": str(data), "STACK_JOIN": str(int(joined)), "STACK_MOUNT": str(int(mounted))}
    environment.setdefault("STACK_ENGINE_SOCKET", str(socket))
    facts = engine_facts()
    environment.setdefault("STACK_ENGINE_ROOT", facts["DockerRootDir"])
    environment.setdefault("STACK_HOST_ID", host or facts.get("ID", "").replace(":", "-"))
    environment.setdefault("STACK_ENGINE_GID", str(socket.stat().st_gid))
    image = environment.get("STACK_RANGE_1_IMAGE", range_image(ENGINE))
    needed = [environment.get("STACK_IMAGE", SERVICES_IMAGE), *([image] if demo else [])]
    needed += [environment.get("STACK_MOUNTER_IMAGE", MOUNTER_IMAGE)] if mounted else []
    missing = [name for name in needed if not image_there(name)] if build or need_images else []
    if missing and build:
        _build(missing)
    elif missing:
        raise MachineError(f"not built yet: {', '.join(missing)}; run `make images`")
    environment |= standins(environment, image_names())
    ranges = nested_options(image) if need_images and image_there(image) else ()
    return Stack(data=data, environment=environment, demo=demo, ranges=ranges, join=joined, mount=mounted)


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "0") not in ("", "0")


def _build(missing: list[str]) -> None:
    """Build what is missing. Raises MachineError for an image that is not ours to build."""
    ours = {SERVICES_IMAGE, MOUNTER_IMAGE, range_image(ENGINE)}
    if others := [name for name in missing if name not in ours]:
        raise MachineError(f"not there: {', '.join(others)}; load or pull them, they are not built here")
    build_all(
        base="auto",
        engines=[ENGINE] if range_image(ENGINE) in missing else [],
        services=SERVICES_IMAGE in missing,
        mounter=MOUNTER_IMAGE in missing,
    )


def image_names() -> list[str]:
    """Every image of the engine that has a name."""
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", seconds=60).split()


def image_there(name: str) -> bool:
    return bool(docker("image", "ls", "--quiet", name, seconds=60).strip())
