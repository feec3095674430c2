"""Everything that is in an image, as one list: read from `docker export`, the same way on the host and in a range.

The program reads the tar on its standard input and writes the list; a range's Python has the standard library alone.
"""

from __future__ import annotations

import hashlib
import io
import tarfile

from deploy.machine.base_image import base_image_tar
from deploy.machine.cache import default_cache

#: What the program is, in the range too.
PROGRAM = """
import hashlib, json, sys, tarfile
found = {}  # older engines put the kind of file into the mode, newer ones the twelve bits alone
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for entry in archive:
        content = archive.extractfile(entry) if entry.isreg() else None
        digest = hashlib.sha256(content.read()).hexdigest() if content else ""
        kept = sorted((name, value) for name, value in entry.pax_headers.items() if "xattr" in name)
        found[entry.name.strip("/")] = [
            entry.type.decode(), oct(entry.mode & 0o7777), entry.uid, entry.gid,
            entry.linkname.strip("/"), digest, kept,
        ]
print(json.dumps(found, sort_keys=True))
"""

#: security.capability, revision 2: may bind low ports (capabilities(7), linux/capability.h's vfs_cap_data).
CAPABILITY = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
XATTR = "SCHILY.xattr.security.capability"


def hard_image() -> bytes:
    """The base with what careless copies lose: hard links, a setuid program, owners, a capability, links, a pipe."""
    packed = io.BytesIO(base_image_tar(default_cache()).read_bytes())
    with tarfile.open(fileobj=packed, mode="a", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "hard/file", b"one file, three names")
        for number in range(2):
            _add(archive, f"hard/link-{number}", kind=tarfile.LNKTYPE, link="hard/file")
        _add(archive, "hard/setuid", b"#!/bin/sh\n", mode=0o4755)
        _add(archive, "hard/setgid", kind=tarfile.DIRTYPE, mode=0o2775, owner=(12345, 54321))
        _add(archive, "hard/capable", b"#!/bin/sh\n", mode=0o755, pax={XATTR: CAPABILITY})
        _add(archive, "hard/nowhere", kind=tarfile.SYMTYPE, link="/no/such/file")
        _add(archive, "hard/pipe", kind=tarfile.FIFOTYPE)
        _add(archive, "hard/empty")
        _add(archive, "hard/" + "n" * 200, b"a name that does not fit in a tar's header")
        _add(archive, "hard/ümläut", "söme text".encode())
        _add(archive, "hard/noise", b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)) * 64)
    return packed.getvalue()


def _add(
    archive: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    pax: dict[str, str] | None = None,
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.mtime = kind, link, mode, 1_700_000_000
    entry.uid, entry.gid = owner
    entry.size = len(content)
    entry.pax_headers = dict(pax or {})
    archive.addfile(entry, io.BytesIO(content))
