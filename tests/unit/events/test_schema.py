"""`events.schema`, and golden entries: what was once said stays readable for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from events.authority import ALLOWED
from events.codec import decode, decode_message, encode_message, message_types
from events.dead_letters import write_letter
from events.lease import DeadLetterReason, Holder, Lease
from events.messages import Digest, Identifier
from events.schema import CHANNELS, addresses, asyncapi, headers, json_schemas, letter
from events.streams import Streams

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden.jsonl").read_text().splitlines()]


def _name(golden: dict[str, Any]) -> str:
    return str(golden["type"])


@pytest.mark.parametrize("golden", GOLDEN, ids=_name)
def test_a_golden_entry_is_still_understood(golden: dict[str, Any]) -> None:
    """Every field that it has arrives; lines are only ever added to that file."""
    message = decode_message(golden["type"], json.dumps(golden["data"]).encode())
    assert json.loads(encode_message(message)) == golden["data"]


@pytest.mark.parametrize("golden", GOLDEN, ids=_name)
def test_a_golden_entry_fits_its_schema(golden: dict[str, Any]) -> None:
    """The schema that other languages get describes what is really on the wire."""
    schema = json_schemas()[golden["type"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(golden["data"], schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("golden", GOLDEN, ids=_name)
def test_a_field_from_the_future_is_ignored(golden: dict[str, Any]) -> None:
    """A newer publisher may say more than this reader knows."""
    data = json.dumps({**golden["data"], "said_in_a_later_version": {"a": [1]}}).encode()
    assert json.loads(encode_message(decode_message(golden["type"], data))) == golden["data"]


def test_every_message_has_a_golden_entry() -> None:
    """A new type or version brings its line."""
    assert {golden["type"] for golden in GOLDEN} == set(message_types())


def test_every_message_has_a_channel() -> None:
    """The document leaves none out, and describes every stream that may carry one."""
    assert {cls for classes in ALLOWED.values() for cls in classes} == set(message_types().values())
    assert set(CHANNELS) == {kind for kind, classes in ALLOWED.items() if classes}


def test_every_stream_is_a_channel() -> None:
    """Whatever `Streams` names is in the document, with its address."""
    streams = Streams("p")
    of_all = {getattr(streams, name) for name in ("images", "deployments", "deployer", "progress", "dead")}
    of_a_range = {
        getattr(streams, name)("{range_id}") for name in ("inbox", "outbox", "range_progress", "range_dead", "refused")
    }
    channels = asyncapi(streams)["channels"]
    assert {channel["address"] for channel in channels.values()} == of_all | of_a_range | {streams.host_inbox("{host}")}


@pytest.mark.parametrize("kind", [Identifier, Digest])
def test_a_line_break_ends_no_name(kind: Any) -> None:
    """A name that is part of keys and paths is exactly what it looks like."""
    good = "r1" if kind is Identifier else f"sha256:{'a' * 64}"
    assert msgspec.convert(good, kind) == good
    for wrong in (f"{good}\n", f"\n{good}", f"{good}\nx", f"{good}\r\n"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, kind)


def test_patterns_in_schemas_are_plain() -> None:
    """No look-ahead, which some languages' patterns do not know; `$` is the end there."""
    patterns = _patterns(json_schemas())
    assert "^sha256:[0-9a-f]{64}$" in patterns
    assert not any("(?" in pattern for pattern in patterns)


def test_the_document_is_whole() -> None:
    """Every reference in it leads somewhere, and its channels have the keys that are used."""
    document = json.loads(msgspec.json.encode(asyncapi(Streams("test"))))
    assert document["channels"]["inbox"]["address"] == "test:range:{range_id}:inbox"
    assert document["channels"]["range_dead"]["address"] == "test:range:{range_id}:dead"
    assert set(document["channels"]) == set(addresses(Streams("test")))
    for place in _references(document):
        assert isinstance(_found(document, place), dict)


def test_a_schema_of_one_message_stands_alone() -> None:
    """Every reference in it leads to a place within it."""
    for schema in json_schemas().values():
        for place in _references(schema):
            assert isinstance(_found(schema, place), dict)


def test_a_dead_letter_fits_its_schema() -> None:
    """What is written is what the document says, and every field of it is named there."""
    lease = Lease("s", "1-1", Holder("g", "w"), 1, {b"id": b"a", b"data": b"{"})
    fields = write_letter(lease, DeadLetterReason("dead", "bad_data", "why", "2026-01-01T00:00:00.000000Z"))
    schema = {**letter(), "additionalProperties": False}
    jsonschema.validate({name.decode(): value.decode() for name, value in fields.items()}, schema)


def test_a_schema_says_what_a_plain_publisher_must_write() -> None:
    """An entry with nothing but what headers and schema require is decoded."""
    required = {name: "x" for name in headers()["required"]}
    fields = {
        **required,
        "type": "image.push_requested.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": '{"reference":"a"}',
    }
    envelope = decode({name.encode(): value.encode() for name, value in fields.items()})
    assert envelope.correlation_id == envelope.id == "x"


def _patterns(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["pattern"]] if isinstance(part.get("pattern"), str) else []
        return own + [one for value in part.values() for one in _patterns(value)]
    return [one for value in part for one in _patterns(value)] if isinstance(part, list) else []


def _found(document: Any, place: str) -> Any:
    found = document
    for step in place.removeprefix("#/").split("/"):
        found = found[step]
    return found


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [one for value in part.values() for one in _references(value)]
    return [one for value in part for one in _references(value)] if isinstance(part, list) else []
