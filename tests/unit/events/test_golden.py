"""Golden entries, with all fields as they lie on a stream: what was once said stays readable for ever.

Lines are only ever added to the files. `golden.sha256` has the hash of each, so an old line that is changed for a new
reader's sake shows. For a new line: `tail -n1 golden_entries.jsonl | tr -d '\n' | sha256sum`.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from events.codec import decode, encode, message_types, parse_time, wire_type

FOLDER = Path(__file__).parent
FILES = ("golden.jsonl", "golden_entries.jsonl")
ENTRIES = [json.loads(line) for line in (FOLDER / "golden_entries.jsonl").read_text().splitlines()]
OURS = [entry for entry in ENTRIES if entry["source"] == "build@host1"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["type"])
def test_a_golden_entry_is_still_read(entry: dict[str, str]) -> None:
    """Every attribute arrives, whoever wrote it and in whatever order; what is empty is as if it were not there."""
    envelope = decode({name.encode(): value.encode() for name, value in entry.items()})
    assert wire_type(envelope.message) == entry["type"]
    assert (envelope.id, envelope.source, envelope.subject) == (entry["id"], entry["source"], entry["subject"])
    assert envelope.time == parse_time(entry["time"])
    assert envelope.correlation_id == (entry.get("correlationid") or entry["id"])
    assert envelope.causation_id == (entry.get("causationid") or None)
    assert envelope.traceparent == (entry.get("traceparent") or None)
    known = json.loads(encode(envelope)[b"data"])
    assert known == {name: value for name, value in json.loads(entry["data"]).items() if name != "later"}


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry["type"])
def test_what_we_write_is_written_as_it_was(entry: dict[str, str]) -> None:
    """The same fields in the same order, to the byte: older readers of it are still running."""
    fields = {name.encode(): value.encode() for name, value in entry.items()}
    assert list(encode(decode(fields)).items()) == list(fields.items())


def test_every_type_has_a_golden_entry() -> None:
    """A new type or version brings its line."""
    assert {entry["type"] for entry in ENTRIES} == set(message_types())


def test_no_golden_line_was_changed() -> None:
    """Each line has its hash; a line that is added brings one."""
    found = [
        f"{sha256(line).hexdigest()}  {name}" for name in FILES for line in (FOLDER / name).read_bytes().splitlines()
    ]
    assert sorted(found) == sorted((FOLDER / "golden.sha256").read_text().splitlines())
