"""`hosts ls`, `hosts images` and `hosts forget`."""

import asyncio
from datetime import UTC, datetime, timedelta

from events.bus import IndexWrite, Outcome
from events.records import ANY, Stored
from services.core.hosts.held_images import HeldImage, HeldImages, HeldKeys
from services.core.hosts.hosts import HostKeys, HostRecord
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS


def test_hosts_are_listed_and_forgotten(shell: Shell) -> None:
    """A line each, and why an engine does not answer."""
    keys, now = HostKeys(STREAMS.prefix), datetime.now(UTC)
    record = HostRecord(
        host="host-2",
        machine="metal",
        since=now,
        seen_at=now - timedelta(minutes=5),
        engine_version="28.5.2",
        store="classic",
        images=3,
        images_bytes=5_000_000,
        error="connection refused",
    )
    outcome = Outcome(
        records=(keys.record("host-2").write(record, expected=ANY),), index=(IndexWrite(keys.all, "host-2", 1.0),)
    )
    asyncio.run(shell.world.bus.commit(outcome))
    result = shell.run("hosts", "ls")
    assert result.exit_code == 0, result.output
    line = " ".join(result.stdout.splitlines()[1].split())
    assert line.startswith("host-2 away metal 28.5.2 classic 3 (5.0 MB) 0 - ")
    assert "connection refused" in result.stderr
    assert '"host":"host-2"' in shell.run("hosts", "ls", "--json").stdout
    held = HeldImage(local_id="sha256:" + "5" * 64, image_id=None, diff_ids=(), since=now, size_bytes=7_000_000)
    web = HeldImages(reference="docker.io/library/web:1", hosts={"host-2": held})
    asyncio.run(shell.world.bus.commit(HeldKeys(STREAMS.prefix).written(Stored(None, 0), web, "host-2", now)))
    listed = shell.run("hosts", "images", "host-2")
    assert listed.exit_code == 0, listed.output
    assert " ".join(listed.stdout.splitlines()[1].split()).startswith(f"{web.reference} {'5' * 12} 7.0 MB no ")
    assert '"items":[]' in shell.run("hosts", "images", "host-2", "--search", "db", "--json").stdout.replace(" ", "")
    assert shell.run("hosts", "images", "nobody").exit_code == 2
    assert shell.run("hosts", "forget", "host-2").exit_code == 0
    assert shell.run("hosts", "forget", "host-2").exit_code == 2
