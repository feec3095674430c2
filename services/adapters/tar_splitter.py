"""Program: the tar-split of the tar at its standard input, gzipped, to its standard output; the files' bytes as a
number to its standard error.

The tar is not trusted. Started as root, the process becomes a user without any right before it reads the first byte:
`setpriv` in front of it would need that user to be able to read this program.
"""

from __future__ import annotations

import ctypes
import os
import sys
import zlib

from services.core.archives.tar_split_writer import TarSplitWriter

NOBODY = 65534
_NO_NEW_PRIVILEGES = 38
_GZIP = 16 + zlib.MAX_WBITS
_GATHER_BYTES = 1 << 16


def main() -> int:
    """Exit status 0, or 1 for a tar of which there is no tar-split; the reason is on standard error."""
    _drop_rights()
    writer = TarSplitWriter(sys.stdin.buffer.read)
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    gathered = bytearray()
    try:
        for line in writer.lines():
            gathered += line
            if len(gathered) >= _GATHER_BYTES:
                sys.stdout.buffer.write(packer.compress(gathered))
                gathered.clear()
    except ValueError as problem:
        sys.stderr.write(ascii(str(problem))[:300])
        return 1
    sys.stdout.buffer.write(packer.compress(gathered) + packer.flush())
    sys.stdout.buffer.flush()
    sys.stderr.write(f"{writer.files_bytes}\n")
    return 0


def _drop_rights() -> None:
    """Raises OSError."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)  # takes every capability along
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main())
