"""Tars of build contexts in files."""

import bz2
import gzip
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from services.adapters.context_tar import headers, holds, is_tar
from tests.unit.services.core.archives.tars import entry, tar

CONTEXT = {"./a": b"x", "sub/Dockerfile": b"FROM scratch", "./Dockerfile": b"FROM scratch", "z" * 200: bytes(5000)}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_dockerfile_is_found_in_every_packing_and_dialect(
    tmp_path: Path, pack: Callable[[bytes], bytes], form: int
) -> None:
    """Whatever its name begins with."""
    path = tmp_path / "context"
    path.write_bytes(pack(tar(CONTEXT, form)))
    assert is_tar(path)
    assert [holds(path, name) for name in ("Dockerfile", "./sub/Dockerfile", "z" * 200, "other")] == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize(
    "content", [b"", b"FROM scratch\n" * 100, gzip.compress(b"FROM scratch\n" * 100), b"\x1f\x8bx"]
)
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    """A Dockerfile, packed or not, an empty file, a packing that is broken."""
    path = tmp_path / "context"
    path.write_bytes(content)
    assert not is_tar(path)


def test_what_is_cut_off_is_a_value_error(tmp_path: Path) -> None:
    """Only where it ends before the wanted entry."""
    path = tmp_path / "context"
    path.write_bytes(tar({"Dockerfile": b"FROM scratch", "big": bytes(5000)})[:3000])
    assert holds(path, "Dockerfile")
    with pytest.raises(ValueError, match="cut off"):
        holds(path, "other")


def test_memory_is_flat_however_many_entries(tmp_path: Path) -> None:
    """Names are not collected: a hundred times the entries take no more."""
    path, packer = tmp_path / "context", zstandard.ZstdCompressor(level=1).compressobj()
    with path.open("wb") as file:
        block = b"".join(entry(f"{number}") for number in range(1000))
        for _ in range(150):
            file.write(packer.compress(block))
        file.write(packer.compress(entry("Dockerfile") + bytes(1024)) + packer.flush())
    script = (
        "import resource, sys; from pathlib import Path; from services.adapters.context_tar import holds;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; assert holds(Path(sys.argv[1]), 'Dockerfile');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, timeout=120)
    assert int(grown.stdout) * 1024 < 48 << 20
    assert sum(1 for _ in headers(path)) == 150_001
