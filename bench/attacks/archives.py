"""Attacks by archives and references from strangers, given to the stack by a careless user of the host."""

from __future__ import annotations

import gzip
import io
import tarfile
import time

from bench.attacks.register import Result, attack
from bench.attacks.stage import Stage


def _import(stage: Stage, archive: bytes) -> Result:
    """Give it to the importer; harm is a service that was killed, or an image."""
    stage.killed()
    begun = time.monotonic()
    done = stage.run(
        *("docker", "exec", "-i", "cyroid-images-ingest-1", "cyroid-images", "images", "import", "-"),
        stdin=archive,
        seconds=300.0,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")[-300:]
    return Result(bool(stage.killed()), f"{done.returncode} in {time.monotonic() - begun:.0f} s: {said}")


@attack
def an_archive_that_unpacks_to_gigabytes(stage: Stage) -> Result:
    """512 MiB of nothing in 2 MB."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        for _ in range(512):
            file.write(bytes(1 << 20))
    return _import(stage, packed.getvalue())


@attack
def an_archive_of_very_many_entries(stage: Stage) -> Result:
    """300,000 names."""
    packed = io.BytesIO()
    header = tarfile.TarInfo("x").tobuf()
    packed.write(header * 300_000 + bytes(1024))
    return _import(stage, packed.getvalue())


@attack
def an_archive_whose_names_lead_out(stage: Stage) -> Result:
    """`../`, absolute names, links and devices."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind, target in (
            ("../../../../tmp/escaped", tarfile.REGTYPE, ""),
            ("/tmp/escaped", tarfile.REGTYPE, ""),
            ("manifest.json", tarfile.SYMTYPE, "/run/cyroid/redis_url"),
            ("device", tarfile.BLKTYPE, ""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    result = _import(stage, packed.getvalue())
    found = stage.run("docker", "exec", "cyroid-images-ingest-1", "ls", "/tmp/escaped")
    return Result(result.harm or found.returncode == 0 or "redis://" in result.said, result.said)


@attack
def a_reference_that_leads_to_another_server(stage: Stage) -> Result:
    """An image named as an address of the management network: what answers there is not asked for credentials."""
    state, seconds = stage.deploy(stage.victim, "172.30.0.23:8070/api/v1:latest", seconds=30.0)
    return Result(state == "succeeded", f"{state} after {seconds:.0f} s")
