"""Build context: a folder as a tar that is made while it is sent, so that no copy of it is made on disk.

As the `docker` client does it: entries belong to root, `.dockerignore` is honoured (also `<Dockerfile>.dockerignore`,
which wins), sockets are left out, and a Dockerfile from outside the folder is sent along under a name of its own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.adapters.context_tar import holds, is_tar
from services.adapters.files import CHUNK_BYTES, file_chunks, open_for_reading, stdin_chunks
from services.core.archives.dockerignore import Dockerignore
from services.core.archives.layout import END, padding
from services.core.closing import closing
from services.errors import BadArchive, BadInput, NotFound
from services.ports import Chunks

_IGNORE_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """A checked context: `chunks()` gives its tar. `dockerfile` is the name to tell the engine."""

    root: Path
    dockerfile: str
    ignore: Dockerignore
    extra: Path | None = None

    @classmethod
    def open(cls, root: Path, dockerfile: str | None = None) -> BuildContext:
        """Check the folder and its Dockerfile before anything is sent. Raises NotFound, BadInput.

        dockerfile  path of the Dockerfile, as the caller's shell has it or relative to `root`; default `Dockerfile`
        """
        if not root.is_dir():
            raise NotFound(f"there is no folder {root} to build from")
        path = _find_dockerfile(root, dockerfile)
        inside = path.resolve().is_relative_to(root.resolve())
        name = (
            path.resolve().relative_to(root.resolve()).as_posix() if inside else f".dockerfile.{secrets.token_hex(8)}"
        )
        return cls(root=root, dockerfile=name, ignore=_read_ignore(root, path), extra=None if inside else path)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The tar, entries sorted by path, so that the same content is the same stream."""
        outside = [] if self.extra is None else [(self.extra, self.dockerfile)]
        inside = await asyncio.to_thread(lambda: [(self.root / name, name) for name in self._names()])
        for path, name in (*outside, *inside):
            entry = _entry(path, name)
            async with closing(entry):
                async for chunk in entry:
                    yield chunk
        yield END

    def _names(self) -> Iterator[str]:
        """Paths below the root that are sent. The Dockerfile always is: the engine needs it to begin."""
        for folder, folders, files in os.walk(self.root):
            here = Path(folder).relative_to(self.root)
            folders.sort()
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            folders[:] = [name for name in folders if name not in links]
            kept = []
            for name in folders:
                path = (here / name).as_posix()
                excluded = self.ignore.excludes(path)
                if not excluded:
                    yield path
                if not excluded or self.ignore.takes_back or self.dockerfile.startswith(f"{path}/"):
                    kept.append(name)
            folders[:] = kept
            for name in sorted([*files, *links]):
                path = (here / name).as_posix()
                if path in {self.dockerfile, ".dockerignore"} or not self.ignore.excludes(path):
                    yield path


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A build context that is ready to be sent: its tar, and the name of its Dockerfile."""

    chunks: Callable[[], Chunks]
    dockerfile: str
    origin: str


def open_context(said: str, dockerfile: str | None = None) -> Context:
    """A folder, a Dockerfile alone, a tar of a context, or `-`: such a tar on standard input.

    Raises NotFound, BadInput. Of a tar only the engine knows whether it holds the Dockerfile, so that a stream need
    not be kept; a file is looked into first.
    """
    path = Path(said)
    if said == "-":
        return Context(chunks=stdin_chunks, dockerfile=dockerfile or "Dockerfile", origin="standard input")
    if path.is_dir():
        folder = BuildContext.open(path, dockerfile)
        return Context(chunks=folder.chunks, dockerfile=folder.dockerfile, origin=str(path.resolve()))
    if is_tar(path):
        name = dockerfile or "Dockerfile"
        _check_tar(path, name)
        return Context(chunks=lambda: file_chunks(path), dockerfile=name, origin=str(path.resolve()))
    if dockerfile is not None:
        raise BadInput(f"{path} is neither a folder nor a tar, so --file cannot be in it; give the folder as context")
    return Context(chunks=lambda: _alone(path), dockerfile="Dockerfile", origin=str(path.resolve()))


def _check_tar(path: Path, dockerfile: str) -> None:
    """Raises BadInput for a tar without the Dockerfile, BadArchive for one that is broken before it."""
    try:
        if holds(path, dockerfile):
            return
    except ValueError as problem:
        raise BadArchive(f"{path} is broken or cut off: {problem}; make it again") from problem
    raise BadInput(f"{path} holds no {dockerfile}: add one, or name another file with --file", code="no_dockerfile")


async def _alone(path: Path) -> AsyncIterator[bytes]:
    entry = _entry(path, "Dockerfile")
    async with closing(entry):
        async for chunk in entry:
            yield chunk
    yield END


def _find_dockerfile(root: Path, dockerfile: str | None) -> Path:
    if dockerfile is None:
        path = root / "Dockerfile"
        if not path.is_file():
            raise BadInput(
                f"{root} holds no Dockerfile: add one, or name another file with --file", code="no_dockerfile"
            )
        return path
    for path in (Path(dockerfile), root / dockerfile):
        if path.is_file():
            return path
    raise BadInput(f"there is no Dockerfile {dockerfile}, neither here nor in {root}", code="no_dockerfile")


def _read_ignore(root: Path, dockerfile: Path) -> Dockerignore:
    for path in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), root / ".dockerignore"):
        if path.is_file():
            with open_for_reading(path) as file:
                content = file.read(_IGNORE_LIMIT_BYTES)
            try:
                return Dockerignore.parse(content.decode())
            except ValueError as problem:
                raise BadInput(f"{path}: {problem}") from problem
    return Dockerignore()


async def _entry(path: Path, name: str) -> AsyncIterator[bytes]:
    """One entry: header, content, padding. Raises BadInput for what cannot be read or changes while it is read."""
    try:
        status = await asyncio.to_thread(path.lstat)
        info = _header(path, name, status)
    except OSError as problem:
        raise BadInput(f"cannot read {path}: {problem.strerror or problem}") from problem
    if info is None:
        return
    yield info.tobuf(tarfile.PAX_FORMAT)
    if not info.isreg():
        return
    left = info.size
    file = await asyncio.to_thread(open_for_reading, path)
    with file:
        while left:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
            if not chunk:
                raise BadInput(f"{path} became shorter while it was sent; build again when nothing writes to it")
            left -= len(chunk)
            yield chunk
    yield padding(info.size)


def _header(path: Path, name: str, status: os.stat_result) -> tarfile.TarInfo | None:
    """None for a socket, which no tar can hold."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    kinds = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
    kinds |= {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    info.type = kind
    if kind == tarfile.REGTYPE:
        info.size = status.st_size
    elif kind == tarfile.SYMTYPE:
        info.linkname = os.readlink(path)
    elif kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return info
