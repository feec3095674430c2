"""mkfs.erofs 1.8 for a machine whose release has an older one: from Debian trixie, with the libraries it needs.

The index maker runs it as a user without rights, so the copy lies in a folder that everybody may read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.machine.commands import MachineError
from deploy.machine.debian import suite_options, unpack_packages

SUITE = "trixie"
_PACKAGES = (
    *("erofs-utils", "libc6", "libdeflate0", "liblz4-1", "liblzma5", "libpcre2-8-0", "libselinux1", "libuuid1"),
    *("libxxhash0", "libzstd1", "zlib1g"),
)


_RUN = """#!/bin/sh
folder=${0%/*}
exec "$folder/lib/ld.so" --library-path "$folder/lib" "$folder/mkfs" "$@"
"""


@contextmanager
def mkfs_erofs(cache: Path) -> Iterator[Path]:
    """The program, for as long as the block lasts. Raises MachineError."""
    with tempfile.TemporaryDirectory(prefix="lab-erofs-") as folder:
        root = Path(folder, "erofs")
        shutil.copytree(_unpacked(cache), root)
        Path(folder).chmod(0o755)
        yield root / "mkfs.erofs"


def _unpacked(cache: Path) -> Path:
    """The program and its libraries in one folder, unpacked once."""
    made = cache / f"erofs-{SUITE}"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="erofs-") as scratch:
        root, chosen = Path(scratch, "root"), Path(scratch, "chosen")
        unpack_packages(_PACKAGES, root, Path(scratch, "downloads"), suite_options(SUITE, Path(scratch)))
        loaders = [path for path in root.rglob("ld-linux-*.so.*") if path.is_file()]
        if not loaders:
            raise MachineError(f"Debian's {SUITE} has no dynamic loader in libc6 where it is expected")
        (chosen / "lib").mkdir(parents=True)
        for library in root.rglob("*.so*"):
            if library.is_file() and "gconv" not in library.parts:
                shutil.copy(library, chosen / "lib" / library.name)
        shutil.copy(loaders[0], chosen / "lib" / "ld.so")
        shutil.copy(root / "usr/bin/mkfs.erofs", chosen / "mkfs")
        (chosen / "mkfs.erofs").write_text(_RUN)
        (chosen / "mkfs.erofs").chmod(0o755)
        if not made.exists():  # another laboratory may have made it meanwhile
            chosen.rename(made)
    return made
