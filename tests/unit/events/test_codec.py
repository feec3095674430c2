"""`events.codec`: an envelope as plain fields and back."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from events.codec import TooLarge, Undecodable, decode, encode
from events.envelope import Envelope
from events.messages import PushRequested

ENVELOPE = Envelope(
    message=PushRequested(reference="nginx:1.27", why="auto"), source="build@host1", subject="nginx:1.27"
)


def test_an_envelope_comes_back_as_it_went() -> None:
    """Encoding and decoding are inverse."""
    assert decode(encode(ENVELOPE)) == ENVELOPE


def test_the_fields_read_like_a_log() -> None:
    """The fields' order is fixed, the data has no type of its own."""
    fields = encode(replace(ENVELOPE, causation_id="earlier"))
    names = [name.decode() for name in fields]
    assert names == ["id", "type", "source", "subject", "time", "correlationid", "causationid", "data"]
    assert fields[b"data"] == b'{"reference":"nginx:1.27","why":"auto"}'


def test_an_actor_is_an_attribute_of_its_own() -> None:
    """Before the data; no more of it is read than a name has."""
    fields = encode(replace(ENVELOPE, actor="eva"))
    assert [*fields][-2:] == [b"actor", b"data"]
    assert decode(fields).actor == "eva"
    assert len(decode({**fields, b"actor": b"x" * 100_000}).actor) == 128


def test_a_time_before_the_year_1000_comes_back() -> None:
    """Years have four digits (RFC 3339)."""
    early = replace(ENVELOPE, time=datetime(7, 1, 2, tzinfo=UTC))
    assert decode(encode(early)).time == early.time


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({b"type": b"image.push_requested.v9"}, "future_version"),
        ({b"type": b"nothing.known"}, "unknown_type"),
        ({b"data": b"{"}, "bad_data"),
        ({b"data": b"{}"}, "bad_data"),
        ({b"data": b"[" * 100_000}, "bad_data"),
        ({b"time": b"yesterday"}, "bad_field"),
        ({b"time": b"2026-01-01T00:00:00"}, "bad_field"),
        ({b"time": b"0001-01-01T00:00:00+14:00"}, "bad_field"),
        ({b"source": b"\xff"}, "not_utf8"),
        ({b"id": b""}, "bad_field"),
        ({b"data": b" " * 2_000_000}, "too_large"),
        ({b"field %d" % number: b"" for number in range(1000)}, "too_large"),
    ],
)
def test_what_is_no_message_says_why(change: dict[bytes, bytes], code: str) -> None:
    """Each way of being undecodable has a stable code."""
    with pytest.raises(Undecodable) as caught:
        decode({**encode(ENVELOPE), **change})
    assert caught.value.code == code


def test_a_missing_field_is_named() -> None:
    """The reason names the field that is not there."""
    with pytest.raises(Undecodable, match="no field subject"):
        decode({name: value for name, value in encode(ENVELOPE).items() if name != b"subject"})


def test_an_envelope_over_the_limit_is_not_encoded() -> None:
    """The limit holds for the publisher as well."""
    with pytest.raises(TooLarge, match="over 100"):
        encode(ENVELOPE, limit_bytes=100)
