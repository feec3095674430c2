"""Files of an image as a process in a container sees them, read from outside through the process's root folder.

More than `docker export` tells: times to the nanosecond, every extended attribute, which names are one file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.matrix.content import ENGINES_OWN
from deploy.lab import EngineServer, Lab
from deploy.machine.commands import MachineError

_BLOCK = 1 << 20
#: Busybox takes a name that begins with its own for itself.
_KEEPER = "busybox-keeper"


@dataclass(frozen=True, slots=True)
class SeenFile:
    """One name. `links` are all names of this file, its own as well; `device` is a node's number, 0 for the rest."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size_bytes: int
    target: str
    device: int
    attributes: tuple[tuple[str, bytes], ...]
    links: tuple[str, ...]
    sha256: str


Files = Mapping[str, SeenFile]


def keeper(lab: Lab) -> Path:
    """A static busybox, which keeps a container of any image alive: the image needs no program of its own."""
    made = lab.folder / _KEEPER
    if not made.exists():
        with tarfile.open(lab.base_image_tar()) as tar:
            program = tar.extractfile("./bin/busybox")
            assert program is not None
            made.write_bytes(program.read())
        made.chmod(0o755)
    return made


def seen(engine: EngineServer, image: str, program: Path) -> Files:
    """Every name in a container of the image, by its path. `program` is `keeper`'s. Raises MachineError."""
    with _root(engine, image, program) as root:
        names = sorted(_names(root))
        if not names:
            raise MachineError(f"a container of {image} on {engine.name} sees nothing")
        found = {name: (root / name).lstat() for name in names}
        links = defaultdict[tuple[int, int], list[str]](list)
        for name, status in found.items():
            if not stat.S_ISDIR(status.st_mode):
                links[status.st_dev, status.st_ino].append(name)
        return {
            name: _seen(root / name, status, tuple(links.get((status.st_dev, status.st_ino), ())))
            for name, status in found.items()
        }


def differences(wanted: Files, found: Files, limit: int = 3) -> list[str]:
    """What differs, a line for each of the first names; none where all is the same."""
    told = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            told.append(f"{name!r} is {'missing' if name not in found else 'not in the host'}")
        elif wanted[name] != found[name]:
            fields = [
                field for field in SeenFile.__slots__ if getattr(wanted[name], field) != getattr(found[name], field)
            ]
            told.append(
                f"{name!r}: "
                + ", ".join(
                    f"{one} {getattr(found[name], one)!r}, not {getattr(wanted[name], one)!r}" for one in fields
                )
            )
    return told[:limit]


@contextmanager
def _root(engine: EngineServer, image: str, program: Path) -> Iterator[Path]:
    """The root folder of a container of the image, as this process reaches it while the container runs."""
    bound = ["--volume", f"{program}:/{_KEEPER}:ro", "--entrypoint", f"/{_KEEPER}"]
    container = engine.docker("run", "--detach", "--network", "none", *bound, image, "sleep", "900").strip()
    try:
        pid = engine.docker("inspect", "--format", "{{.State.Pid}}", container).strip()
        yield Path("/proc", str(engine.pid), "root/proc", pid, "root")
    finally:
        engine.docker("rm", "--force", "--volumes", container)


def _names(root: Path) -> Iterator[str]:
    """All paths in it but what an engine or `keeper` puts into every container."""

    def refuse(problem: OSError) -> None:
        raise MachineError(f"a container cannot be read: {problem}") from problem

    for folder, folders, files in os.walk(root, onerror=refuse):
        below = os.path.relpath(folder, root)
        if below == ".":
            for names in (folders, files):
                names[:] = [name for name in names if name not in (*ENGINES_OWN, _KEEPER)]
        yield from (os.path.normpath(os.path.join(below, name)) for name in (*folders, *files))


def _seen(path: Path, status: os.stat_result, links: tuple[str, ...]) -> SeenFile:
    is_link, is_file = stat.S_ISLNK(status.st_mode), stat.S_ISREG(status.st_mode)
    return SeenFile(
        kind=stat.S_IFMT(status.st_mode),
        mode=0 if is_link else stat.S_IMODE(status.st_mode),  # a link's mode means nothing
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        size_bytes=status.st_size if is_file else 0,
        target=os.readlink(path) if is_link else "",
        device=status.st_rdev,
        attributes=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in _attributes(path)),
        links=links,
        sha256=_digest(path) if is_file else "",
    )


def _attributes(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _digest(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
