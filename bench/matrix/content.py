"""Content of the compatibility matrix: what is sent, and what `docker export` reads back, member by member."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from deploy.lab import EngineServer
from deploy.lab.server import plain_environment
from deploy.machine.commands import MachineError, need

_LAYER_BYTES = 4_000_000
_MOMENT = 1_600_000_000
#: The file capability of `ping` (Linux, capability.h: revision 2, effective, CAP_NET_BIND_SERVICE).
_NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
#: What an engine puts into every container by itself, each version its own way.
ENGINES_OWN = (".dockerenv", "dev", "etc", "proc", "sys")


def import_base(host: EngineServer, name: str) -> None:
    """An image of one layer, different for each name, with what gets lost first when files are copied carelessly."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("bin", "data", *(f"data/{'long/' * depth}".rstrip("/") for depth in range(1, 31))):
            _folder(archive, folder)
        _file(archive, "bin/tool", name.encode() * 1000, mode=0o4755)
        _link(archive, "bin/hard", tarfile.LNKTYPE, "bin/tool")
        _link(archive, "bin/soft", tarfile.SYMTYPE, "../bin/tool")
        _file(archive, f"data/{'long/' * 30}name", b"deep")
        _file(archive, "data/owned", b"somebody's", mode=0o640, owner=1234)
        _file(
            archive, "data/able", b"#!", mode=0o755, attributes={"security.capability": _NET_BIND, "user.note": b"n=\n"}
        )
        _node(archive, "data/null", tarfile.CHRTYPE, (1, 3))
        _node(archive, "data/disk", tarfile.BLKTYPE, (7, 300))
        _node(archive, "data/fifo", tarfile.FIFOTYPE, (0, 0))
        _file(archive, "data/bulk", random.Random(name).randbytes(_LAYER_BYTES))
    _docker(host, ["import", "-", name], packed.getvalue())


def layer_file(path: Path, seed: str) -> None:
    """A file that makes a layer nobody else has."""
    path.write_bytes(random.Random(seed).randbytes(_LAYER_BYTES))


def content_digest(engine: EngineServer, image: str) -> str:
    """A digest over every file that a container of the image would see: name, kind, mode, owner, time, device number,
    file capability, content.
    """
    container = _docker(engine, ["create", "--network", "none", image, "nothing"]).decode().strip()
    try:
        exported = _docker(engine, ["export", container])
    finally:
        _docker(engine, ["rm", container])
    lines = []
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        for member in archive:
            if member.name.partition("/")[0] in ENGINES_OWN:
                continue
            content = archive.extractfile(member) if member.isreg() or member.islnk() else None
            digest = hashlib.sha256(content.read() if content else b"").hexdigest()
            kind = "link" if member.islnk() else member.type
            about = (
                member.name,
                kind,
                member.linkname,
                0 if member.issym() else member.mode & 0o7777,  # a link's mode means nothing
                member.uid,
                member.gid,
                int(member.mtime),
                (member.devmajor, member.devminor) if member.isdev() else None,
                member.pax_headers.get("SCHILY.xattr.security.capability"),
            )
            lines.append(repr((*about, digest)))
    if not lines:
        raise MachineError(f"{engine.name} exports nothing of {image}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _docker(engine: EngineServer, words: list[str], content: bytes = b"") -> bytes:
    """As `EngineServer.docker`, with bytes in and out."""
    done = subprocess.run(
        [need("docker", "docker.io"), "-H", engine.url, *words],
        input=content,
        capture_output=True,
        env={name: value for name, value in plain_environment().items() if not name.startswith("DOCKER_")},
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise MachineError(f"docker {words[0]} on {engine.name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _file(
    archive: tarfile.TarFile,
    name: str,
    content: bytes,
    *,
    mode: int = 0o644,
    owner: int = 0,
    attributes: Mapping[str, bytes] | None = None,
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uid, member.gid, member.mtime = len(content), mode, owner, owner, _MOMENT
    member.pax_headers = {f"SCHILY.xattr.{key}": text.decode("latin1") for key, text in (attributes or {}).items()}
    archive.addfile(member, io.BytesIO(content))


def _node(archive: tarfile.TarFile, name: str, kind: bytes, device: tuple[int, int]) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, 0o660, _MOMENT
    member.devmajor, member.devminor = device
    archive.addfile(member)


def _folder(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, _MOMENT
    archive.addfile(member)


def _link(archive: tarfile.TarFile, name: str, kind: bytes, target: str) -> None:
    member = tarfile.TarInfo(name)
    # An engine that unpacks a hard link gives the file the link's mode and time.
    member.type, member.linkname, member.mode, member.mtime = kind, target, 0o4755, _MOMENT
    archive.addfile(member)
