"""Host records and ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.core.hosts.hosts import HostRecord, host_id_of
from services.core.hosts.looks import LookAnswer

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_an_engines_id_becomes_a_hosts() -> None:
    """Older engines write colons, which no key may have."""
    assert host_id_of("7TUJ:2EXO:VSQO") == "7TUJ-2EXO-VSQO"
    assert host_id_of("7e6f40e2-5a2f-4f5e-9a3b-1f0c3c5e4d21") == "7e6f40e2-5a2f-4f5e-9a3b-1f0c3c5e4d21"
    with pytest.raises(ValueError, match="CYROID_HOST_ID"):
        host_id_of("an id")


def test_what_changes_all_the_time_is_no_fact() -> None:
    """The record is not written for its sake."""
    record = HostRecord(host="a", machine="m", since=NOW, seen_at=NOW, free_bytes=1)
    later = HostRecord(host="a", machine="m", since=NOW, seen_at=NOW + timedelta(seconds=5), free_bytes=2)
    assert record.facts() == later.facts()
    assert HostRecord.read(record.encode()) == record


@pytest.mark.parametrize("value", [None, b"", b"no json", b"[]", b'{"host": 3, "found": 3}', b"\xff"])
def test_what_cannot_be_read_says_nothing(value: bytes | None) -> None:
    """A heartbeat and an answer are keys that anybody with rights on them may have written."""
    assert HostRecord.read(value) is None
    assert LookAnswer.read(value) is None
