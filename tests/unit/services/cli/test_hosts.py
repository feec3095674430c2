"""`hosts ls` and `hosts forget`."""

import asyncio
from datetime import UTC, datetime, timedelta

from events.bus import IndexWrite, Outcome
from events.records import ANY
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
    assert shell.run("hosts", "forget", "host-2").exit_code == 0
    assert shell.run("hosts", "forget", "host-2").exit_code == 2
