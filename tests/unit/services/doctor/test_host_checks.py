"""Hosts that are away, and engines that do not answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from events.bus import IndexWrite, Outcome
from events.records import ANY
from services.core.hosts.hosts import HostKeys, HostRecord
from services.doctor.findings import Note, Wrong
from services.doctor.host_checks import check_hosts
from services.queries.known_hosts import HostRow
from tests.unit.services.doctor.test_checks import _findings
from tests.unit.services.twins import STREAMS, Cluster

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _row(host: str, state: Literal["alive", "away"] = "alive", *, error: str = "") -> HostRow:
    return HostRow(
        host=host,
        state=state,
        machine=host,
        engine_id=host,
        engine_version="28",
        store="classic",
        platform="linux/amd64",
        free_bytes=None,
        images=0,
        images_bytes=0,
        ranges=0,
        tar_url="",
        since=NOW,
        seen_at=NOW,
        error=error,
    )


def test_each_host_that_is_not_well_is_named() -> None:
    """One that is away is a remark, an engine that does not answer is wrong; only the first ones are named."""
    assert check_hosts([]).startswith("none has reported")
    assert check_hosts([_row("a"), _row("b")]) == "2 of 2 are there"
    with pytest.raises(Note, match=r"1 of 2 are there; no heartbeat from b: .*"):
        check_hosts([_row("a"), _row("b", "away")])
    with pytest.raises(Wrong, match=r"does not answer: a \(refused\)"):
        check_hosts([_row("a", error="refused"), _row("b", "away")])
    with pytest.raises(Note, match="and 3 more"):
        check_hosts([_row(f"h{number}", "away") for number in range(8)])


async def test_doctor_looks_at_the_hosts(tmp_path: Path) -> None:
    """As they are recorded."""
    world, keys = Cluster(), HostKeys(STREAMS.prefix)
    record = HostRecord(host="gone", machine="m", since=NOW, seen_at=NOW)
    await world.bus.commit(
        Outcome(records=(keys.record("gone").write(record, expected=ANY),), index=(IndexWrite(keys.all, "gone", 1.0),))
    )
    finding = (await _findings(world, tmp_path))["hosts"]
    assert (finding.state, "gone" in finding.found) == ("note", True)
